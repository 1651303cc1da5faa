"""The post-norm transformer of detectors: attention between two sets of tokens, and the block around it.

Vaswani et al., "Attention Is All You Need", 2017; positions enter as in Carion et al., "DETR", 2020, Fig. 10.

Dims: b batch, n tokens, q queries, d width, e one head's width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.layers.mlp import Mlp


class CrossAttention(nn.Module):
    """Attention of queries to keys, with a projection each for queries, keys and values.

    Args:
        embed_dim: Width of all tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
        dropout: Probability of dropping an attention weight in training.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.o_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Float[Tensor, "b q d"],
        key: Float[Tensor, "b n d"],
        value: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "*_ n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Returns what each query reads; `mask`, broadcast to (b, heads, q, n), is True where it may read."""
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.o_proj(rearrange(x, "b heads q e -> b q (heads e)"))

    def maps(
        self, query: Float[Tensor, "b q d"], key: Float[Tensor, "b n d"], mask: Bool[Tensor, "*_ n"] | None = None
    ) -> Float[Tensor, "b heads q n"]:
        """Returns the attention weights that `forward` uses; each row sums to 1. Dropout is left out."""
        q, k = self._heads(self.q_proj(query)), self._heads(self.k_proj(key))
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (heads e) -> b heads n e", heads=self.num_heads)


class PostNormBlock(nn.Module):
    """Self-attention, then an MLP, each normalized after its shortcut. Positions are added to queries and keys only.

    Args:
        embed_dim: Width of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
        hidden_dim: Width inside the MLP.
        dropout: Of attention weights, of the MLP's hidden values, and of each branch, in training.
        activation: Makes the MLP's activation.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.self_attn = CrossAttention(embed_dim, num_heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.mlp = Mlp(embed_dim, hidden_dim, activation=activation, dropout=dropout)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b n d"], position: Float[Tensor, "#b n d"], mask: Bool[Tensor, "*_ n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        placed = x + position
        x = self.norm1(x + self.drop(self.self_attn(placed, placed, x, mask)))
        return self.norm2(x + self.mlp(x))
