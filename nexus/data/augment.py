"""What pixels become: colour jitter, RandAugment, random erasing.

PIL images go through Pillow's own operations. Arrays (h, w, c) of any number of channels go through the same formulas
in float32, where 0 is black and 1 is white; "grey" is then the ITU-R 601 weighting for three channels and the plain
mean for any other number.

Dims: c channels, h w pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PIL
from PIL import ImageEnhance, ImageOps

from nexus.data.geometry import accepts_tensors, affine, around_centre
from nexus.data.images import ImageError, as_array, image_size, num_channels

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _as_floats(array: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns `function` of the array in 0 to 1; uint8 is rounded and clipped back to uint8."""
    if array.dtype != np.uint8:
        return function(array).astype(np.float32, copy=False)
    out = function(array.astype(np.float32) / np.float32(255))
    return np.clip(np.rint(out * 255), 0, 255).astype(np.uint8)


def _grey(array: np.ndarray) -> np.ndarray:
    if array.shape[2] == 3:
        return (array @ LUMA)[:, :, None]
    return array.mean(axis=2, keepdims=True)


@accepts_tensors
def adjust_brightness(image: Any, factor: float) -> Any:
    """Returns the image times `factor`: 0 is black, 1 changes nothing."""
    if isinstance(image, PIL.Image):
        return ImageEnhance.Brightness(image).enhance(factor)
    return _as_floats(image, lambda x: x * np.float32(factor))


@accepts_tensors
def adjust_contrast(image: Any, factor: float) -> Any:
    """Returns the image pulled to (0) or pushed from (above 1) its mean grey."""
    if isinstance(image, PIL.Image):
        return ImageEnhance.Contrast(image).enhance(factor)
    return _as_floats(image, lambda x: _grey(x).mean() * np.float32(1 - factor) + x * np.float32(factor))


@accepts_tensors
def adjust_saturation(image: Any, factor: float) -> Any:
    """Returns the image pulled to (0) or pushed from (above 1) its own grey; grey images do not change."""
    if num_channels(image) == 1:
        return image
    if isinstance(image, PIL.Image):
        return ImageEnhance.Color(image).enhance(factor)
    return _as_floats(image, lambda x: _grey(x) * np.float32(1 - factor) + x * np.float32(factor))


@accepts_tensors
def adjust_sharpness(image: Any, factor: float) -> Any:
    """Returns the image pulled to (0) or pushed from (above 1) its smoothed self; the border stays."""
    if isinstance(image, PIL.Image):
        return ImageEnhance.Sharpness(image).enhance(factor)
    return _as_floats(image, lambda x: _smooth(x) * np.float32(1 - factor) + x * np.float32(factor))


