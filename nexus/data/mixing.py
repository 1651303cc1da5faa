"""MixUp and CutMix over a batch, with soft labels.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017. https://arxiv.org/abs/1710.09412
Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.
https://arxiv.org/abs/1905.04899

Images 2i and 2i + 1 of a batch are partners, with one share per step. The order of a batch is random anyway, and so any
even slice of it can be mixed alone: two processes see together what one process would.

Dims: b batch, c channels, h w pixels, k classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from nexus.core.config import Config


@dataclass(frozen=True, kw_only=True)
class MixConfig(Config):
    """How batches are mixed.

    Attributes:
        mixup: Alpha of the Beta distribution of MixUp's share; 0 is off.
        cutmix: Alpha for CutMix; 0 is off. With both on, each step draws one of them evenly.
        probability: Share of the steps that mix; the others still have soft (one-hot) labels.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; mixing labels needs at least 2 classes.")
        if min(self.mixup, self.cutmix) < 0 or max(self.mixup, self.cutmix) == 0:
            raise ValueError(f"mixup is {self.mixup} and cutmix {self.cutmix}; one must be above 0, none below.")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must be between 0 and 1.")


@dataclass(frozen=True)
class Mix:
    """What one step does to each of its pairs.

    Attributes:
        share: Weight of an image's own label, 0 to 1; its partner's label has the rest.
        box: The window (top, left, bottom, right) in pixels that CutMix takes from the partner; None for MixUp.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(config: MixConfig, size: tuple[int, int], rng: np.random.Generator) -> Mix:
    """Returns the mix of one step for images of `size` (height, width)."""
    mixes, use_cutmix = rng.random() < config.probability, rng.random() < 0.5
    if config.mixup == 0 or config.cutmix == 0:
        use_cutmix = config.cutmix > 0
    alpha = config.cutmix if use_cutmix else config.mixup
    share = float(rng.beta(alpha, alpha))
    centre = rng.random(2)
    if not mixes:
        return Mix(share=1.0)
    if not use_cutmix:
        return Mix(share)
    # CutMix Eq. 2: sides are sqrt(1 - share) of the image's, the centre lies anywhere, the border cuts.
    (h, w), side = size, math.sqrt(1 - share) / 2
    top, bottom = (int(np.clip(round((centre[0] + end * side) * h), 0, h)) for end in (-1, 1))
    left, right = (int(np.clip(round((centre[1] + end * side) * w), 0, w)) for end in (-1, 1))
    return Mix(1 - (bottom - top) * (right - left) / (h * w), (top, left, bottom, right))


def apply_mix(
    images: Float[Tensor, "b c h w"], labels: Int64[Tensor, "b"], mix: Mix, num_classes: int
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Returns the images and soft labels of a batch whose neighbours (2i, 2i + 1) were mixed.

    The last image of an odd batch has no partner and stays as it is.
    """
    targets = F.one_hot(labels, num_classes).float()
    even = len(labels) // 2 * 2
    if mix.share == 1 or not even:
        return images, targets
    partner = torch.arange(even).view(-1, 2).flip(1).flatten()
    mixed_targets = targets.clone()
    mixed_targets[:even] = mix.share * targets[:even] + (1 - mix.share) * targets[partner]
    mixed = images.clone()
    if mix.box is None:
        mixed[:even] = mix.share * images[:even] + (1 - mix.share) * images[partner]
    else:
        top, left, bottom, right = mix.box
        mixed[:even, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return mixed, mixed_targets
