"""Learned position embeddings at another image size."""

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
