"""Dense detection whose sides are distributions and whose answers are chosen by task alignment: YOLOv8 and its kin.

Distributions: Li et al., "Generalized Focal Loss", 2020, https://arxiv.org/abs/2006.04388.
Alignment: Feng et al., "TOOD", 2021, https://arxiv.org/abs/2108.07755.

Dims: b images, n places of all maps, k classes, r bins of a distance.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.ops.anchors import grid_points
from nexus.ops.box_coder import boxes_to_distances, distances_to_boxes
from nexus.ops.boxes import full_precision
from nexus.ops.losses import ciou_loss, distribution_focal_loss
from nexus.ops.matching import match_aligned


class Places(NamedTuple):
    """Where predictions are made.

    Attributes:
        points: (n, 2), x and y in pixels.
        strides: (n, 1), pixels.
    """

    points: Tensor
    strides: Tensor


class AlignedLosses(NamedTuple):
    """Means over the qualities of the answers, not weighed yet."""

    classification: Float[Tensor, ""]
    box: Float[Tensor, ""]
    bins: Float[Tensor, ""]


def places_of(maps: Sequence[Float[Tensor, "b _ _ _"]], strides: Sequence[int]) -> Places:
    """Returns the centre of each place of maps with these strides, map by map."""
    points = [grid_points((x.shape[-2], x.shape[-1]), (s, s), like=x) for x, s in zip(maps, strides)]
    sides = [one.new_full((len(one), 1), stride) for one, stride in zip(points, strides)]
    return Places(torch.cat(points), torch.cat(sides))


def boxes_from_bins(bins: Float[Tensor, "b n 4 r"], places: Places) -> Float[Tensor, "b n 4"]:
    """Returns boxes, xyxy in pixels: a side's distance is the mean of its distribution (GFL, Eq. 4), in strides."""
    steps = torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    distances = (bins.softmax(dim=-1) @ steps) * places.strides
    return distances_to_boxes(distances, places.points)


def aligned_losses(
    logits: Float[Tensor, "b n k"],
    bins: Float[Tensor, "b n 4 r"],
    places: Places,
    targets: Sequence[Mapping[str, Tensor]],
    *,
    top_k: int,
    alpha: float,
    beta: float,
    complete: bool = False,
    eps: float | None = None,
    asked: Float[Tensor, "b k"] | None = None,
) -> AlignedLosses:
    """Returns the losses of a head's answers to the objects of each image.

    Args:
        logits: Of each class at each place.
        bins: Logits of the distributions of the four distances.
        places: Where the predictions are made.
        targets: Of each image `boxes` (m, 4), xyxy in pixels, and `labels` (m,).
        top_k: Most answers for an object.
        alpha: Power of the score in the measure of a good answer.
        beta: Power of the overlap in it.
        complete: Whether that overlap is CIoU rather than IoU.
        eps: See `match_aligned`.
        asked: 0 for classes that an image was not asked about, whose logits do not learn; None: about all.
    """
    logits, bins = full_precision(logits), full_precision(bins)
    points, strides = places
    predicted = boxes_from_bins(bins, places)
    wanted = torch.zeros_like(logits)
    box_loss, bin_loss, total = bins.sum() * 0, bins.sum() * 0, logits.new_zeros(())
    for image, target in enumerate(targets):
        boxes = target["boxes"].to(predicted)
        matches, quality = match_aligned(
            logits[image].detach().sigmoid(), predicted[image].detach(), points, boxes, target["labels"],
            top_k=top_k, alpha=alpha, beta=beta, complete=complete, eps=eps,
        )  # fmt: skip
        used = (matches >= 0).nonzero()[:, 0]
        mine, weight = boxes[matches[used]], quality[used]
        wanted[image, used, target["labels"][matches[used]]] = weight
        total = total + weight.sum()
        box_loss = box_loss + (ciou_loss(predicted[image, used], mine) * weight).sum()
        sides = boxes_to_distances(mine, points[used]) / strides[used]
        misses = distribution_focal_loss(bins[image, used], sides.clamp(0, bins.shape[-1] - 1.01))
        bin_loss = bin_loss + (misses.mean(dim=1) * weight).sum()
    total = total.clamp(min=1)
    weight = None if asked is None else asked[:, None].to(logits)
    classification = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum")
    return AlignedLosses(classification / total, box_loss / total, bin_loss / total)
