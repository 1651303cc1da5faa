"""Reading images: any file that a camera, a scanner or a script leaves behind becomes one of a few plain kinds.

An image is a `PIL.Image.Image` of mode "RGB" or "L" (8 bits, grey), or, where those cannot hold it, an array
(h, w, c): uint8 in 0 to 255, or float32, in 0 to 1 when it was made from 16-bit integers. What the kinds are made of:

- EXIF orientation is applied, so that images stand as they are seen.
- Transparency (RGBA, LA, palettes with a transparent colour) is composited over white, as viewers show it.
  Dropping alpha instead would uncover whatever colour happens to be stored under the transparent pixels.
- 1-bit images become grey, palettes, CMYK, YCbCr and the like RGB. Of an animation the first frame is read.
- 16-bit grey is scaled (65535 becomes 1.0), never clipped. Floats are kept as they are: then `mean` and `std` of the
  preprocessing are in the units of the file. Not-a-number is refused.
- A TIFF keeps all bands, also as pages of one band each; one of which Pillow reads only some is refused.
- Other numbers of channels come as `.npy` files of shape (h, w, c), or (h, w).

Dims: c channels, h w pixels.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
from PIL import Image as PIL
from PIL import ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from nexus.core.text import as_message

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

Image = PIL.Image | np.ndarray
Source = Union[str, os.PathLike[str], bytes, PIL.Image, np.ndarray, "Tensor"]

# Decoders of other formats are never tried: most weaknesses of image libraries sit in the rare ones.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"]
    + [".ppm", ".pgm", ".pbm", ".pnm", ".npy"]
)
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB; where Pillow begins to warn
MAX_SIDE = 65_535  # as in JPEG; a longer side is a damaged header rather than a picture
MAX_FILE_BYTES = 1 << 30
NPY_MAGIC = b"\x93NUMPY"
ALPHA_MODES = frozenset(["RGBA", "LA", "PA", "La", "RGBa"])
EXIF_ORIENTATION = 0x0112
MAX_VALUE = 1e18
"""Of floats: squares of larger ones are no number in 32 bits."""
TIFF_KIND, TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_SAMPLES, TIFF_EXTRA, TIFF_FORMAT = 254, 258, 262, 277, 338, 339
TIFF_NOT_THE_IMAGE = 1 | 4
"""Bits of the kind of a page: a smaller copy, or a mask."""
TIFF_WHITE_IS_ZERO = 0
TIFF_ALPHA = frozenset([1, 2])


class ImageError(ValueError):
    """An image that cannot be used: the message names the file and says what to change, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image:
    """Returns the image, decoded and upright: mode "RGB" or "L", or an array (h, w, c) where those cannot hold it.

    Args:
        source: A path, the bytes of a file, or an image already in memory: PIL, array (h, w) or (h, w, c), or
            tensor (c, h, w).
        max_pixels: Larger images are refused before they are decoded.
        name: What messages call the image; the path by default.

    Raises:
        ImageError: The file is missing, empty, truncated, corrupt, too large or of another format.
    """
    image = open_image(source, max_pixels=max_pixels, name=name)
    if isinstance(image, PIL.Image):
        with decoding(name or _name_of(source)):
            image.load()
    return image


