"""Anchors and points: where a dense head makes its predictions.

Everything is in pixels of the image, xyxy, in the order of a flattened map: rows, columns, then shapes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def anchor_shapes(
    sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False
) -> Float[Tensor, "shapes 4"]:
    """Returns boxes around the origin, for each ratio (height / width) every size (square root of the area).

    Args:
        sizes: In pixels.
        ratios: Height over width.
        rounded: Round corners to whole pixels, halves to even, as torchvision's detectors do.
    """
    if min(*sizes, *ratios) <= 0:
        raise ValueError(f"sizes are {tuple(sizes)} and ratios {tuple(ratios)}; all must be above 0.")
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    size = torch.tensor(sizes, dtype=torch.float32)
    heights = (root[:, None] * size).flatten()
    widths = ((1 / root)[:, None] * size).flatten()
    shapes = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return shapes.round() if rounded else shapes


def grid_points(
    map_size: tuple[int, int], stride: tuple[float, float], *, offset: float = 0.5, like: Tensor | None = None
) -> Float[Tensor, "n 2"]:
    """Returns the place (x, y) of each pixel of a map of (height, width) pixels, row by row.

    Args:
        map_size: Of the feature map.
        stride: Image pixels per map pixel, (down, across).
        offset: 0.5 for pixel centres, 0 for their corners.
        like: A tensor whose device and type the result takes.
    """
    device, dtype = (like.device, like.dtype) if like is not None else (None, torch.float32)
    y = (torch.arange(map_size[0], device=device, dtype=dtype) + offset) * stride[0]
    x = (torch.arange(map_size[1], device=device, dtype=dtype) + offset) * stride[1]
    return torch.stack([x.repeat(map_size[0]), y.repeat_interleave(map_size[1])], dim=1)


def grid_anchors(
    shapes: Float[Tensor, "shapes 4"], map_size: tuple[int, int], stride: tuple[float, float], *, offset: float = 0.0
) -> Float[Tensor, "n 4"]:
    """Returns every shape at every pixel of a map; n is height times width times shapes."""
    points = grid_points(map_size, stride, offset=offset, like=shapes)
    return (points.repeat(1, 2)[:, None, :] + shapes).flatten(0, 1)
