"""Learned biases of attention for each offset between two patches (Swin, Eq. 4)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def relative_positions(grid: tuple[int, int], largest: tuple[int, int]) -> Int[Tensor, "n n"]:
    """Returns the row of the bias table for each pair of tokens: their offset, counted row by row.

    Args:
        grid: Rows and columns of tokens.
        largest: Rows and columns that the table is made for; it has an entry for each offset within them.
    """
    axes = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    down, right = (axis.flatten()[:, None] - axis.flatten() + side - 1 for axis, side in zip(axes, largest))
    return down * (2 * largest[1] - 1) + right


def resample_offsets(
    table: Float[Tensor, "old heads"], old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Tensor, "new heads"]:
    """Returns a bias table for another grid of tokens: bicubic on the grid of offsets."""
    if old_grid == new_grid:
        return table
    image = rearrange(table, "(h w) heads -> 1 heads h w", h=2 * old_grid[0] - 1)
    size = (2 * new_grid[0] - 1, 2 * new_grid[1] - 1)
    image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    return rearrange(image, "1 heads h w -> (h w) heads")
