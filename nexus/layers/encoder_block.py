"""The pre-norm transformer block as CLIP's and SigLIP's towers have it, for images and for text."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.attention import Attention
from nexus.layers.drop_path import DropPath
from nexus.layers.mlp import Mlp


class EncoderBlock(nn.Module):
    """Attention, then an MLP, each on normalized tokens and beside a shortcut.

    Args:
        embed_dim: Width of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
        hidden_dim: Width inside the MLP.
        activation: Makes the MLP's activation.
        norm_eps: Epsilon of both layer norms.
        causal: Each token sees itself and those before it.
        drop_path: Probability that a branch is dropped in training.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        norm_eps: float = 1e-6,
        causal: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn = Attention(embed_dim, num_heads, causal=causal)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = Mlp(embed_dim, hidden_dim, activation=activation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attention_maps(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b heads n n"]:
        """Returns the attention weights inside this block for its input `x`."""
        return self.attn.maps(self.norm1(x))
