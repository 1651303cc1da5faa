"""Places in a map as sines and cosines.

Carion et al., "End-to-End Object Detection with Transformers", 2020, Appendix A.4. https://arxiv.org/abs/2005.12872

Dims: b batch, h w places down and across, d width.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sine_positions(
    seen: Bool[Tensor, "b h w"], embed_dim: int, dtype: torch.dtype, *, temperature: float = 10_000
) -> Float[Tensor, "b h*w d"]:
    """Returns sines and cosines of each place's row, then of its column, as shares of its own image.

    Args:
        seen: Where a map shows the image; the rest is padding.
        embed_dim: Half of it is for the row, half for the column.
        dtype: Of the result.
        temperature: How many times slower than the first wave the last one nearly is.
    """
    shares = []
    for axis in (1, 2):
        place = seen.to(dtype).cumsum(axis)
        shares.append(place / (place.narrow(axis, place.shape[axis] - 1, 1) + 1e-6))
    return sine_waves(torch.stack(shares, dim=-1), embed_dim // 2, temperature=temperature).flatten(1, 2)


def sine_waves(values: Float[Tensor, "*n k"], dim: int, *, temperature: float = 10_000) -> Float[Tensor, "*n k*dim"]:
    """Returns sines and cosines in turn, `dim` of each value, of 2 pi times the value and of slower waves."""
    period = temperature ** (2 * (torch.arange(dim, device=values.device, dtype=values.dtype) // 2) / dim)
    angle = (values * 2 * math.pi)[..., None] / period
    waves = torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1)
    return waves.flatten(-3)
