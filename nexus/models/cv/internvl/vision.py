"""InternViT, the image encoder of InternVL, and the way of its tokens to a language model.

Chen et al., "InternVL: Scaling up Vision Foundation Models and Aligning for Generic Visual-Linguistic Tasks", 2023.
https://arxiv.org/abs/2312.14238 (Sec. 3.1); pixel shuffle: InternVL 1.5, https://arxiv.org/abs/2404.16821 (Sec. 3.1).

Dims: b tiles, c channels, h w pixels or places, n tokens, d width, e one head's width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import PatchEmbed, collect, drop_path_rates, resample_position_embedding
from nexus.layers.drop_path import DropPath
from nexus.layers.layer_scale import LayerScale
from nexus.layers.mlp import Mlp
from nexus.models.cv.internvl.config import InternVLConfig


def norm_of(config: InternVLConfig) -> nn.Module:
    """Returns the norm of a tower's tokens."""
    kind = nn.LayerNorm if config.norm == "layer" else nn.RMSNorm
    return kind(config.embed_dim, eps=config.norm_eps)


class VisionAttention(nn.Module):
    """Self-attention whose queries and keys may be normalized over all heads together."""

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.q_norm = nn.RMSNorm(width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        heads = [
            rearrange(one, "b n (heads e) -> b heads n e", heads=self.num_heads)
            for one in (self.q_norm(query), self.k_norm(key), value)
        ]
        return self.proj(rearrange(F.scaled_dot_product_attention(*heads), "b heads n e -> b n (heads e)"))


class VisionBlock(nn.Module):
    """Attention, then an MLP, each on normalized tokens, scaled per channel, beside a shortcut."""

    def __init__(self, config: InternVLConfig, drop_path: float) -> None:
        super().__init__()
        width = config.embed_dim
        self.norm1, self.norm2 = norm_of(config), norm_of(config)
        self.attn = VisionAttention(config)
        self.mlp = Mlp(width, config.mlp_dim)
        self.ls1, self.ls2 = LayerScale(width, config.layer_scale), LayerScale(width, config.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class InternViT(nn.Module):
    """A Vision Transformer without a norm at its end."""

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
        self.grid = self.patch_embed.grid((config.image_size, config.image_size))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.grid[0] * self.grid[1], width) * 0.02)
        rates = drop_path_rates(config.drop_path_rate, config.num_layers)
        self.blocks = nn.ModuleList([VisionBlock(config, rate) for rate in rates])

    def forward(self, tiles: Float[Tensor, "b c h w"], checkpointing: bool = False) -> list[Float[Tensor, "b n d"]]:
        """Returns the class token and the patches before the first block and after each."""
        patches = self.patch_embed(tiles)
        positions = resample_position_embedding(
            self.pos_embed, self.grid, self.patch_embed.grid(tiles.shape[-2:]), num_prefix=1, antialias=False
        )
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + positions
        return [tokens, *collect(self.blocks, tokens, checkpointing=checkpointing, keep=True)]


def pixel_shuffle(x: Float[Tensor, "b h w d"], side: int, version: int = 2) -> Float[Tensor, "b h2 w2 d2"]:
    """Returns a map whose places are `side` x `side` neighbours of `x`, their channels row by row, one after another.

    Args:
        x: A map.
        side: Neighbours down and across.
        version: 1 swaps rows and columns of the result, as the first release did.
    """
    order = "b h w" if version == 2 else "b w h"
    return rearrange(x, f"b (h down) (w across) d -> {order} (down across d)", down=side, across=side)


class Projector(nn.Sequential):
    """From shuffled tokens of the image to tokens of the language model (InternVL 1.5, Sec. 3.1)."""

    def __init__(self, config: InternVLConfig) -> None:
        wide, width = config.embed_dim * config.shuffle**2, config.language["hidden_size"]
        super().__init__(nn.LayerNorm(wide), nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width))