def open_image(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image:
    """Returns what `load_image` returns, except that an ordinary JPEG may be left undecoded.

    Its decoder can then still be asked for a smaller size (`transforms.RandomResizedCrop` does). Errors inside its
    pixels show when it is decoded; `naming` gives them the name of the file.
    """
    name = name or _name_of(source)
    if isinstance(source, np.ndarray) or is_tensor(source):
        with naming(name):
            return as_array(source)
    if isinstance(source, PIL.Image):
        with decoding(name):
            return _plain(source if _orientation(source) == 1 else ImageOps.exif_transpose(source))
    if isinstance(source, io.IOBase):
        raise ImageError(f"{name} is an open file; give its path, or what it holds: file.read().")
    data = source if isinstance(source, bytes) else _read(Path(source), name)
    if data.startswith(NPY_MAGIC):
        return _decode_npy(data, max_pixels, name)
    return _decode(data, max_pixels, name)


def file_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns height and width of an image file as it stands upright, read from its header alone.

    Raises:
        ImageError: See `load_image`; damage inside of the pixels is not seen.
    """
    name = os.fspath(path)
    with _opened(Path(path), name) as file:
        if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            return image_size(_decode_npy(_read(Path(path), name), max_pixels, name))
        file.seek(0)
        image = _open(file, max_pixels, name)
        with decoding(name):
            turned = _orientation(image) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Turns a complaint about an image (ValueError, or a decoder's error) into an `ImageError` that names it."""
    try:
        yield
    except ImageError as error:
        if name in str(error):
            raise
        raise ImageError(f"{name}: {error}") from error
    except ValueError as error:
        raise ImageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"{name}: {_corrupt(error)}") from error


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Likewise for anything that a decoder raises: about hostile bytes that may be any exception."""
    with naming(name):
        try:
            yield
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError("too large for the memory; scale it down.") from error
        except Exception as error:
            raise ImageError(_corrupt(error)) from error


def is_tensor(value: object) -> "TypeIs[Tensor]":
    """Whether a value is torch's tensor. Where torch was not imported nothing is, and it stays so."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_array(image: "Image | Tensor") -> np.ndarray:
    """Returns the image as an array (h, w, c), uint8 or float32; a tensor is read as (c, h, w).

    Raises:
        ImageError: The shape is not that of an image, the numbers are not finite, or their type has no known range.
    """
    if isinstance(image, PIL.Image):
        array = np.asarray(image)
        return array[:, :, None] if array.ndim == 2 else array
    array: Any = image.detach().cpu().permute(1, 2, 0).numpy() if is_tensor(image) and image.ndim == 3 else image
    array = array.detach().cpu().numpy() if is_tensor(array) else array
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape} is not an image; it must be (h, w) or (h, w, c), not empty.")
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError("the image holds values that are not finite; replace NaN and infinity in the file.")
        wild = max(float(array.max()), float(array.min()), key=abs)
        if abs(wild) > MAX_VALUE:
            raise ImageError(f"the image holds {wild:.3g}, a mark of missing pixels perhaps; replace it in the file.")
        return array.astype(np.float32, copy=False)
    raise ImageError(f"pixels of type {array.dtype} have no known range; use uint8, uint16, or floats in 0 to 1.")


def to_tensor(array: np.ndarray) -> "Tensor":
    """Returns the array (h, w, c) as a tensor (c, h, w) of the same type."""
    import torch

    return torch.from_numpy(array.transpose(2, 0, 1).copy(order="C"))


def num_channels(image: "Image | Tensor") -> int:
    """Returns the number of channels."""
    if isinstance(image, PIL.Image):
        return len(image.getbands())
    return image.shape[0] if is_tensor(image) else image.shape[2]


def image_size(image: "Image | Tensor") -> tuple[int, int]:
    """Returns (height, width) in pixels."""
    if isinstance(image, PIL.Image):
        return image.height, image.width
    return (image.shape[1], image.shape[2]) if is_tensor(image) else (image.shape[0], image.shape[1])


def match_channels(image: Image, channels: int) -> Image:
    """Returns the image with `channels` channels: grey is repeated to RGB, RGB weighted to grey (ITU-R 601).

    Raises:
        ImageError: Any other change would have to invent or drop channels.
    """
    have = num_channels(image)
    if have == channels:
        return image
    if {have, channels} == {1, 3}:
        if isinstance(image, PIL.Image):
            return image.convert("RGB" if channels == 3 else "L")
        if channels == 3:
            return np.repeat(image, 3, axis=2)
        grey = image.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
        return np.rint(grey).astype(np.uint8) if image.dtype == np.uint8 else grey
    raise ImageError(
        f"the image has {have} channels and the model takes {channels}; create the model with in_channels={have}, "
        f"or store the image as .npy of shape (h, w, {channels})."
    )


