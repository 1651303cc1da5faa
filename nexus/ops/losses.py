"""Losses of dense detectors. Each returns one value per prediction; the caller weighs and sums them.

Distribution focal: Li et al. 2020, https://arxiv.org/abs/2006.04388
"""

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
