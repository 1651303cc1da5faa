"""From an image of any size to the numbers that a model sees, in NumPy: what a preprocessing says, without torch.

Dims: b batch, c channels, h w pixels.
"""

from collections.abc import Sequence

import numpy as np

from nexus.core.preprocessing import Preprocessing
from nexus.data.geometry import (
    CentreCrop,
    MatchChannels,
    RequireSize,
    Resize,
    ResizeShorter,
    ResizeToPatches,
    ResizeWithin,
    Transform,
)
from nexus.data.images import Image, ImageError, as_array

FLAT = 1e-8
"""An image whose highest and lowest value are no further apart is divided by this instead."""


def resize_steps(preprocessing: Preprocessing) -> list[Transform]:
    """Returns the steps from an image of any size to `preprocessing.image_size`."""
    size, interpolation, before = preprocessing.image_size, preprocessing.interpolation, preprocessing.resize_size
    centre = CentreCrop(size, preprocessing.rounding)
    if preprocessing.resize == "none":
        return [RequireSize(size)]
    if preprocessing.resize == "crop":
        return [centre]
    if preprocessing.resize == "patches":
        assert isinstance(before, int), "the configuration checks it"
        return [ResizeToPatches(before, (size[0] // before) * (size[1] // before), interpolation)]
    if isinstance(before, tuple):
        return [Resize(before, interpolation), centre]
    if preprocessing.resize == "squash":
        return [Resize(size, interpolation)]
    if preprocessing.resize == "within":
        return [ResizeWithin(before or min(size), max(size), interpolation, preprocessing.rounding)]
    return [ResizeShorter(before or min(size), interpolation), centre]


def factors(mean: Sequence[float], std: Sequence[float], kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Returns what pixels of a kind (`np.uint8` or `np.float32`) are multiplied by, then what is added: (c, 1, 1)."""
    scale, shift = 1 / np.array(std, dtype=np.float64), -np.array(mean, dtype=np.float64) / np.array(std)
    scale = scale / 255 if kind is np.uint8 else scale
    return scale.astype(np.float32)[:, None, None], shift.astype(np.float32)[:, None, None]


def stretched(image: np.ndarray) -> np.ndarray:
    """Returns an image whose lowest value is 0 and whose highest is 1, float32."""
    low, high = float(image.min()), float(image.max())
    return ((image.astype(np.float64) - low) / max(high - low, FLAT)).astype(np.float32)


def check_mean(images: np.ndarray, mean: Sequence[float]) -> None:
    """Raises `ImageError` unless images (b, h, w, c) have as many channels as `mean`."""
    channels = images.shape[3]
    if channels != len(mean):
        raise ImageError(f"the image has {channels} channels and mean and std have {len(mean)}; they must agree.")


def model_input(image: Image, preprocessing: Preprocessing) -> np.ndarray:
    """Returns an image (c, h, w), float32, as a model sees it: what `eval_transform` gives as a tensor."""
    for step in (MatchChannels(preprocessing.in_channels), *resize_steps(preprocessing)):
        image = step(image, np.random.default_rng(0))
    pixels = as_array(image)
    check_mean(pixels[None], preprocessing.mean)
    pixels = stretched(pixels) if preprocessing.levels == "image" else pixels
    scale, shift = factors(preprocessing.mean, preprocessing.std, np.uint8 if pixels.dtype == np.uint8 else np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) * scale + shift
