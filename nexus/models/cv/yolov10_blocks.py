"""The blocks of YOLOv10: what backbone, neck and head are made of.

Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", 2024. https://arxiv.org/abs/2405.14458
Dims: b images, c d channels, h w places of a map.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.conv_norm import ConvNorm
from nexus.layers.csp import conv_unit

HEAD_DIM = 64


class LargeDepthwise(nn.Module):
    """A 7x7 depthwise convolution that a 3x3 one helps to train (Sec. 3.3, large-kernel convolution)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.large = conv_unit(dim, dim, 7, groups=dim, act=False)
        self.small: nn.Module | None = conv_unit(dim, dim, 3, groups=dim, act=False)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        return F.silu(self.large(x) if self.small is None else self.large(x) + self.small(x))

    def fold(self) -> None:
        """Puts the small convolution into the middle of the large one."""
        if not isinstance(self.small, ConvNorm):
            return
        self.large.fold()
        self.small.fold()
        large, small = self.large.conv, self.small.conv
        assert large.bias is not None
        assert small.bias is not None
        with torch.no_grad():
            large.weight += F.pad(small.weight, (2, 2, 2, 2))
            large.bias += small.bias
        self.small = None


class CompactBlock(nn.Module):
    """Compact inverted block: depthwise convolutions mix places, 1x1 convolutions mix channels (Fig. 3 b)."""

    def __init__(self, dim: int, *, large_kernel: bool) -> None:
        super().__init__()
        wide = 2 * dim
        middle = LargeDepthwise(wide) if large_kernel else conv_unit(wide, wide, 3, groups=wide)
        self.layers = nn.Sequential(
            conv_unit(dim, dim, 3, groups=dim),
            conv_unit(dim, wide),
            middle,
            conv_unit(wide, dim),
            conv_unit(dim, dim, 3, groups=dim),
        )

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        return x + self.layers(x)


class Downsample(nn.Module):
    """Channels first, then space: a 1x1 convolution, and a depthwise one of stride 2 (Sec. 3.2)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1 = conv_unit(in_dim, dim)
        self.conv2 = conv_unit(dim, dim, 3, 2, groups=dim, act=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        return self.conv2(self.conv1(x))


class MapAttention(nn.Module):
    """Self-attention between the places of a map; queries and keys have half the width of values (Sec. 3.3).

    The values' depthwise convolution tells the places apart.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads = max(1, dim // HEAD_DIM)
        if dim % self.num_heads:
            raise ValueError(f"Partial self-attention is {dim} wide; above {HEAD_DIM} it must be a multiple of it.")
        self.value_dim = dim // self.num_heads
        self.key_dim = self.value_dim // 2
        self.qkv = conv_unit(dim, dim + 2 * self.num_heads * self.key_dim, act=False)
        self.proj = conv_unit(dim, dim, act=False)
        self.position = conv_unit(dim, dim, 3, groups=dim, act=False)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        # Split before the axes are turned: the gradient then reaches the normalization with its axes in order. torch
        # 2.13 gets it wrong in evaluation, for a batch of one, when the stride of that batch is not the natural one.
        heads = self.qkv(x).flatten(2).unflatten(1, (self.num_heads, -1))
        query, key, value = heads.split([self.key_dim, self.key_dim, self.value_dim], dim=2)
        mixed = F.scaled_dot_product_attention(query.mT, key.mT, value.mT).mT
        return self.proj(mixed.reshape(x.shape) + self.position(value.reshape(x.shape)))


class PartialAttention(nn.Module):
    """Attention and an MLP for one half of the channels; the other passes by (Fig. 3 c)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = conv_unit(dim, 2 * half)
        self.conv2 = conv_unit(2 * half, dim)
        self.attention = MapAttention(half)
        self.mlp = nn.Sequential(conv_unit(half, 2 * half), conv_unit(2 * half, half, act=False))

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        still, moving = self.conv1(x).chunk(2, dim=1)
        moving = moving + self.attention(moving)
        moving = moving + self.mlp(moving)
        return self.conv2(torch.cat([still, moving], dim=1))
