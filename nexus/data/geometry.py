"""Where pixels go: resizing, cropping, flipping, turning.

A transform is called with an image and, where it draws, with a `numpy.random.Generator`; it knows no other source of
chance. It takes and returns what `nexus.data.images` describes (PIL or array (h, w, c)); given a tensor (c, h, w) it
returns a tensor.

Dims: c channels, h w pixels.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image as PIL

from nexus.data.images import ImageError, as_array, image_size, is_tensor, match_channels, to_tensor
from nexus.data.spline import resize_by_spline

FILTERS = {
    "nearest": PIL.Resampling.NEAREST,
    "bilinear": PIL.Resampling.BILINEAR,
    "bicubic": PIL.Resampling.BICUBIC,
    "lanczos": PIL.Resampling.LANCZOS,
    "box": PIL.Resampling.BOX,
    "hamming": PIL.Resampling.HAMMING,
}
"""Pillow's, by name."""
SPLINE = "spline"
"""The filter that Pillow does not have."""


class Transform(Protocol):
    """Anything that makes an image of an image; deterministic ones ignore `rng`."""

    def __call__(self, image: Any, rng: np.random.Generator) -> Any: ...


def accepts_tensors(function: Callable) -> Callable:
    """Makes a function of (image, ...) take a tensor (c, h, w) too, and return one for it."""

    @functools.wraps(function)
    def for_every_kind(image: Any, *args: Any, **kwargs: Any) -> Any:
        if is_tensor(image):
            return to_tensor(as_array(function(as_array(image), *args, **kwargs)))
        return function(image, *args, **kwargs)

    return for_every_kind


