"""Losses of dense predictions. Each returns one value per prediction; the caller weighs and sums them.

Distribution focal: Li et al. 2020, https://arxiv.org/abs/2006.04388
Focal: Lin et al. 2017, https://arxiv.org/abs/1708.02002
Dice: Milletari et al. 2016, https://arxiv.org/abs/1606.04797

Dims: n predictions, h w pixels of a mask.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.ops.boxes import ciou


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


def ciou_loss(predicted: Float[Tensor, "*n 4"], targets: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """1 - CIoU of boxes in xyxy."""
    return 1 - ciou(predicted, targets)


def focal_loss(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*n"]:
    """Cross-entropy of each answer, weighed by how wrong it is (Lin et al., Eq. 5).

    Args:
        logits: Of a yes.
        targets: 1 where yes is right, 0 where no is.
        alpha: Weight where yes is right; where no is right it is `1 - alpha`.
        gamma: Power of the error that weighs an answer.
    """
    wrong = (targets - logits.sigmoid()).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma * entropy


def mask_focal_loss(
    logits: Float[Tensor, "*n h w"], targets: Float[Tensor, "*n h w"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*n"]:
    """Mean over the pixels of a mask of their focal loss; targets are 1 inside, 0 outside."""
    return focal_loss(logits, targets, alpha=alpha, gamma=gamma).mean(dim=(-2, -1))


def dice_loss(logits: Float[Tensor, "*n h w"], targets: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n"]:
    """1 - the Dice coefficient of probabilities and targets; 1 is added above and below, so that empty masks agree."""
    inside = logits.sigmoid()
    both, either = (inside * targets).sum(dim=(-2, -1)), (inside + targets).sum(dim=(-2, -1))
    return 1 - (2 * both + 1) / (either + 1)
