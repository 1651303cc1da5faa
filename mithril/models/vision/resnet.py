"""Residual networks. He et al., "Deep Residual Learning for Image Recognition", 2015. https://arxiv.org/abs/1512.03385

Names and numbers are torchvision's: the stride of a bottleneck stands in its 3x3 convolution ("ResNet v1.5").
"""

from collections.abc import Sequence

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op
from mithril.models.convolution import Convolution2D
from mithril.models.linear import Linear
from mithril.models.normalization import BatchNorm2D


def residual_block(width: int, stride: int, bottleneck: bool, project: bool, name: str) -> Model:
    """Two 3x3 convolutions, or a 3x3 one between two 1x1, beside a shortcut (Fig. 5).

    Args:
        width: Channels of the 3x3 convolutions; a bottleneck gives four times as many.
        project: Whether the shortcut is a convolution, because shapes change.
    """
    block = Model(name=name)
    out_channels = 4 * width if bottleneck else width
    plan = (
        [(width, 1, 1), (width, 3, stride), (out_channels, 1, 1)] if bottleneck else [(width, 3, stride), (width, 3, 1)]
    )
    for i, (channels, kernel, step) in enumerate(plan, start=1):
        conv = Convolution2D(channels, kernel, stride=step, padding=kernel // 2, use_bias=False, name=f"conv{i}")
        block += conv(input="input") if i == 1 else conv
        block += BatchNorm2D(channels, name=f"bn{i}")
        if i < len(plan):
            block += op("relu")
    shortcut = "input"
    if project:
        conv = Convolution2D(out_channels, 1, stride=stride, use_bias=False, name="downsample_0")
        block |= conv(input="input", output="projected")
        block |= BatchNorm2D(out_channels, name="downsample_1")(input="projected", output="shortcut")
        shortcut = "shortcut"
    block |= op("add")(left=block.cout, right=shortcut)
    block += op("relu")(output=IOKey("output"))
    return block


def resnet(
    layers: Sequence[int], bottleneck: bool, num_classes: int = 1000, width: int = 64, name: str = "resnet"
) -> Model:
    """A residual network: `input` (n, c, h, w) to `output` (n, num_classes).

    Args:
        layers: Blocks of each stage.
        bottleneck: Whether blocks are bottlenecks.
        width: Channels of the first stage; each later stage has twice as many.
    """
    model = Model(name=name)
    model += Convolution2D(width, 7, stride=2, padding=3, use_bias=False, name="conv1")(input="input")
    model += BatchNorm2D(width, name="bn1")
    model += op("relu")
    model += op("max_pool2d", kernel_size=3, stride=2, padding=1)
    for stage, count in enumerate(layers):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            project = i == 0 and (stride > 1 or bottleneck)
            model += residual_block(width * 2**stage, stride, bottleneck, project, name=f"layer{stage + 1}_{i}")
    model += op("adaptive_avg_pool2d", output_size=1)
    model += op("flatten", start_dim=1)
    model += Linear(num_classes, name="fc")(output=IOKey("output"))
    return model


def resnet18(num_classes: int = 1000) -> Model:
    """ResNet-18 (Table 1), 11.7 M parameters. See `resnet`."""
    return resnet((2, 2, 2, 2), False, num_classes, name="resnet18")


def resnet34(num_classes: int = 1000) -> Model:
    """ResNet-34 (Table 1), 21.8 M parameters. See `resnet`."""
    return resnet((3, 4, 6, 3), False, num_classes, name="resnet34")


def resnet50(num_classes: int = 1000) -> Model:
    """ResNet-50 (Table 1), 25.6 M parameters. See `resnet`."""
    return resnet((3, 4, 6, 3), True, num_classes, name="resnet50")


def resnet101(num_classes: int = 1000) -> Model:
    """ResNet-101 (Table 1), 44.5 M parameters. See `resnet`."""
    return resnet((3, 4, 23, 3), True, num_classes, name="resnet101")


def resnet152(num_classes: int = 1000) -> Model:
    """ResNet-152 (Table 1), 60.2 M parameters. See `resnet`."""
    return resnet((3, 8, 36, 3), True, num_classes, name="resnet152")
