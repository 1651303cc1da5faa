"""The blocks of YOLOv10: what backbone, neck and head are made of.

Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", 2024. https://arxiv.org/abs/2405.14458
CSP blocks: Wang et al., "CSPNet", 2019, https://arxiv.org/abs/1911.11929, gathered as in ELAN, 2022,
https://arxiv.org/abs/2211.04800. SPP: He et al., 2014, https://arxiv.org/abs/1406.4729.

Dims: b images, c d channels, h w places of a map.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.conv_norm import ConvNorm

NORM_EPS, NORM_MOMENTUM = 1e-3, 0.03
POOL_KERNEL, POOL_ROUNDS = 5, 3
HEAD_DIM = 64


def conv_unit(
    in_dim: int, dim: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: bool = True
) -> ConvNorm:
    """A convolution, its normalization, and SiLU."""
    activation = nn.SiLU() if act else None
    return ConvNorm(in_dim, dim, kernel, stride, groups=groups, act=activation, eps=NORM_EPS, momentum=NORM_MOMENTUM)


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with the input added."""

    def __init__(self, dim: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = conv_unit(dim, dim, 3)
        self.conv2 = conv_unit(dim, dim, 3)
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


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


class Stage(nn.Module):
    """Half of the channels goes through blocks one after another; all that arises is gathered.

    Args:
        in_dim: Channels that come.
        dim: Channels that leave.
        depth: Number of blocks.
        shortcut: Whether plain blocks add their input.
        compact: Whether the blocks are compact inverted ones, which always do.
        large_kernel: Whether those have a 7x7 convolution.
    """

    def __init__(
        self, in_dim: int, dim: int, depth: int, *, shortcut: bool, compact: bool = False, large_kernel: bool = False
    ) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = conv_unit(in_dim, 2 * half)
        self.conv2 = conv_unit((2 + depth) * half, dim)
        self.blocks = nn.ModuleList(
            [
                CompactBlock(half, large_kernel=large_kernel) if compact else Bottleneck(half, shortcut=shortcut)
                for _ in range(depth)
            ]
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        parts = list(self.conv1(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.conv2(torch.cat(parts, dim=1))


class Downsample(nn.Module):
    """Channels first, then space: a 1x1 convolution, and a depthwise one of stride 2 (Sec. 3.2)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1 = conv_unit(in_dim, dim)
        self.conv2 = conv_unit(dim, dim, 3, 2, groups=dim, act=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        return self.conv2(self.conv1(x))


class PyramidPooling(nn.Module):
    """The map, and its maxima over ever larger surroundings: pooling of 5, 9 and 13 by three poolings of 5."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = conv_unit(dim, dim // 2)
        self.conv2 = conv_unit(dim // 2 * (1 + POOL_ROUNDS), dim)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        maps = [self.conv1(x)]
        for _ in range(POOL_ROUNDS):
            maps.append(F.max_pool2d(maps[-1], POOL_KERNEL, 1, POOL_KERNEL // 2))
        return self.conv2(torch.cat(maps, dim=1))


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
