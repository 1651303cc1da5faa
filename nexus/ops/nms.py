"""Non-maximum suppression, plain and class by class.

The plain form is the greedy one, without its loop over boxes. Sorted boxes are taken in blocks; inside a block the
greedy choice is the fixed point of "a box lives if no living, better box overlaps it", reached in as many rounds
as the longest chain of overlaps; the block's survivors then strike out what they overlap in the rest at once.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nexus.ops.boxes import box_area
from nexus.ops.compiled import compiled_ops

BLOCK, TILE = 128, 2048
"""Boxes that are decided together, and how many others they are compared with at once: a table of that size and
its temporaries stay in the cache."""


def nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], iou_threshold: float, *, max_boxes: int | None = None
) -> Int[Tensor, " kept"]:
    """Returns the indices of the boxes that no better kept box overlaps by more than `iou_threshold`.

    Indices are in order of falling score; of equal scores the first box is the better one.

    Args:
        boxes: Corners in pixels.
        scores: Any finite or infinite numbers.
        iou_threshold: In [0, 1].
        max_boxes: Keep no more than that many; None keeps all.

    Raises:
        ValueError: A score is NaN, the threshold is outside [0, 1], or the lengths differ.
    """
    _check(boxes, scores, iou_threshold)
    compiled = compiled_ops()
    if compiled is not None:
        return compiled.nms(boxes, scores, iou_threshold)[:max_boxes]
    order = scores.argsort(descending=True, stable=True)
    return order[_greedy(boxes[order], iou_threshold, max_boxes)]


def batched_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    iou_threshold: float,
    *,
    max_boxes: int | None = None,
) -> Int[Tensor, " kept"]:
    """Suppresses inside each group only (a class, a pyramid level, an image); otherwise as `nms`."""
    _check(boxes, scores, iou_threshold)
    if len(groups) != len(scores):
        raise ValueError(f"There are {len(groups)} groups for {len(scores)} scores; each box needs one.")
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    by_score = scores.argsort(descending=True, stable=True)
    by_group = by_score[groups[by_score].argsort(stable=True)]
    sizes = torch.unique_consecutive(groups[by_group], return_counts=True)[1].tolist()
    alive = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for members in by_group.split(sizes):
        alive[members if len(members) == 1 else members[nms(boxes[members], scores[members], iou_threshold)]] = True
    return by_score[alive[by_score]][:max_boxes]


def _check(boxes: Tensor, scores: Tensor, iou_threshold: float) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"boxes have the shape {tuple(boxes.shape)} and scores {tuple(scores.shape)}; they must be (n, 4) and (n,)."
        )
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}; it must lie in [0, 1].")
    if scores.isnan().any():
        first = int(scores.isnan().nonzero()[0])
        raise ValueError(f"The score of box {first} is NaN; scores must be numbers that can be ordered.")


def _greedy(boxes: Tensor, iou_threshold: float, max_boxes: int | None) -> Tensor:
    """Returns the positions that greedy suppression keeps of boxes in falling order of score."""
    planes = torch.cat([boxes.T, box_area(boxes)[None]]).contiguous()
    left = torch.arange(len(boxes), device=boxes.device)
    kept, num_kept = [left[:0]], 0
    while len(left) and (max_boxes is None or num_kept < max_boxes):
        block, rest = planes[:, :BLOCK], planes[:, BLOCK:]
        alive = _decide(_overlapping(block, block, iou_threshold))
        kept.append(left[:BLOCK][alive])
        num_kept += len(kept[-1])
        survivors = block[:, alive]
        struck = [_overlapping(survivors, tile, iou_threshold).any(0) for tile in rest.split(TILE, dim=1)]
        remains = (~torch.cat(struck)).nonzero()[:, 0]
        planes, left = rest.index_select(1, remains), left[BLOCK:][remains]
    return torch.cat(kept)[:max_boxes]


def _overlapping(first: Float[Tensor, "5 n"], second: Float[Tensor, "5 m"], iou_threshold: float) -> Tensor:
    """Tells which boxes overlap by more than the threshold: `iou`, with planes and areas ready, and in place."""
    x1, y1, x2, y2, area = first[:, :, None]
    u1, v1, u2, v2, other = second[:, None, :]
    overlap = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    overlap *= torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    union = (area + other).sub_(overlap)
    return overlap.div_(union) > iou_threshold  # two boxes without area give NaN, which is above nothing


def _decide(overlaps: Tensor) -> Tensor:
    """Returns which boxes of a block live, given who overlaps whom; a lower position is a better box."""
    strikes = overlaps.triu(1).float()
    alive = strikes.new_ones(len(strikes))
    while True:
        after = (alive @ strikes == 0).float()
        if torch.equal(after, alive):
            return alive > 0
        alive = after
