"""Blocks of detectors whose stages split their channels and gather what arises: YOLOv8, YOLOv10, YOLO-World.

Wang et al., "CSPNet", 2019, https://arxiv.org/abs/1911.11929; gathered as in ELAN (Wang et al., 2022,
https://arxiv.org/abs/2211.04800). Pyramid pooling: He et al., 2014, https://arxiv.org/abs/1406.4729.

Dims: b images, c d channels, h w places of a map.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.conv_norm import ConvNorm

NORM_EPS, NORM_MOMENTUM = 1e-3, 0.03
POOL_KERNEL, POOL_ROUNDS = 5, 3


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


class CSPStage(nn.Module):
    """Half of the channels goes through blocks one after another; all that arises is gathered.

    Args:
        in_dim: Channels that come.
        dim: Channels that leave.
        blocks: Each keeps `dim // 2` channels.
    """

    def __init__(self, in_dim: int, dim: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = conv_unit(in_dim, 2 * half)
        self.conv2 = conv_unit((2 + len(blocks)) * half, dim)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.conv2(torch.cat(gathered(self.conv1(x), self.blocks), dim=1))


def gathered(x: Float[Tensor, "b d h w"], blocks: Iterable[nn.Module]) -> list[Float[Tensor, "b _ h w"]]:
    """Returns both halves of the channels, and what each block makes of the last."""
    parts = list(x.chunk(2, dim=1))
    for block in blocks:
        parts.append(block(parts[-1]))
    return parts


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
