"""Boxes: forms, areas, and the family of overlap measures.

Boxes are `x1 y1 x2 y2` in continuous pixels, so that width is `x2 - x1`. Measures broadcast over leading
dimensions: two lists of n boxes give n values, and `pairwise` gives the table of n times m.

GIoU: Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630
DIoU, CIoU: Zheng et al. 2020, https://arxiv.org/abs/1911.08287
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Measure = Callable[[Float[Tensor, "... 4"], Float[Tensor, "... 4"]], Float[Tensor, "..."]]


def xyxy_to_cxcywh(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
    """Corners to centre and size, the form that DETR and YOLO regress."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
    """Centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def full_precision(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Returns 16-bit floats as 32-bit ones, others as they are: bfloat16 is 4 pixels wide at pixel 1,000."""
    return values.float() if values.dtype.itemsize < 4 else values


def box_area(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Area in square pixels; a box whose corners are swapped has none."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def clip_boxes(boxes: Float[Tensor, "... 4"], size: tuple[int, int]) -> Float[Tensor, "... 4"]:
    """Cuts boxes at the border of an image of `size` (height, width) pixels."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)]
    return torch.stack(corners, dim=-1)


def is_large(boxes: Float[Tensor, "... 4"], min_size: float) -> Bool[Tensor, "..."]:
    """Tells which boxes have both sides of at least `min_size` pixels."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1 >= min_size) & (y2 - y1 >= min_size)


def pairwise(
    measure: Measure, first: Float[Tensor, "... n 4"], second: Float[Tensor, "... m 4"]
) -> Float[Tensor, "... n m"]:
    """Returns `measure` of each box of `first` with each box of `second`: `pairwise(giou, anchors, boxes)`."""
    return measure(first[..., :, None, :], second[..., None, :, :])


def iou(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Intersection over union, in [0, 1]; 0 for two boxes without area."""
    overlap, union = _overlap_and_union(first, second)
    return _ratio(overlap, union)


def giou(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Generalized IoU, in [-1, 1]: IoU less the part of the enclosing box that neither covers."""
    overlap, union = _overlap_and_union(first, second)
    width, height = _enclosing_size(first, second)
    hull = width * height
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def diou(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Distance IoU: IoU less the squared distance of the centres over that of the enclosing box's corners."""
    width, height = _enclosing_size(first, second)
    x1, y1, x2, y2 = first.unbind(-1)
    u1, v1, u2, v2 = second.unbind(-1)
    distance = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    return iou(first, second) - _ratio(distance, width**2 + height**2)


def ciou(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Complete IoU: distance IoU less a term for unequal aspect ratios, whose weight gets no gradient (Eq. 10)."""
    shape = 4 / math.pi**2 * (_aspect_angle(first) - _aspect_angle(second)) ** 2
    with torch.no_grad():
        weight = _ratio(shape, 1 - iou(first, second) + shape)
    return diou(first, second) - weight * shape


def _overlap_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    # Coordinates are taken apart first: planes of n times m are several times faster than n times m times 2.
    x1, y1, x2, y2 = first.unbind(-1)
    u1, v1, u2, v2 = second.unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    overlap = width * height
    return overlap, box_area(first) + box_area(second) - overlap


def _enclosing_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    x1, y1, x2, y2 = first.unbind(-1)
    u1, v1, u2, v2 = second.unbind(-1)
    width = torch.maximum(x2, u2) - torch.minimum(x1, u1)
    height = torch.maximum(y2, v2) - torch.minimum(y1, v1)
    return width.clamp(min=0), height.clamp(min=0)


def _aspect_angle(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    height = y2 - y1
    return torch.atan((x2 - x1) / torch.where(height > 0, height, 1e-7))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Returns part / whole, and 0 with finite gradients where whole is 0."""
    return part / torch.where(whole > 0, whole, 1)
