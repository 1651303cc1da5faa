"""Learned position embeddings at another image size."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def resample_position_embedding(
    embedding: Float[Tensor, "1 n d"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    num_prefix: int = 0,
    antialias: bool = True,
    offset: float = 0.0,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
) -> Float[Tensor, "1 m d"]:
    """Returns the embedding for another grid of patches: interpolated on the grid, unchanged for prefix tokens.

    Args:
        embedding: `num_prefix` tokens (class token, registers), then the patches row by row.
        old_grid: Rows and columns of patches that it holds.
        new_grid: Rows and columns wanted.
        num_prefix: Tokens in front that have no place in the image.
        antialias: Low-pass filter when the grid shrinks, and the wider cubic kernel; timm does, the hub's ViT does not.
        offset: Added to the rows and columns wanted where the step of the sampling is computed from them; DINOv2
            was trained with 0.1.
        mode: The interpolation; NaFlex models were trained with the bilinear one.
    """
    if old_grid == new_grid:
        return embedding
    prefix, patches = embedding[:, :num_prefix], embedding[:, num_prefix:]
    image = rearrange(patches, "1 (h w) d -> 1 d h w", h=old_grid[0], w=old_grid[1])
    kept = image.dtype if image.dtype in (torch.float32, torch.float64) else torch.float32
    if offset:
        scales = [(new + offset) / old for new, old in zip(new_grid, old_grid)]
        image = F.interpolate(image.to(kept), scale_factor=scales, mode=mode, antialias=antialias)
    else:
        image = F.interpolate(image.to(kept), size=new_grid, mode=mode, antialias=antialias)
    return torch.cat([prefix, rearrange(image.to(embedding.dtype), "1 d h w -> 1 (h w) d")], dim=1)


def fit_positions(
    state: Mapping[str, Tensor],
    key: str,
    grid: tuple[int, int],
    resample: Callable[[Tensor, tuple[int, int], tuple[int, int]], Tensor],
    *,
    num_prefix: int,
) -> dict[str, Tensor]:
    """Returns weights whose position embedding `key` was made for another (square) image, resampled to `grid`.

    Args:
        state: Weights in our names.
        key: Of the embedding (1, n, d); where it is missing or cannot be of a square, the weights stay as they are.
        grid: Rows and columns of patches wanted.
        resample: Called with the embedding, its grid and the grid wanted.
        num_prefix: Tokens in front that have no place in the image.
    """
    positions, fitted = state.get(key), dict(state)
    if positions is None or positions.shape[1] == num_prefix + grid[0] * grid[1]:
        return fitted
    side = math.isqrt(max(positions.shape[1] - num_prefix, 0))
    if side and side * side + num_prefix == positions.shape[1]:
        fitted[key] = resample(positions, (side, side), grid)
    return fitted
