"""Learned position embeddings at another image size."""

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
) -> Float[Tensor, "1 m d"]:
    """Returns the embedding for another grid of patches: bicubic on the grid, unchanged for prefix tokens.

    Args:
        embedding: `num_prefix` tokens (class token, registers), then the patches row by row.
        old_grid: Rows and columns of patches that it holds.
        new_grid: Rows and columns wanted.
        num_prefix: Tokens in front that have no place in the image.
        antialias: Low-pass filter when the grid shrinks, and the wider cubic kernel; timm does, the hub's ViT does not.
    """
    if old_grid == new_grid:
        return embedding
    prefix, patches = embedding[:, :num_prefix], embedding[:, num_prefix:]
    image = rearrange(patches, "1 (h w) d -> 1 d h w", h=old_grid[0], w=old_grid[1])
    kept = image.dtype if image.dtype in (torch.float32, torch.float64) else torch.float32
    image = F.interpolate(image.to(kept), size=new_grid, mode="bicubic", antialias=antialias)
    return torch.cat([prefix, rearrange(image.to(embedding.dtype), "1 d h w -> 1 (h w) d")], dim=1)
