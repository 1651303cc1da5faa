"""Which prediction answers for which object.

Dims: m objects, n predictions, k classes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.ops.boxes import ciou, iou, pairwise

BACKGROUND, IGNORED = -1, -2


def match_by_iou(
    overlaps: Float[Tensor, "m n"], high: float, low: float, *, keep_best: bool = False
) -> Int[Tensor, " n"]:
    """Gives each prediction the object it overlaps most (Faster R-CNN, Sec. 3.1.2).

    Args:
        overlaps: IoU of each object with each prediction.
        high: From this IoU on a prediction is positive.
        low: Below this IoU it is background; between the two it is ignored.
        keep_best: An object's best predictions (all that tie) are positive whatever their IoU. They answer
            for the object that *they* overlap most, which need not be that one.

    Returns:
        The index of an object, or `BACKGROUND`, or `IGNORED`. Without objects everything is background.
    """
    if low > high:
        raise ValueError(f"low is {low} and high is {high}; low must not be above high.")
    objects, predictions = overlaps.shape
    if not objects or not predictions:
        return torch.full((predictions,), BACKGROUND, device=overlaps.device)
    best, nearest = overlaps.max(dim=0)
    matches = torch.where(best < high, IGNORED, nearest)
    matches = torch.where(best < low, BACKGROUND, matches)
    if keep_best:
        ties = (overlaps == overlaps.max(dim=1, keepdim=True).values).any(dim=0)
        matches = torch.where(ties, nearest, matches)
    return matches


@torch.no_grad()
def match_aligned(
    scores: Float[Tensor, "n k"],
    predicted: Float[Tensor, "n 4"],
    points: Float[Tensor, "n 2"],
    boxes: Float[Tensor, "m 4"],
    labels: Int[Tensor, " m"],
    *,
    top_k: int,
    alpha: float = 0.5,
    beta: float = 6.0,
    complete: bool = False,
    eps: float | None = None,
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Gives each object its `top_k` predictions of the best `score^alpha * IoU^beta` whose point lies inside it.

    Task alignment: Feng et al., "TOOD", 2021, Sec. 3.2, https://arxiv.org/abs/2108.07755. With `top_k=1` it is the
    one-to-one matching of YOLOv10 (Wang et al., 2024, Eq. 1). A prediction that several objects want answers for the
    one that it overlaps most.

    Args:
        scores: Probabilities of the classes.
        predicted: Boxes, xyxy.
        points: Where each prediction is made, in the same units.
        boxes: Of the objects.
        labels: Of the objects.
        top_k: Most predictions for one object.
        alpha: Power of the score of the object's class.
        beta: Power of the overlap.
        complete: Whether the overlap is CIoU, below 0 as 0, rather than IoU.
        eps: Added to an object's largest alignment before it divides; None only keeps it from being 0.

    Returns:
        The index of an object or `BACKGROUND`, and the quality that the prediction shall learn as its score: the
        object's largest IoU, times the prediction's alignment as a share of the object's largest; 0 for background.
    """
    count = len(points)
    if not len(boxes) or not count:
        return torch.full((count,), BACKGROUND, device=points.device), scores.new_zeros(count)
    x, y = points.T
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    overlaps = pairwise(ciou if complete else iou, boxes, predicted).clamp(min=0) * inside
    alignment = scores.T[labels] ** alpha * overlaps**beta
    best = alignment.topk(min(top_k, count), dim=1).indices
    wanted = torch.zeros_like(inside).scatter(1, best, True) & inside
    matches = torch.where(wanted, overlaps, -1.0).argmax(dim=0)
    chosen = wanted & (matches == torch.arange(len(boxes), device=matches.device)[:, None])
    alignment, overlaps = alignment * chosen, overlaps * chosen
    largest = alignment.amax(dim=1, keepdim=True)
    share = alignment / (largest.clamp(min=torch.finfo(alignment.dtype).tiny) if eps is None else largest + eps)
    quality = (share * overlaps.amax(dim=1, keepdim=True)).amax(dim=0)
    return torch.where(chosen.any(dim=0), matches, BACKGROUND), quality


def hungarian(cost: Float[Tensor, "n m"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Returns the one-to-one assignment of least total cost: rows in rising order, and their columns.

    k is the smaller of n and m. Needs scipy.

    Raises:
        ValueError: A cost is NaN or infinite, as after a diverged step.
    """
    from scipy.optimize import linear_sum_assignment

    if not cost.isfinite().all():
        raise ValueError("The matching cost holds NaN or infinite values; the predictions have probably diverged.")
    rows, columns = linear_sum_assignment(cost.detach().float().cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def sample_balanced(
    positive: Bool[Tensor, " n"], negative: Bool[Tensor, " n"], num_samples: int, positive_fraction: float
) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
    """Draws positions of positive and of negative predictions, uniformly and without replacement.

    Args:
        positive: Which may be drawn as positive.
        negative: Which may be drawn as negative.
        num_samples: How many to draw in all; fewer if there are not enough.
        positive_fraction: Largest share of positives; negatives take what positives leave.
    """
    candidates = positive.nonzero()[:, 0]
    others = negative.nonzero()[:, 0]
    num_positive = min(len(candidates), int(num_samples * positive_fraction))
    num_negative = min(len(others), num_samples - num_positive)
    drawn = candidates[torch.randperm(len(candidates), device=positive.device)[:num_positive]]
    rest = others[torch.randperm(len(others), device=positive.device)[:num_negative]]
    return drawn, rest
