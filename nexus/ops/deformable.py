"""Multi-scale deformable attention: each query reads a few places of each feature map.

Zhu et al., "Deformable DETR", 2021, Eq. 3. https://arxiv.org/abs/2010.04159

Dims: b images, n tokens of all levels, l levels, q queries, s places a head reads in all, e one head's width.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from nexus.ops.sampling import bilinear_corners, weighted_rows


def deformable_attention(
    values: Float[Tensor, "b n heads e"],
    sizes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q heads s 2"],
    weights: Float[Tensor, "b q heads s"],
    num_points: Sequence[int],
    *,
    method: Literal["bilinear", "nearest"] = "bilinear",
) -> Float[Tensor, "b q heads*e"]:
    """Returns the weighted sum of the values at `locations`; differentiable in values, locations and weights.

    Args:
        values: Maps of all levels, flattened row by row, one after the other.
        sizes: (height, width) of each level.
        locations: (x, y) from 0 to 1 across the map; places outside read 0 between pixels ("bilinear") or the
            border ("nearest").
        weights: Attention weights, usually a softmax over s.
        num_points: Places per level; their sum is s, and the places stand level by level.
        method: "nearest" is the discrete sampling of RT-DETR v2, which has no gradient in `locations`.

    Raises:
        ValueError: The sizes, points and shapes do not agree.
    """
    batch, length, heads, _ = values.shape
    if sum(h * w for h, w in sizes) != length:
        raise ValueError(f"The levels {list(sizes)} have {sum(h * w for h, w in sizes)} tokens; values have {length}.")
    if len(num_points) != len(sizes) or sum(num_points) != weights.shape[-1]:
        raise ValueError(
            f"num_points is {list(num_points)} for {len(sizes)} levels and {weights.shape[-1]} weights; "
            "it needs a number for each level, and they must sum to the weights."
        )
    if locations.shape != (*weights.shape, 2):
        raise ValueError(f"locations have the shape {tuple(locations.shape)}; they must be {(*weights.shape, 2)}.")
    width, height, first = _per_place(sizes, num_points, locations)
    if method == "nearest":
        x = (locations[..., 0] * width + 0.5).long()
        y = (locations[..., 1] * height + 0.5).long()
        token = first + _clamp(y, height) * width + _clamp(x, width)
        share = weights
    else:
        x, wx = bilinear_corners(locations[..., 0] * width - 0.5, width)
        y, wy = bilinear_corners(locations[..., 1] * height - 0.5, height)
        corner = y[..., :, None] * width[:, None, None] + x[..., None, :]
        token = (first[:, None, None] + corner).flatten(3)
        share = (weights[..., None, None] * wy[..., :, None] * wx[..., None, :]).flatten(3)
    image = torch.arange(batch, device=values.device)[:, None, None, None]
    head = torch.arange(heads, device=values.device)[:, None]
    row = (image * length + token) * heads + head
    read = weighted_rows(values.flatten(0, 2), row.flatten(0, 2), share.flatten(0, 2))
    return rearrange(read, "(b q heads) e -> b q (heads e)", b=batch, heads=heads)


def _per_place(sizes: Sequence[tuple[int, int]], num_points: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """Returns width, height and first token of the level that each of the s places lies in."""
    rows, start = [], 0
    for (h, w), points in zip(sizes, num_points):
        rows += [(w, h, start)] * points
        start += h * w
    return torch.tensor(rows, device=like.device).reshape(-1, 3).unbind(1)


def _clamp(pixel: Tensor, size: Tensor) -> Tensor:
    return torch.minimum(pixel.clamp(min=0), size - 1)
