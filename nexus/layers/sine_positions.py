"""Places in a map as sines and cosines.

Carion et al., "End-to-End Object Detection with Transformers", 2020, Appendix A.4. https://arxiv.org/abs/2005.12872

Dims: b batch, h w places down and across, d width.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sine_positions(seen: Bool[Tensor, "b h w"], embed_dim: int, dtype: torch.dtype) -> Float[Tensor, "b h*w d"]:
    """Returns sines and cosines of each place's row, then of its column, as shares of its own image.

    Args:
        seen: Where a map shows the image; the rest is padding.
        embed_dim: Half of it is for the row, half for the column.
        dtype: Of the result.
    """
    half = embed_dim // 2
    period = 10_000 ** (2 * (torch.arange(half, device=seen.device, dtype=dtype) // 2) / half)
    waves = []
    for axis in (1, 2):
        place = seen.to(dtype).cumsum(axis)
        whole = place.narrow(axis, place.shape[axis] - 1, 1)
        angle = (place / (whole + 1e-6) * 2 * math.pi)[..., None] / period
        waves.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(3))
    return torch.cat(waves, dim=-1).flatten(1, 2)
