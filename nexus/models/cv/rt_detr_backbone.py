"""The backbone of RT-DETR: ResNet-vd, which keeps what strided convolutions throw away.

He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2019, Fig. 2.
https://arxiv.org/abs/1812.01187
The stem is three 3x3 convolutions, and a shortcut that halves the map averages before its 1x1 convolution.

Dims: b batch, c channels, h w pixels, d width.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.layers import collect
from nexus.layers.conv_norm import ConvNorm
from nexus.layers.frozen_norm import freeze_batch_norm
from nexus.models.cv.rcnn.pyramid import backbone_maps, backbone_parts, make_backbone


class Depth(NamedTuple):
    """Size of a ResNet: its kind of block, and the blocks of each stage."""

    bottleneck: bool
    num_layers: tuple[int, int, int, int]


DEPTHS = {
    "resnet18": Depth(False, (2, 2, 2, 2)),
    "resnet34": Depth(False, (3, 4, 6, 3)),
    "resnet50": Depth(True, (3, 4, 6, 3)),
    "resnet101": Depth(True, (3, 4, 23, 3)),
}
STEM_DIM = 64


class Block(nn.Module):
    """Two or three convolutions beside a shortcut; the first block of every stage has a convolution in it."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, *, bottleneck: bool, project: bool) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        if bottleneck:
            width = out_dim // 4
            convs = [
                ConvNorm(in_dim, width, 1, act=relu),
                ConvNorm(width, width, 3, stride, act=relu),
                ConvNorm(width, out_dim, 1),
            ]
        else:
            convs = [ConvNorm(in_dim, out_dim, 3, stride, act=relu), ConvNorm(out_dim, out_dim, 3)]
        self.convs = nn.Sequential(*convs)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.short = ConvNorm(in_dim, out_dim, 1) if project else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.act(self.convs(x) + self.short(self.pool(x)))


class ResNetVD(nn.Module):
    """Gives the maps of strides 8, 16 and 32.

    Args:
        depth: Its size.
        in_channels: Of the images.
        num_frozen_stages: How many parts are not trained: 1 is the stem, 2 also the first stage, ...
        stem_dim: Channels of the stem and of the first stage; the paper's are 64.
    """

    def __init__(self, depth: Depth, in_channels: int, num_frozen_stages: int, stem_dim: int = STEM_DIM) -> None:
        super().__init__()
        relu, half = nn.ReLU(inplace=True), stem_dim // 2
        self.stem = nn.Sequential(
            ConvNorm(in_channels, half, 3, 2, act=relu),
            ConvNorm(half, half, 3, act=relu),
            ConvNorm(half, stem_dim, 3, act=relu),
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        dims = [stem_dim * 2**stage * (4 if depth.bottleneck else 1) for stage in range(4)]
        self.dims = tuple(dims[1:])
        self.stages = nn.ModuleList()
        in_dim = stem_dim
        for stage, (dim, num_blocks) in enumerate(zip(dims, depth.num_layers)):
            blocks = []
            for index in range(num_blocks):
                stride = 2 if stage and not index else 1
                blocks.append(Block(in_dim, dim, stride, bottleneck=depth.bottleneck, project=not index))
                in_dim = dim
            self.stages.append(nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for part in [self.stem, *self.stages][:num_frozen_stages]:
            part.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, checkpointing: bool = False
    ) -> list[Float[Tensor, "b _ _ _"]]:
        x, maps = self.maxpool(self.stem(images)), []
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            x = collect(stage, x, checkpointing=checkpointing, keep=False)[-1]
            maps.append(x)
        return maps[1:]


class RegisteredBackbone(nn.Module):
    """Gives the maps of strides 8, 16 and 32 of any registered model that has them.

    Raises:
        ValueError: The model is unknown, or has no such maps.
    """

    def __init__(self, backbone: str | Mapping[str, Any], in_channels: int) -> None:
        super().__init__()
        maps = backbone_maps(backbone, in_channels)
        if maps.tokens:
            raise ValueError(f"backbone {backbone} gives tokens; RT-DETR reads three maps, as resnet50 gives.")
        self.index, self.dims = maps.index[1:], maps.dims[1:]
        self.body: NexusModule = make_backbone(backbone, in_channels)
        for key, parameter in self.body.named_parameters():
            if key in maps.unread:
                parameter.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "b c h w"], *, checkpointing: bool = False
    ) -> list[Float[Tensor, "b _ _ _"]]:
        del checkpointing  # the body has its own switch
        features = self.body(images)["features"]
        return [features[place] for place in self.index]


def build_backbone(
    backbone: str | Mapping[str, Any], in_channels: int, *, norm: Literal["batch", "frozen"], num_frozen_stages: int
) -> ResNetVD | RegisteredBackbone:
    """Returns the ResNet-vd of that name in the paper, or the registered model.

    Args:
        backbone: The name, or a mapping with `name` and changes: `hidden_dim` of a ResNet-vd, any field of another.
        in_channels: Of the images.
        norm: "frozen" for batch normalization that is never trained.
        num_frozen_stages: Parts of a ResNet-vd that are not trained.

    Raises:
        ValueError: The backbone is unknown, has no such maps, or a change is none of its fields.
    """
    name, changes = backbone_parts(backbone)
    if name in DEPTHS:
        width = changes.pop("hidden_dim", STEM_DIM)
        if changes:
            raise ValueError(f"backbone sets {', '.join(changes)}; of the ResNet-vd {name} only hidden_dim can change.")
        if width < 2 or width % 2:
            raise ValueError(f"backbone sets hidden_dim to {width}; the stem halves it, so it must be even.")
        body = ResNetVD(DEPTHS[name], in_channels, num_frozen_stages, width)
    else:
        body = RegisteredBackbone(backbone, in_channels)
    if norm == "frozen":
        freeze_batch_norm(body)
    return body


def sincos_positions(height: int, width: int, embed_dim: int, like: Tensor) -> Float[Tensor, "1 n d"]:
    """Returns sines and cosines of the row, then of the column, of each place of a map, row by row."""
    quarter = embed_dim // 4
    speed = 10_000.0 ** -(torch.arange(quarter, device=like.device, dtype=torch.float64) / quarter)
    rows = torch.arange(height, device=like.device).repeat_interleave(width)[:, None] * speed
    columns = torch.arange(width, device=like.device).repeat(height)[:, None] * speed
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1).to(like.dtype)[None]
