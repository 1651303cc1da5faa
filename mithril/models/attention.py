"""Attention. "Attention Is All You Need", Vaswani et al. 2017. https://arxiv.org/abs/1706.03762

Dims: n batch, q k positions, d width.
"""

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter
from mithril.models.linear import Linear


class MultiHeadAttention(Model):
    """Queries look at keys and take their values, in several heads (Sec. 3.2.2); (..., q, dim) to (..., q, dim).

    Keys: `query`, `key`, `value`, `mask` (optional: boolean, True where attention is allowed, or numbers that are
    added), `output`. Parameters are torch's: `in_proj_weight` (3 dim, dim) holds queries, keys, values one after the
    other, `in_proj_bias`, and the submodel `out_proj`.

    Args:
        dim: Width of tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
        is_causal: A query sees only keys at its own place and before.
        use_mask: Whether there is a key `mask`.
    """

    def __init__(
        self, dim: int, num_heads: int, is_causal: bool = False, use_mask: bool = False, name: str | None = None
    ):
        super().__init__(name)
        if dim % num_heads:
            raise ValueError(f"dim is {dim}; it must be a multiple of num_heads {num_heads}.")
        weight, bias = parameter("in_proj_weight", [3 * dim, dim]), parameter("in_proj_bias", [3 * dim])
        heads = []
        for i, role in enumerate(("query", "key", "value")):
            rows = slice(i * dim, (i + 1) * dim)
            projected = op("linear")(input=IOKey(role), weight=weight[rows], bias=bias[rows])
            heads.append(split_heads(projected, num_heads))
        wires = {"mask": IOKey("mask")} if use_mask else {}
        attend = op("scaled_dot_product_attention", is_causal=is_causal)
        mixed = attend(query=heads[0], key=heads[1], value=heads[2], **wires)
        self |= Linear(dim, name="out_proj")(input=join_heads(mixed), output=IOKey("output"))
        self.set_cin("query")


def split_heads(x, num_heads: int):
    """Returns (n, q, d) as (n, heads, q, d / heads)."""
    return x.reshape(x.shape[0], x.shape[1], num_heads, -1).transpose(0, 2, 1, 3)


def join_heads(x):
    """Returns (n, heads, q, e) as (n, q, heads * e)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
