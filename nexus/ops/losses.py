"""Losses of dense detectors. Each returns one value per prediction; the caller weighs and sums them.

Focal: Lin et al. 2017, https://arxiv.org/abs/1708.02002
Quality focal, distribution focal: Li et al. 2020, https://arxiv.org/abs/2006.04388
Varifocal: Zhang et al. 2021, https://arxiv.org/abs/2008.13367
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.ops.boxes import ciou, diou, giou


def focal_loss(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], *, alpha: float | None = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*n"]:
    """Cross-entropy that fades for easy examples (Eq. 5).

    Args:
        logits: Before the sigmoid.
        targets: 0 or 1.
        alpha: Weight of the positives, 1 - alpha of the negatives; None weighs none.
        gamma: How fast easy examples fade; 0 gives cross-entropy.
    """
    probability = logits.sigmoid()
    miss = probability * (1 - targets) + (1 - probability) * targets
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * miss**gamma
    return loss if alpha is None else loss * (alpha * targets + (1 - alpha) * (1 - targets))


def quality_focal_loss(
    logits: Float[Tensor, "*n"], quality: Float[Tensor, "*n"], *, beta: float = 2.0
) -> Float[Tensor, "*n"]:
    """Focal loss for soft targets: `quality` is the IoU of a positive, 0 of a negative (Eq. 3)."""
    distance = (quality - logits.sigmoid()).abs()
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * distance**beta


def varifocal_loss(
    logits: Float[Tensor, "*n"], quality: Float[Tensor, "*n"], *, alpha: float = 0.75, gamma: float = 2.0
) -> Float[Tensor, "*n"]:
    """Cross-entropy weighted by the quality of positives, faded for easy negatives only (Eq. 2).

    The weights get no gradient. `quality` is the IoU of a positive, 0 of a negative.
    """
    faded = alpha * logits.detach().sigmoid() ** gamma
    weight = torch.where(quality > 0, quality, faded)
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * weight


def distribution_focal_loss(logits: Float[Tensor, "*n bins"], targets: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Cross-entropy to the two bins around a continuous target, each by its nearness (Eq. 6).

    Args:
        logits: Of a distribution over the positions 0 ... bins - 1.
        targets: Positions; clamped into the range.
    """
    last = logits.shape[-1] - 1
    if last < 1:
        raise ValueError(f"logits have {last + 1} bins; a distribution needs at least 2.")
    targets = targets.clamp(0, last)
    low = targets.floor().clamp(max=last - 1)
    share = targets - low
    log_probability = logits.log_softmax(dim=-1)
    below = log_probability.gather(-1, low.long()[..., None])[..., 0]
    above = log_probability.gather(-1, low.long()[..., None] + 1)[..., 0]
    return -(below * (1 - share) + above * share)


def giou_loss(predicted: Float[Tensor, "*n 4"], targets: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """1 - GIoU of boxes in xyxy, in [0, 2]."""
    return 1 - giou(predicted, targets)


def diou_loss(predicted: Float[Tensor, "*n 4"], targets: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """1 - DIoU of boxes in xyxy."""
    return 1 - diou(predicted, targets)


def ciou_loss(predicted: Float[Tensor, "*n 4"], targets: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """1 - CIoU of boxes in xyxy."""
    return 1 - ciou(predicted, targets)