def map_planes(array: np.ndarray, function: Callable[[PIL.Image], PIL.Image]) -> np.ndarray:
    """Returns the array (h, w, c) with `function` applied to each channel as a PIL image of mode "L" or "F"."""
    planes = [function(PIL.fromarray(np.ascontiguousarray(array[:, :, c]))) for c in range(array.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@accepts_tensors
def resize(
    image: Any,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> Any:
    """Returns the image, or its part `box` (left, top, right, bottom), at `size` (height, width), antialiased.

    A "spline" (see `nexus.data.spline`) sees whole pixels of the part alone, and gives an array.
    """
    if interpolation == SPLINE:
        left, top, right, bottom = map(round, box or (0, 0, *image_size(image)[::-1]))
        part = resize_by_spline(as_array(image)[top:bottom, left:right], size)
        return part if part.dtype == np.uint8 else part.astype(np.float32)
    if isinstance(image, PIL.Image):
        if box is None and image.size == size[::-1]:
            return image
        return image.resize(size[::-1], FILTERS[interpolation], box)
    return map_planes(image, lambda plane: plane.resize(size[::-1], FILTERS[interpolation], box))


@accepts_tensors
def crop(image: Any, top: int, left: int, size: tuple[int, int]) -> Any:
    """Returns the window of `size` (height, width) at (top, left); what lies outside of the image is zero."""
    height, width = size
    if isinstance(image, PIL.Image):
        return image.crop((left, top, left + width, top + height))
    h, w, channels = image.shape
    out = np.zeros((height, width, channels), image.dtype)
    y0, y1, x0, x1 = max(top, 0), min(top + height, h), max(left, 0), min(left + width, w)
    if y0 < y1 and x0 < x1:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return out


@accepts_tensors
def flip(image: Any) -> Any:
    """Returns the image mirrored left to right."""
    if isinstance(image, PIL.Image):
        return image.transpose(PIL.Transpose.FLIP_LEFT_RIGHT)
    return image[:, ::-1]


@accepts_tensors
def affine(image: Any, matrix: Sequence[float], fill: float = 0.5, interpolation: str = "bilinear") -> Any:
    """Returns the image sampled at `matrix` (a, b, c, d, e, f): output (x, y) shows input (ax+by+c, dx+ey+f).

    Args:
        fill: Value outside of the image, in 0 to 1.
    """
    if isinstance(image, PIL.Image):
        level = round(255 * fill)
        colour = level if image.mode == "L" else (level,) * len(image.getbands())
        return image.transform(
            image.size, PIL.Transform.AFFINE, tuple(matrix), FILTERS[interpolation], fillcolor=colour
        )
    outside = round(255 * fill) if image.dtype == np.uint8 else fill

    def transform(plane: PIL.Image) -> PIL.Image:
        return plane.transform(
            plane.size, PIL.Transform.AFFINE, tuple(matrix), FILTERS[interpolation], fillcolor=outside
        )

    return map_planes(image, transform)


def around_centre(
    size: tuple[int, int], *, angle_rad: float = 0.0, shear: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, ...]:
    """Returns the matrix for `affine` that shears (x by y, y by x), then turns clockwise, about the centre."""
    h, w = size
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    a, b, d, e = cos + sin * shear[1], sin + cos * shear[0], -sin + cos * shear[1], cos - sin * shear[0]
    x, y = w / 2, h / 2
    return a, b, x - a * x - b * y, d, e, y - d * x - e * y


@dataclass(frozen=True)
class MatchChannels:
    """Grey to RGB and back, so that grey and colour files may lie in one folder."""

    channels: int

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        if is_tensor(image):
            return to_tensor(as_array(match_channels(as_array(image), self.channels)))
        return match_channels(image, self.channels)


@dataclass(frozen=True)
class Resize:
    """To `size` (height, width), whatever the aspect ratio."""

    size: tuple[int, int]
    interpolation: str = "bicubic"

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        return resize(image, self.size, self.interpolation)


@dataclass(frozen=True)
class ResizeShorter:
    """The shorter side to `size` pixels, the longer in proportion, rounded down as torchvision does."""

    size: int
    interpolation: str = "bicubic"

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        h, w = image_size(image)
        longer = max(1, int(self.size * max(h, w) / min(h, w)))
        return resize(image, (longer, self.size) if h > w else (self.size, longer), self.interpolation)


@dataclass(frozen=True)
class ResizeWithin:
    """The shorter side to `shorter` pixels, or less where the longer would exceed `longer`.

    Both are rounded down as in torchvision; transformers rounds a shorter side that is less to the nearest pixel, and
    Segment Anything ("sam") every side, halves up.
    """

    shorter: int
    longer: int
    interpolation: str = "bilinear"
    rounding: str = "torchvision"

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        h, w = image_size(image)
        fits = self.shorter * max(h, w) <= self.longer * min(h, w)
        if not fits and self.rounding == "transformers":
            exact = self.longer * float(min(h, w)) / max(h, w)
            sides = {min(h, w): round(exact), max(h, w): int(exact * max(h, w) / min(h, w))}
            return resize(image, (max(1, sides[h]), max(1, sides[w])), self.interpolation)
        target, side = (self.shorter, min(h, w)) if fits else (self.longer, max(h, w))
        if self.rounding == "sam":
            return resize(image, tuple(max(1, int(s * (target / side) + 0.5)) for s in (h, w)), self.interpolation)
        return resize(image, (max(1, h * target // side), max(1, w * target // side)), self.interpolation)


@dataclass(frozen=True)
class ResizeToPatches:
    """Sides of whole patches, at most `count` in all, that come nearest to the image's proportions.

    The scale is found by halving as transformers does for SigLIP 2, so that both choose the same sides.
    """

    patch: int
    count: int
    interpolation: str = "bilinear"

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        rows, columns = self.grid(*image_size(image))
        return resize(image, (rows * self.patch, columns * self.patch), self.interpolation)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of patches of an image of so many pixels."""
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            rows, columns = self._scaled(middle, height, width)
            low, high = (middle, high) if rows * columns <= self.count else (low, middle)
        return self._scaled(low, height, width)

    def _scaled(self, scale: float, height: int, width: int) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / self.patch)) for side in (height, width))
        return rows, columns


@dataclass(frozen=True)
class CentreCrop:
    """The middle `size` (height, width); smaller images are padded with zeros.

    `rounding` says whose middle of an odd border is taken, that of torchvision or of transformers.
    """

    size: tuple[int, int]
    rounding: str = "torchvision"

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        have = image_size(image)
        if have == self.size:
            return image
        centre = _centre if self.rounding == "torchvision" else _centre_floor
        top, left = (centre(have[axis], self.size[axis]) for axis in (0, 1))
        return crop(image, top, left, self.size)


def _centre_floor(have: int, want: int) -> int:
    return (have - want) // 2


def _centre(have: int, want: int) -> int:
    return -((want - have) // 2) if want > have else round((have - want) / 2)


@dataclass(frozen=True)
class RequireSize:
    """Passes images of `size` (height, width) and refuses others: the preprocessing says that nothing is resized."""

    size: tuple[int, int]

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        have = image_size(image)
        if have != self.size:
            raise ImageError(
                f"the image has {have[0]} x {have[1]} pixels (height x width) and the preprocessing wants exactly "
                f'{self.size[0]} x {self.size[1]}; set resize="shorter" or "squash".'
            )
        return image


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image at `size` (height, width).

    Szegedy et al., "Going Deeper with Convolutions", 2014, Sec. 6: area and aspect ratio are drawn from ranges.
    Of a JPEG that is not decoded yet, only as many pixels are decoded as the part needs.

    Attributes:
        scale: Range of the part's area, as a share of the image's.
        ratio: Range of width / height, drawn evenly in the logarithm.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        size = image_size(image)
        box = np.array(self.draw(size, rng), dtype=float)
        if isinstance(image, PIL.Image):
            whole = image.size
            _decode_fewer(image, min((box[2] - box[0]) / self.size[1], (box[3] - box[1]) / self.size[0]))
            box *= np.array(image.size * 2) / np.array(whole * 2)
        return resize(image, self.size, self.interpolation, tuple(box.tolist()))

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Returns the part (left, top, right, bottom) in pixels; after ten misses the largest allowed in the middle."""
        height, width = size
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                return left, top, left + w, top + h
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        top, left = (height - h) // 2, (width - w) // 2
        return left, top, left + w, top + h


def _decode_fewer(image: PIL.Image, shrink: float) -> None:
    """Lets the decoder of an undecoded JPEG divide its size by 2, 4 or 8 where `shrink` allows; else does nothing."""
    divisor = min(8, 2 ** int(math.log2(max(shrink, 1))))
    if divisor > 1:
        image.draft(None, (image.width // divisor, image.height // divisor))


@dataclass(frozen=True)
class PadCrop:
    """Shifts by up to `pad` pixels each way; what comes in is zero (the usual crop for CIFAR)."""

    pad: int

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        top, left = rng.integers(-self.pad, self.pad + 1, size=2).tolist()
        return crop(image, top, left, image_size(image))


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors left to right with the given probability."""

    probability: float = 0.5

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        return flip(image) if rng.random() < self.probability else image


@dataclass(frozen=True)
class RandomRotate:
    """Turns about the centre by up to `degrees` either way; what comes in is zero."""

    degrees: float

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        return affine(image, around_centre(image_size(image), angle_rad=angle), fill=0.0)