def _name_of(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, PIL.Image):
        return getattr(source, "filename", "") or "image"
    return "image"


def _read(path: Path, name: str) -> bytes:
    with _opened(path, name) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ImageError(f"{name} is not a file; name an image file.")
        if size > MAX_FILE_BYTES:
            raise ImageError(f"{name} has {size:,} bytes, more than {MAX_FILE_BYTES:,}; store a smaller image.")
        with path.open("rb") as file:
            yield file
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read ({error}); check its permissions and its disk.") from error


def _decode(data: bytes, max_pixels: int, name: str) -> Image:
    image = _open(io.BytesIO(data), max_pixels, name)
    with decoding(name):
        # An image that only needs decoding can wait: a crop may ask for fewer of its pixels.
        if image.format == "JPEG" and image.mode in ("RGB", "L") and _orientation(image) == 1:
            return image
        if isinstance(image, TiffImageFile):
            return _from_tiff(image, max_pixels, name)
        image.load()
        return _plain(ImageOps.exif_transpose(image))


_AS_ARRAY = "read it with tifffile.imread and np.save it as .npy of shape (h, w, c), which is read with all bands"


def _from_tiff(image: TiffImageFile, max_pixels: int, name: str) -> Image:
    """Returns all bands of a TIFF: pages of one band each are its bands, previews and masks are passed over."""
    pages = []
    for place in range(image.n_frames):
        image.seek(place)
        if place == 0 or not int(image.tag_v2.get(TIFF_KIND, 0)) & TIFF_NOT_THE_IMAGE:
            pages.append(place)
        _check_size(image.width, image.height * len(pages), max_pixels, name, side=False)
    bands = [_tiff_page(image, place) for place in pages]
    if len(bands) == 1:
        return bands[0]
    arrays = [as_array(band) for band in bands]
    if len({(array.shape, array.dtype) for array in arrays}) > 1 or arrays[0].shape[2] != 1:
        raise ImageError(f"a TIFF of {len(pages)} pages that are no bands of one image; save each page as a file.")
    return np.concatenate(arrays, axis=2)


def _tiff_page(image: TiffImageFile, place: int) -> Image:
    image.seek(place)
    tags, mode = image.tag_v2, image.mode
    samples, shown = int(tags.get(TIFF_SAMPLES, 1)), len(image.getbands())
    if samples != shown and mode != "P":
        raise ImageError(f"a TIFF of {samples} bands, of which Pillow reads {shown}; {_AS_ARRAY}.")
    inverted = tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO and mode not in ("1", "L")
    if inverted and not mode.startswith("I;16"):
        raise ImageError(f"a TIFF in which white is zero, in the mode {mode}; save it with black as zero.")
    upright = ImageOps.exif_transpose(image.copy())
    if mode == "RGBA" and not set(tags.get(TIFF_EXTRA, ())) & TIFF_ALPHA:
        return np.array(upright)  # the fourth band is no transparency: see TIFF 6.0, ExtraSamples
    if inverted:
        return as_array(65535 - np.asarray(upright).astype(np.uint16))
    return _plain(upright)


