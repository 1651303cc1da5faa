"""The pre-norm transformer block of ViT and its followers, for images and for text."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.attention import Attention
from nexus.layers.drop_path import DropPath
from nexus.layers.layer_scale import LayerScale
from nexus.layers.mlp import Mlp


class EncoderBlock(nn.Module):
    """Attention, then an MLP, each on normalized tokens and beside a shortcut (ViT, Eq. 2 and 3).

    Args:
        embed_dim: Width of the tokens.
        attn: The attention; what `forward` is given besides the tokens goes to it.
        mlp: The perceptron.
        norm_eps: Epsilon of both layer norms.
        drop_path: Probability that a branch is dropped in training.
        layer_scale: Of fresh weights that scale each branch per channel; None is without.
    """

    def __init__(
        self,
        embed_dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        *,
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn: Any = attn
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(embed_dim, layer_scale)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp: Any = mlp
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(embed_dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"], **around: Any) -> Float[Tensor, "b n d"]:
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), **around)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def attention_maps(self, x: Float[Tensor, "b n d"], **around: Any) -> Float[Tensor, "b heads n n"]:
        """Returns the attention weights inside this block for its input `x`."""
        return self.attn.maps(self.norm1(x), **around)


def encoder_block(
    embed_dim: int,
    num_heads: int,
    hidden_dim: int,
    *,
    activation: Callable[[], nn.Module] = nn.GELU,
    norm_eps: float = 1e-6,
    qkv_bias: bool = True,
    causal: bool = False,
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> EncoderBlock:
    """Returns the plain block: `Attention` and `Mlp`, of `hidden_dim` inside."""
    attn = Attention(
        embed_dim, num_heads, qkv_bias=qkv_bias, dropout=attention_dropout, proj_dropout=dropout, causal=causal
    )
    mlp = Mlp(embed_dim, hidden_dim, activation=activation, dropout=dropout)
    return EncoderBlock(embed_dim, attn, mlp, norm_eps=norm_eps, drop_path=drop_path)
