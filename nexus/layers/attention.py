"""Multi-head self-attention."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with fused projections ("Attention Is All You Need", Sec. 3.2).

    The rows of `qkv.weight` are all queries, then all keys, then all values; within each, head by head.

    Args:
        embed_dim: Width of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
        qkv_bias: Whether queries, keys and values have a bias.
        dropout: Probability of dropping an attention weight in training.
        proj_dropout: Probability of dropping an output value in training.
        causal: Each token sees itself and those before it.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        proj_dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal
        self.dropout = dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(proj_dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = self._project(x)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal)
        return self.proj_drop(self.proj(rearrange(x, "b heads n e -> b n (heads e)")))

    def maps(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b heads n n"]:
        """Returns the attention weights that `forward` uses for `x`; each row sums to 1.

        The fused kernel never holds them, so they are computed again. Dropout is left out.
        """
        q, k, _ = self._project(x)
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return scores.softmax(dim=-1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "b n (three heads e) -> three b heads n e", three=3, heads=self.num_heads)
        return q, k, v
