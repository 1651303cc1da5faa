"""Detection as the prediction of a set: which query answers for which object, and what its box costs.

Carion et al., "End-to-End Object Detection with Transformers", 2020, Sec. 3.1. https://arxiv.org/abs/2005.12872

Boxes are `cx cy w h`, each from 0 to 1 across their own image.

Dims: b images, q queries, n objects of one image, m matched pairs of the batch, k classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from nexus.ops.boxes import cxcywh_to_xyxy, full_precision, giou, pairwise, xyxy_to_cxcywh
from nexus.ops.matching import hungarian

ClassCost = Callable[[Float[Tensor, "q k"], Int[Tensor, " n"]], Float[Tensor, "q n"]]


class Objects(NamedTuple):
    """The objects of one image."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]


class Pairs(NamedTuple):
    """Matched queries and objects of a batch: pair i is query `query[i]` of image `image[i]`."""

    image: Int[Tensor, " m"]
    query: Int[Tensor, " m"]
    boxes: Float[Tensor, "m 4"]
    labels: Int[Tensor, " m"]


def relative_objects(targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[tuple[int, int]]) -> list[Objects]:
    """Returns targets whose `boxes` are xyxy in pixels of images of `sizes` (height, width) as objects."""
    objects = []
    for target, (height, width) in zip(targets, sizes):
        boxes = target["boxes"]
        objects.append(Objects(xyxy_to_cxcywh(boxes) / boxes.new_tensor([width, height] * 2), target["labels"]))
    return objects


def pixel_boxes(boxes: Float[Tensor, "b q 4"], sizes: Int[Tensor, "b 2"]) -> Float[Tensor, "b q 4"]:
    """Returns relative boxes as xyxy in pixels of images of `sizes` (height, width)."""
    return cxcywh_to_xyxy(full_precision(boxes)) * sizes.flip(1).repeat(1, 2)[:, None]


def inverse_sigmoid(x: Float[Tensor, "*n"], eps: float = 1e-5) -> Float[Tensor, "*n"]:
    """Returns the logit of x, where both x and 1 - x count as `eps` at least."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def softmax_cost(logits: Float[Tensor, "q k"], labels: Int[Tensor, " n"]) -> Float[Tensor, "q n"]:
    """Less for a likelier class: minus its probability."""
    return -logits.softmax(dim=-1)[:, labels]


def focal_cost(
    logits: Float[Tensor, "q k"], labels: Int[Tensor, " n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "q n"]:
    """What the focal loss of a query would change by, were the class its own (Deformable DETR)."""
    chance = logits.sigmoid()[:, labels]
    positive = -alpha * (1 - chance) ** gamma * (chance + 1e-8).log()
    negative = -(1 - alpha) * chance**gamma * (1 - chance + 1e-8).log()
    return positive - negative


@torch.no_grad()
def match_queries(
    logits: Float[Tensor, "b q k"],
    boxes: Float[Tensor, "b q 4"],
    objects: Sequence[Objects],
    class_cost: ClassCost,
    *,
    weights: tuple[float, float, float],
) -> Pairs:
    """Gives every object the query that makes the total cost of its image least (Eq. 1).

    Args:
        logits: Class scores.
        boxes: Predicted boxes.
        objects: Of each image; where they outnumber the queries, some stay without one.
        class_cost: Cost of each label for each query.
        weights: Of the cost of the class, of the box's L1 distance, and of its GIoU.

    Raises:
        ValueError: Predictions are NaN or infinite.
    """
    for_class, for_box, for_giou = weights
    found = []
    for image, (scores, predicted, (wanted, labels)) in enumerate(zip(logits, boxes, objects)):
        scores, predicted, wanted = full_precision(scores), full_precision(predicted), full_precision(wanted)
        distance = (predicted[:, None] - wanted).abs().sum(-1)
        overlap = pairwise(giou, cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
        cost = for_class * class_cost(scores, labels) + for_box * distance - for_giou * overlap
        query, index = hungarian(cost)
        found.append(Pairs(torch.full_like(query, image), query, wanted[index], labels[index]))
    return Pairs(*map(torch.cat, zip(*found)))


def box_losses(
    boxes: Float[Tensor, "b q 4"], pairs: Pairs, num_objects: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Returns the L1 loss and the GIoU loss of the matched boxes, per object."""
    predicted = full_precision(boxes[pairs.image, pairs.query])
    distance = (predicted - pairs.boxes).abs().sum()
    overlap = giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(pairs.boxes))
    return distance / num_objects, (1 - overlap).sum() / num_objects


def count_objects(objects: Sequence[Objects]) -> float:
    """Returns the mean number of objects that a process has in this step, at least 1.

    Losses are divided by it, so that objects weigh the same whichever process they lie in.
    """
    total = torch.tensor(float(sum(len(image.labels) for image in objects)))
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        total = total.to(objects[0].boxes.device)
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return max(float(total), 1.0)