def _open(file: BinaryIO, max_pixels: int, name: str) -> PIL.Image:
    """Returns the image with its header read, of an allowed format and size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are checked below
            image = PIL.open(file, formats=FORMATS)
    except PIL.DecompressionBombError as error:
        raise ImageError(
            f"{name} is too large ({error}); the limit is {max_pixels:,} pixels: scale it down."
        ) from error
    except PIL.UnidentifiedImageError as error:
        file.seek(0)
        raise ImageError(f"{name} {_guess(file.read(1 << 16))}") from error
    except Exception as error:  # a parser may raise anything about hostile bytes
        raise ImageError(f"{name}: {_corrupt(error)}") from error
    _check_size(image.width, image.height, max_pixels, name)
    return image


def _check_size(width: int, height: int, max_pixels: int, name: str, *, side: bool = True) -> None:
    if (side and max(width, height) > MAX_SIDE) or width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; the limit is {max_pixels:,}, and {MAX_SIDE:,} for a side: "
            "scale it down or raise max_pixels."
        )


def _guess(data: bytes) -> str:
    """Returns what a file that is no image seems to be, and what to do."""
    head = data[:512].lstrip().lower()
    if not data:
        return "is empty (0 bytes); copy or download it again."
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "is a web page or XML text, not an image; download the image itself."
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image; run `git lfs pull`."
    if head.startswith((b"ii*\0", b"mm\0*")):
        return f"is a TIFF {_tiff_kind(data)}."
    if head.startswith((b"\xff\xd8", b"\x89png", b"gif8", b"riff", b"bm")):
        return "is truncated or corrupt; copy or download it again, or remove it."
    known = ", ".join(sorted({"npy", *(name.lower() for name in FORMATS)}))
    return f"is not an image of a known format; convert it to one of {known}."


def _tiff_kind(data: bytes) -> str:
    """Returns how many bands of which numbers a TIFF has, where its tags stand among its first bytes."""
    try:
        file = io.BytesIO(data)
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(TIFF_BITS) or (1,)
        kind = {2: "signed integers", 3: "floats"}.get(next(iter(tags.get(TIFF_FORMAT, (1,)))), "integers")
    except Exception:  # whatever a parser raises about hostile bytes
        return "that Pillow cannot read; save it anew with 8 or 16 bits, or as .npy of shape (h, w, c)"
    if len(bits) > 4:
        return f"of {len(bits)} bands; {_AS_ARRAY}"
    said = f"of {len(bits)} x {bits[0]}-bit {kind}, which Pillow cannot read"
    return f"{said}; save 8 or 16 bits, 32-bit floats, or .npy of shape (h, w, c)"


def _corrupt(error: BaseException) -> str:
    text = str(error).rstrip(".") or type(error).__name__
    return f"truncated or corrupt ({text}); copy or download it again, or remove it."


def _orientation(image: PIL.Image) -> int:
    return image.getexif().get(EXIF_ORIENTATION, 1)


def _plain(image: PIL.Image) -> Image:
    """Returns an image of any mode as "RGB", "L" or an array; transparency is composited over white."""
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I;16"):
        # Pillow's own conversion to 8 bits clips every value above 255.
        return as_array(np.asarray(image).astype(np.uint16))
    if image.mode == "I":
        return _from_int32(np.asarray(image))
    if image.mode == "F":
        return as_array(np.asarray(image))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = PIL.new("RGBA", rgba.size, "white")
        return PIL.alpha_composite(white, rgba).convert("L" if image.mode in ("LA", "La") else "RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_int32(array: np.ndarray) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"32-bit integers from {low} to {high} have no known range; store 16 bits, or floats in 0 to 1."
        )
    return as_array(array.astype(np.uint16))


def _decode_npy(data: bytes, max_pixels: int, name: str) -> np.ndarray:
    """Returns the array of a `.npy` file; its header is checked before anything is allocated."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header: Any = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read_header = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # the header is a Python literal, which can fail in any way
        raise ImageError(f"{name}: the header of the .npy file is broken ({error}); save the array again.") from error
    if dtype.hasobject:
        raise ImageError(f"{name} holds Python objects, not numbers; save a numeric array (h, w, c).")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(f"{name} has shape {shape}; an image is (h, w) or (h, w, c).")
    _check_size(shape[1], shape[0], max_pixels, name)
    count = int(np.prod(shape, dtype=object))
    if len(data) - file.tell() < count * dtype.itemsize:
        raise ImageError(f"{name} is truncated: shape {shape} needs {count * dtype.itemsize:,} bytes; save it again.")
    array = np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C")
    with naming(name):
        return as_array(array.astype(dtype.newbyteorder("=")))
