"""Transformer blocks with normalization first. Vaswani et al. 2017; Radford et al. 2019 (GPT-2), Sec. 2.3.

A family passes its own attention and feed-forward part, so that parameters bear the names of its checkpoints.

Dims: n batch, q positions, d width.
"""

from collections.abc import Callable

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.attention import join_heads, split_heads
from mithril.models.common import op
from mithril.models.linear import Linear
from mithril.models.normalization import LayerNorm

Names = tuple[str, str]


def transformer_block(
    attention: Model, feed_forward: Model, norms: Names = ("norm1", "norm2"), eps: float = 1e-6, name: str = ""
) -> Model:
    """`x + attention(norm(x))`, then the same with the feed-forward part, (n, q, d) to (n, q, d)."""
    block = Model(name=name or None)
    x = IOKey("input")
    x = x + attention(input=LayerNorm(eps, name=norms[0])(x))
    x = x + feed_forward(input=LayerNorm(eps, name=norms[1])(x))
    block |= op("buffer")(x, output=IOKey("output"))
    return block.set_cin("input")


class SelfAttention(Model):
    """Multi-head attention of tokens to each other, (n, q, d) to (n, q, d); one layer gives queries, keys and values.

    Args:
        dim: d, a multiple of `num_heads`.
        is_causal: A token sees only itself and those before it.
        names: Names of the layer before and of the layer after attention.
        dense: The class of both layers.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        is_causal: bool = False,
        names: Names = ("qkv", "proj"),
        dense: Callable[..., Model] = Linear,
        name: str | None = None,
    ):
        super().__init__(name)
        if dim % num_heads:
            raise ValueError(f"dim is {dim}; it must be a multiple of num_heads {num_heads}.")
        joint = dense(3 * dim, name=names[0])(IOKey("input"))
        pieces = op("split", split_size=dim, axis=-1)(joint)
        query, key, value = (split_heads(pieces[i], num_heads) for i in range(3))
        mixed = op("scaled_dot_product_attention", is_causal=is_causal)(query=query, key=key, value=value)
        self |= dense(dim, name=names[1])(join_heads(mixed), output=IOKey("output"))
        self.set_cin("input")


class FeedForward(Model):
    """Two layers with an activation between them, (..., d) to (..., d).

    Args:
        dim: d.
        hidden_dim: Width between the layers.
        activation: A model without parameters.
        names: Names of the two layers.
        dense: The class of both layers.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        activation: Model,
        names: Names = ("fc1", "fc2"),
        dense: Callable[..., Model] = Linear,
        name: str | None = None,
    ):
        super().__init__(name)
        self |= dense(hidden_dim, name=names[0])(input="input")
        self += activation
        self += dense(dim, name=names[1])(output=IOKey("output"))


class QuickGelu(Model):
    """`x sigmoid(1.702 x)`, the approximation that CLIP was trained with."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        x = IOKey("input")
        self |= op("buffer")(x * (1.702 * x).sigmoid(), output=IOKey("output"))
        self.set_cin("input")
