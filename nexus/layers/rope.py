"""Rotary position embedding in two dimensions.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021. https://arxiv.org/abs/2104.09864
In two dimensions as in Fang et al., "EVA-02", 2023, Sec. 2.1: half of a head's width turns with the row, half with
the column.

Dims: b batch, n tokens, e one head's width.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def rotary_angles(
    grid: tuple[int, int],
    head_dim: int,
    *,
    reference: tuple[int, int],
    theta: float = 10_000.0,
    device: torch.device | None = None,
) -> Float[Tensor, "n p"]:
    """Returns by how many radians each pair of values of a patch's query or key turns, row by row, in float32.

    Args:
        grid: Rows and columns of patches.
        head_dim: Width of a head, twice the number of pairs; a multiple of 4.
        reference: Rows and columns of the pre-training: places on another grid are scaled onto it.
        theta: Of the slowest turning pairs.
        device: Where the angles are wanted.
    """
    count = head_dim // 4
    frequencies = 1.0 / theta ** (torch.arange(count, dtype=torch.float32, device=device) / count)
    axes = [torch.arange(new, dtype=torch.float32, device=device) / new * old for new, old in zip(grid, reference)]
    rows, columns = (axis[:, None] * frequencies for axis in axes)
    shape = (*grid, count)
    angles = torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=-1)
    return rearrange(angles, "h w p -> (h w) p")


def rotate_pairs(x: Float[Tensor, "*b n e"], angles: Float[Tensor, "n p"]) -> Float[Tensor, "*b n e"]:
    """Returns `x` with its values 0 and 1, 2 and 3, ... turned as pairs by `angles`."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