def _smooth(x: np.ndarray) -> np.ndarray:
    """Returns the mean of the 3 x 3 neighbours with weight 5 for the middle, as Pillow's SMOOTH filter."""
    h, w, _ = x.shape
    if h < 3 or w < 3:
        return x
    total = 4 * x[1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            total = total + x[dy : h - 2 + dy, dx : w - 2 + dx]
    out = x.copy()
    out[1:-1, 1:-1] = total / 13
    return out


@accepts_tensors
def adjust_hue(image: Any, shift: float) -> Any:
    """Returns the colours moved around the colour circle by `shift` turns (-0.5 to 0.5); grey does not change.

    Raises:
        ImageError: There are neither one nor three channels, so there is no colour circle.
    """
    channels = num_channels(image)
    if channels == 1:
        return image
    if channels != 3:
        raise ImageError(f"hue needs RGB and the image has {channels} channels; set the hue of color_jitter to 0.")
    if isinstance(image, PIL.Image):
        hue, saturation, value = image.convert("HSV").split()
        turned = PIL.fromarray(np.asarray(hue) + np.uint8(int(shift * 255) % 256))
        return PIL.merge("HSV", (turned, saturation, value)).convert("RGB")
    return _as_floats(image, lambda x: _turn_hue(x, shift))


def _turn_hue(x: np.ndarray, shift: float) -> np.ndarray:
    """Returns RGB with its hue turned: each channel of a hexagonal cone is a piecewise linear function of the hue."""
    high, low = x.max(axis=2), x.min(axis=2)
    chroma = high - low
    safe = np.where(chroma == 0, 1, chroma)
    r, g, b = x[:, :, 0], x[:, :, 1], x[:, :, 2]
    sextant = np.where(high == r, (g - b) / safe, np.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    sextant = sextant + 6 * shift
    offsets = np.array([5, 3, 1], x.dtype)
    k = np.mod(offsets + sextant[:, :, None], 6)
    return high[:, :, None] - chroma[:, :, None] * np.clip(np.minimum(k, 4 - k), 0, 1)


@accepts_tensors
def posterize(image: Any, bits: int) -> Any:
    """Returns the image with only the `bits` highest of 8 bits kept."""
    if isinstance(image, PIL.Image):
        return ImageOps.posterize(image, bits)
    if image.dtype == np.uint8:
        return image & np.uint8(256 - (1 << (8 - bits)))
    return np.floor(image * np.float32(255 / (1 << (8 - bits)))) * np.float32((1 << (8 - bits)) / 255)


@accepts_tensors
def solarize(image: Any, threshold: float) -> Any:
    """Returns the image with values of at least `threshold` (0 to 1) inverted."""
    level = math.ceil(threshold * 255)
    if isinstance(image, PIL.Image):
        return ImageOps.solarize(image, level)
    if image.dtype == np.uint8:
        return np.where(image >= level, 255 - image, image)
    return np.where(image >= threshold, 1 - image, image).astype(np.float32, copy=False)


@accepts_tensors
def autocontrast(image: Any) -> Any:
    """Returns the image with each channel stretched over the whole range."""
    if isinstance(image, PIL.Image):
        return ImageOps.autocontrast(image)

    def stretch(x: np.ndarray) -> np.ndarray:
        low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
        return np.where(high > low, (x - low) / np.where(high > low, high - low, 1), x)

    return _as_floats(image, stretch)


@accepts_tensors
def equalize(image: Any) -> Any:
    """Returns the image with the histogram of each channel made even, in 256 levels."""
    if isinstance(image, PIL.Image):
        return ImageOps.equalize(image)
    levels = image if image.dtype == np.uint8 else np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    tables = [_equalizing_table(levels[:, :, c]) for c in range(levels.shape[2])]
    out = np.stack([table[levels[:, :, c]] for c, table in enumerate(tables)], axis=2)
    return out if image.dtype == np.uint8 else out.astype(np.float32) / np.float32(255)


def _equalizing_table(plane: np.ndarray) -> np.ndarray:
    histogram = np.bincount(plane.ravel(), minlength=256)
    used = histogram[histogram > 0]
    step = (histogram.sum() - used[-1]) // 255
    if len(used) <= 1 or step == 0:
        return np.arange(256, dtype=np.uint8)
    before = np.concatenate([[0], np.cumsum(histogram)[:-1]])
    return np.minimum((before + step // 2) // step, 255).astype(np.uint8)


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue by random amounts, in random order.

    Attributes:
        brightness: The factor is drawn from 1 - brightness to 1 + brightness, not below 0.
        contrast: Likewise.
        saturation: Likewise.
        hue: Turns of the colour circle are drawn from -hue to hue; at most 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        changes = [
            (adjust_brightness, max(0.0, 1 - self.brightness), 1 + self.brightness, self.brightness),
            (adjust_contrast, max(0.0, 1 - self.contrast), 1 + self.contrast, self.contrast),
            (adjust_saturation, max(0.0, 1 - self.saturation), 1 + self.saturation, self.saturation),
            (adjust_hue, -self.hue, self.hue, self.hue),
        ]
        for position in rng.permutation(4):
            change, low, high, amount = changes[position]
            if amount:
                image = change(image, rng.uniform(low, high))
        return image


# Operations and ranges of AutoAugment (Cubuk et al. 2018, Table 6), as RandAugment (Sec. 3) takes them over. `s` is the
# strength, 0 to 1 at magnitude 10, and already has a random sign where the operation has a direction.
_FILL = 128 / 255
_OPERATIONS: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda x, s: x,
    "auto_contrast": lambda x, s: autocontrast(x),
    "equalize": lambda x, s: equalize(x),
    "rotate": lambda x, s: affine(x, around_centre(image_size(x), angle_rad=math.radians(30 * s)), _FILL),
    "solarize": lambda x, s: solarize(x, max(0.0, 1 - s) * 256 / 255),
    "posterize": lambda x, s: posterize(x, max(1, 8 - round(4 * s))),
    "color": lambda x, s: adjust_saturation(x, max(0.0, 1 + 0.9 * s)),
    "contrast": lambda x, s: adjust_contrast(x, max(0.0, 1 + 0.9 * s)),
    "brightness": lambda x, s: adjust_brightness(x, max(0.0, 1 + 0.9 * s)),
    "sharpness": lambda x, s: adjust_sharpness(x, max(0.0, 1 + 0.9 * s)),
    "shear_x": lambda x, s: affine(x, around_centre(image_size(x), shear=(0.3 * s, 0.0)), _FILL),
    "shear_y": lambda x, s: affine(x, around_centre(image_size(x), shear=(0.0, 0.3 * s)), _FILL),
    "translate_x": lambda x, s: affine(x, (1, 0, 150 / 331 * s * image_size(x)[1], 0, 1, 0), _FILL),
    "translate_y": lambda x, s: affine(x, (1, 0, 0, 0, 1, 150 / 331 * s * image_size(x)[0]), _FILL),
}
RAND_AUGMENT_OPERATIONS = tuple(_OPERATIONS)
_WITHOUT_SIGN = frozenset(["solarize", "posterize"])


@dataclass(frozen=True)
class RandAugment:
    """`layers` operations, each drawn from fourteen with equal probability, all of one strength.

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019.
    Solarize and posterize leave the image alone at magnitude 0, as every other operation that has a strength.

    Attributes:
        magnitude: 0 to 10 spans the ranges of AutoAugment's Table 6; more goes beyond them.
    """

    layers: int = 2
    magnitude: float = 9.0

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        for position in rng.integers(len(RAND_AUGMENT_OPERATIONS), size=self.layers):
            name = RAND_AUGMENT_OPERATIONS[position]
            sign = 1 if rng.random() < 0.5 else -1
            image = rand_augment_operation(image, name, self.magnitude * (1 if name in _WITHOUT_SIGN else sign))
        return image


def rand_augment_operation(image: Any, name: str, magnitude: float) -> Any:
    """Returns one RandAugment operation of a signed magnitude (-10 to 10) applied to the image."""
    return _OPERATIONS[name](image, magnitude / 10)


@dataclass(frozen=True)
class RandomErasing:
    """Fills a random rectangle with random pixels.

    Zhong et al., "Random Erasing Data Augmentation", 2017, Alg. 1 with random values (their RE-R), on raw pixels.

    Attributes:
        area: Range of the rectangle's area, as a share of the image's.
        ratio: Smallest height / width; the largest is its inverse. Drawn evenly in the logarithm, so that
            lying and standing rectangles are equally likely.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: float = 0.3

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        if rng.random() >= self.probability:
            return image
        return _erase(image, self, rng)


@accepts_tensors
def _erase(image: Any, erasing: RandomErasing, rng: np.random.Generator) -> Any:
    height, width = image_size(image)
    for _ in range(10):
        area = height * width * rng.uniform(*erasing.area)
        ratio = math.exp(rng.uniform(math.log(erasing.ratio), -math.log(erasing.ratio)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            break
    else:
        return image
    array = as_array(image).copy()
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    patch = array[top : top + h, left : left + w]
    patch[:] = (
        rng.integers(256, size=patch.shape, dtype=np.uint8) if array.dtype == np.uint8 else rng.random(patch.shape)
    )
    return array
