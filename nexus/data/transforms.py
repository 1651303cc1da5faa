"""From an image of any size to the tensor that a model sees.

Pixels stay uint8 until `Normalize`, the last step, which also works on a whole batch at once.
`eval_transform` gives the numbers of timm's and torchvision's preprocessing: Pillow's antialiased resize, the centre
crop of torchvision, then (x / 255 - mean) / std. `train_transform` puts the random steps of an `AugmentConfig` before
the same numbers. Each step alone: `nexus.data.geometry` and `nexus.data.augment`.

Dims: b batch, c channels, h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nexus.core.config import Config
from nexus.core.preprocessing import Levels, Preprocessing
from nexus.data.augment import ColorJitter, RandAugment, RandomErasing
from nexus.data.geometry import MatchChannels, PadCrop, RandomFlip, RandomResizedCrop, RandomRotate, Transform
from nexus.data.images import Image, as_array
from nexus.data.mixing import MixConfig
from nexus.data.preprocess import check_mean, factors, resize_steps, stretched


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Config):
    """What training does to images at random. All is off by default.

    Attributes:
        crop_scale: Range of the area of a random part, as a share of the image's; None resizes as in evaluation.
        crop_ratio: Range of that part's width / height.
        pad_crop: Shift by up to so many pixels.
        rotate: Turn by up to so many degrees.
        flip: Probability of mirroring left to right.
        color_jitter: Largest relative change of brightness, contrast, saturation, and shift of hue (0 to 0.5).
        rand_augment: Number of RandAugment operations per image.
        rand_augment_magnitude: Their strength, 0 to 10 (more is allowed, up to 30).
        erase: Probability of random erasing.
        mixup: MixUp's alpha (of the Beta distribution).
        cutmix: CutMix's alpha; with `mixup` too, each step draws one of both evenly.
        mix_probability: Share of the steps that mix at all.
        scale_jitter: Of detectors: range of a random scale, 1 being the largest that fits, before a cut or a border.
        mosaic: Of detectors: probability of joining four images to one.
        copy_paste: Of detectors: probability of pasting objects of another image.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad_crop: int = 0
    rotate: float = 0.0
    flip: float = 0.0
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rand_augment: int = 0
    rand_augment_magnitude: float = 9.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    scale_jitter: tuple[float, float] | None = None
    mosaic: float = 0.0
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("flip", "erase", "mix_probability", "mosaic", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a probability is between 0 and 1.")
        for name in ("pad_crop", "rotate", "rand_augment", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more.")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {self.crop_scale}; it must be 0 < smallest <= largest <= 1.")
        if self.scale_jitter is not None and not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ValueError(f"scale_jitter is {self.scale_jitter}; it must be 0 < smallest <= largest.")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is {self.crop_ratio}; it must be 0 < smallest <= largest.")
        if not 0 <= self.rand_augment_magnitude <= 30:
            raise ValueError(f"rand_augment_magnitude is {self.rand_augment_magnitude}; it must be between 0 and 30.")
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError(f"color_jitter is {self.color_jitter}; values must be 0 or more, and the hue at most 0.5.")

    def mix(self, num_classes: int) -> MixConfig | None:
        """Returns how the loader mixes batches, or None where this does not mix."""
        if not (self.mixup or self.cutmix) or not self.mix_probability:
            return None
        return MixConfig(
            num_classes=num_classes, mixup=self.mixup, cutmix=self.cutmix, probability=self.mix_probability
        )


class Normalize:
    """Pixels to the model's numbers: scaled to [0, 1] as `levels` says, then less `mean` and divided by `std`.

    uint8 is divided by 255, or, with the levels "image", each image is stretched from its own lowest to its own highest
    value.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], levels: Levels = "type"):
        self.mean, self.std, self.levels = tuple(mean), tuple(std), levels
        self._factors = {
            kind: tuple(map(torch.from_numpy, factors(mean, std, kind))) for kind in (np.uint8, np.float32)
        }

    def __call__(self, image: Image | Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Returns the tensor (c, h, w), float32."""
        return self.batch(as_array(image)[None])[0]

    def batch(self, images: np.ndarray) -> Tensor:
        """Returns images (b, h, w, c), uint8 or float32, as a tensor (b, c, h, w), float32."""
        check_mean(images, self.mean)
        if self.levels == "image":
            images = np.stack([stretched(image) for image in images])
        scale, shift = self._factors[np.uint8 if images.dtype == np.uint8 else np.float32]
        # NumPy moves bytes into planes four times as fast as torch converts across strides.
        planes = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))
        return planes.float().mul_(scale).add_(shift)

    def __repr__(self) -> str:
        levels = "" if self.levels == "type" else f", levels={self.levels!r}"
        return f"Normalize(mean={self.mean}, std={self.std}{levels})"


class Compose:
    """Steps one after another, then numbers: an image becomes a tensor (c, h, w).

    `pixels` and `finish` are its two halves, so that a loader can convert a whole batch at once.
    """

    def __init__(self, steps: Sequence[Transform], normalize: Normalize):
        self.steps, self.normalize = tuple(steps), normalize

    def __call__(self, image: Image | Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Returns the tensor (c, h, w); `rng` may only be missing when no step draws."""
        return self.finish(self.pixels(image, rng)[None])[0]

    def pixels(self, image: Image | Tensor, rng: np.random.Generator | None = None) -> np.ndarray:
        """Returns the image after all steps, (h, w, c), uint8 or float32, not yet normalized."""
        current: Any = as_array(image) if isinstance(image, Tensor) else image
        for step in self.steps:
            current = step(current, rng)  # pyrefly: ignore[bad-argument-type]
        return as_array(current)

    def finish(self, images: np.ndarray) -> Tensor:
        """Returns images (b, h, w, c) as the model's input (b, c, h, w)."""
        return self.normalize.batch(images)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, (*self.steps, self.normalize)))})"


def eval_transform(preprocessing: Preprocessing) -> Compose:
    """Returns the deterministic transform that the preprocessing describes."""
    steps = [MatchChannels(preprocessing.in_channels), *resize_steps(preprocessing)]
    return Compose(steps, Normalize(preprocessing.mean, preprocessing.std, preprocessing.levels))


def train_transform(preprocessing: Preprocessing, augment: AugmentConfig | None = None) -> Compose:
    """Returns the random transform for training; without `augment` it is that of evaluation."""
    augment = augment or AugmentConfig()
    if augment.scale_jitter or augment.mosaic or augment.copy_paste:
        raise ValueError("augment sets scale_jitter, mosaic or copy_paste, which are for detectors; leave them out.")
    steps: list[Transform] = [MatchChannels(preprocessing.in_channels)]
    if augment.crop_scale is None:
        steps += resize_steps(preprocessing)
    else:
        size, interpolation = preprocessing.image_size, preprocessing.interpolation
        # The crop comes first: it can spare decoding.
        steps.insert(0, RandomResizedCrop(size, augment.crop_scale, augment.crop_ratio, interpolation))
    if augment.pad_crop:
        steps.append(PadCrop(augment.pad_crop))
    if augment.rotate:
        steps.append(RandomRotate(augment.rotate))
    if augment.flip:
        steps.append(RandomFlip(augment.flip))
    if any(augment.color_jitter):
        steps.append(ColorJitter(*augment.color_jitter))
    if augment.rand_augment:
        steps.append(RandAugment(augment.rand_augment, augment.rand_augment_magnitude))
    if augment.erase:
        steps.append(RandomErasing(augment.erase))
    return Compose(steps, Normalize(preprocessing.mean, preprocessing.std, preprocessing.levels))
