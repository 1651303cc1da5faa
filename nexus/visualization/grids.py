"""Tokens on their grid of patches.

Dims: b batch, n tokens, h w patches, d width.
"""

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from nexus.core.module import TokenLayout

MAX_PREFIX = 16


def infer_layout(num_tokens: int) -> TokenLayout:
    """Returns the layout of a square image: the largest square, after the tokens that are left (class, registers).

    Raises:
        ValueError: More than 16 tokens would be left, so the grid is hardly square.
    """
    side = math.isqrt(num_tokens)
    prefix = num_tokens - side**2
    if prefix > MAX_PREFIX:
        raise ValueError(
            f"{num_tokens} tokens are no square grid with a few tokens before it ({side} x {side} leaves {prefix})."
            " For an image that is not square, pass layout=model.token_layout((height, width))."
        )
    return TokenLayout(prefix, side, side)


def check_layout(layout: TokenLayout | None, num_tokens: int) -> TokenLayout:
    """Returns the layout, inferred if it is None.

    Raises:
        ValueError: It is a layout of another number of tokens.
    """
    if layout is None:
        return infer_layout(num_tokens)
    prefix, height, width = layout
    if prefix + height * width != num_tokens:
        raise ValueError(
            f"The layout has {prefix} + {height} x {width} = {prefix + height * width} tokens, and there are"
            f" {num_tokens}. Is it the layout of another image size?"
        )
    return TokenLayout(prefix, height, width)


def to_grid(tokens: Float[Tensor, "b n d"], layout: TokenLayout | None = None) -> Float[Tensor, "b d h w"]:
    """Returns the patches as a map; tokens before them (class token, registers) are left out."""
    layout = check_layout(layout, tokens.shape[1])
    return rearrange(tokens[:, layout.prefix :], "b (h w) d -> b d h w", h=layout.height)
