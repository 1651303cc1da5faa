"""Box regression targets: boxes relative to anchors, and distances from points to the four sides."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""A regressed side grows at most by 1000 / 16, so that early training cannot overflow `exp` (R-CNN's own bound)."""


@dataclass(frozen=True)
class BoxCoder:
    """The parametrization of R-CNN (Girshick et al. 2014, App. C): shift over anchor size, logarithm of the scale.

    Attributes:
        weights: Factors of (dx, dy, dw, dh); the inverse of the standard deviations that other libraries name.
        bounded_below: Bound the shrinking of a side as well as its growth, as mmdetection does.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    bounded_below: bool = False

    def encode(self, boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Returns the deltas that turn `anchors` into `boxes`, both xyxy in pixels."""
        x, y, w, h = _centre_and_size(boxes)
        ax, ay, aw, ah = _centre_and_size(anchors)
        wx, wy, ww, wh = self.weights
        deltas = [wx * (x - ax) / aw, wy * (y - ay) / ah, ww * torch.log(w / aw), wh * torch.log(h / ah)]
        return torch.stack(deltas, dim=-1)

    def decode(self, deltas: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Returns the boxes (xyxy in pixels) that `deltas` make of `anchors`; leading dimensions broadcast."""
        ax, ay, aw, ah = _centre_and_size(anchors.to(deltas.dtype))
        dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), self.weights))
        lowest = -MAX_LOG_SCALE if self.bounded_below else None
        half_w = dw.clamp(lowest, MAX_LOG_SCALE).exp() * aw / 2
        half_h = dh.clamp(lowest, MAX_LOG_SCALE).exp() * ah / 2
        x, y = ax + dx * aw, ay + dy * ah
        return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height


def boxes_to_distances(boxes: Float[Tensor, "... 4"], points: Float[Tensor, "... 2"]) -> Float[Tensor, "... 4"]:
    """Distances from points (x, y) to the left, top, right and bottom side; negative where a point lies outside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def distances_to_boxes(distances: Float[Tensor, "... 4"], points: Float[Tensor, "... 2"]) -> Float[Tensor, "... 4"]:
    """The boxes whose sides lie at these distances (left, top, right, bottom) from points (x, y)."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)
