"""NIfTI files: volumes in, masks out. nibabel (the extra "medical") reads and writes them.

https://nifti.nimh.nih.gov/nifti-1, /nifti-2. The header is read and bounded before anything is allocated.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from nexus.core.files import write_whole
from nexus.data.medical.space import Volume, VolumeError, check_size, check_space

ENDINGS = (".nii", ".nii.gz")
HEADERS = {348: (108, "f"), 540: (168, "q")}
"""Bytes of a header: where in it stands from where on the voxels are, and as what."""
MOST_BEFORE = 1 << 24
"""Bytes of header and extensions before the voxels."""
GZIP = b"\x1f\x8b"


def is_nifti(path: Path) -> bool:
    """Returns whether a name ends as one of a NIfTI file."""
    return path.name.lower().endswith(ENDINGS)


def read_nifti(path: str | Path) -> Volume:
    """Returns the volume of a NIfTI file, with the slope and intercept that it states.

    Raises:
        VolumeError: It is missing, damaged, too large, not of three dimensions, of colours or complex numbers, or does
            not say where its voxels lie.
        ImportError: nibabel is not installed.
    """
    path = Path(path)
    nibabel = _nibabel()
    _check_start(path)
    try:
        image = nibabel.load(path)
        header = image.header
        shape = _volume_shape(header.get_data_shape(), path)
        if np.dtype(header.get_data_dtype()).kind not in "iuf":
            raise VolumeError(f"{path} holds {header.get_data_dtype()}; a volume has one real number in each voxel.")
        if not int(header["sform_code"]) and not int(header["qform_code"]):
            raise VolumeError(
                f"{path} has no affine (its sform and qform codes are 0), so nobody knows where its voxels lie; write"
                " it again with one: nibabel.Nifti1Image(voxels, affine)."
            )
        voxels = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged")).reshape(shape)
        affine = np.asarray(image.affine, dtype=np.float64)
    except VolumeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(f"{path} is damaged or cut off ({_line(error)}); get it again.") from None
    except MemoryError:
        raise VolumeError(f"{path} needs more memory than there is.") from None
    except Exception as error:  # nibabel's readers raise many kinds over odd headers
        raise VolumeError(f"{path} is no NIfTI file that can be read ({_line(error)}); convert it.") from None
    check_space(voxels, affine, str(path))
    return Volume(voxels, affine, str(path))


def write_mask(path: str | Path, mask: Int[np.ndarray, "i j k"], volume: Volume) -> Path:
    """Writes a mask of a volume as a NIfTI file in the same space, and returns its path.

    Args:
        path: Ends in .nii or .nii.gz.
        mask: 0 outside, the number of an object inside.
        volume: Whose voxels they are.

    Raises:
        ValueError: The ending is another one, or the shapes differ.
    """
    path = Path(path)
    if not is_nifti(path):
        raise ValueError(f"{path} ends in {path.suffix!r}; a mask of a volume is written to .nii or .nii.gz.")
    if mask.shape != volume.voxels.shape:
        raise ValueError(f"The mask is {mask.shape} and the volume {volume.voxels.shape}; they must be one.")
    nibabel = _nibabel()
    small = np.uint8 if mask.max(initial=0) < 256 else np.uint16
    image = nibabel.Nifti1Image(mask.astype(small), volume.affine)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    ending = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"

    def write(part: Path) -> None:
        data = image.to_bytes()
        part.write_bytes(gzip.compress(data, mtime=0) if ending == ".nii.gz" else data)

    write_whole(path, write)
    return path


def _check_start(path: Path) -> None:
    """Raises VolumeError unless a file begins as NIfTI and its voxels begin soon."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        if packed != path.name.lower().endswith(".gz"):
            told = "packed" if packed else "not packed"
            raise VolumeError(f"{path} is {told} by gzip, and its name says otherwise; rename it.")
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(544)
    except FileNotFoundError:
        raise VolumeError(f"{path} does not exist; check the path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(f"{path} cannot be read ({_line(error)}); get it again.") from None
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in HEADERS and len(start) >= size:
            place, kind = HEADERS[size]
            begins = struct.unpack_from(f"{order}{kind}", start, place)[0]
            if not 0 <= begins <= MOST_BEFORE:
                raise VolumeError(
                    f"{path}: its voxels begin at byte {begins:g}; at most {MOST_BEFORE:,} may be before."
                )
            return
    raise VolumeError(f"{path} does not begin with the header of a NIfTI file; convert it.")


def _volume_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    sides = tuple(int(side) for side in shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    if len(sides) != 3:
        told = " x ".join(map(str, sides))
        raise VolumeError(
            f"{path} is {len(sides)}-D ({told}); a volume has three dimensions: save one of them alone, for example"
            " with nibabel.four_to_three."
        )
    check_size(sides, str(path))
    return sides[0], sides[1], sides[2]


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise ImportError("NIfTI files need nibabel: pip install 'nexus-vision[medical]'.") from None
    return nibabel


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
