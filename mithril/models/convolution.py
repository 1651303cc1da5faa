"""Convolutions and pooling. Images are (n, c, h, w), signals (n, c, w).

Dims: n batch, i input channels, o output channels, c channels, h w pixels.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter
from mithril.ops.rules import spread

Sizes = int | Sequence[int]
Layer = TypeVar("Layer", bound=Model)


class Convolution(Model):
    """Cross-correlation with a learned kernel.

    Keys: `input`, `weight` (o, i / groups, kernel...), `bias` (o), `output`.

    Args:
        out_channels: o.
        kernel_size: One number, or one per spatial axis.
        stride: Step of the kernel.
        padding: Zeros added on both sides, or "same" (at stride 1) or "valid".
        dilation: Distance of the kernel's taps.
        groups: Groups of channels that do not see each other; o and i are multiples of it.
        use_bias: Whether there is a bias.
    """

    rank: ClassVar[int] = 2

    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        use_bias: bool = True,
        name: str | None = None,
    ):
        super().__init__(name)
        weight = parameter("weight", [out_channels, None, *spread(kernel_size, self.rank, "kernel_size")])
        wires = {"bias": parameter("bias", [out_channels])} if use_bias else {}
        conv = op(f"conv{self.rank}d", stride=stride, padding=padding, dilation=dilation, groups=groups)
        self |= conv(input="input", weight=weight, **wires, output=IOKey("output"))


class TransposedConvolution(Model):
    """The transpose of a convolution, which enlarges.

    Keys: `input`, `weight` (i, o / groups, kernel...), `bias` (o), `output`.

    Args: as of `Convolution`; `output_padding` is added to one side of the output.
    """

    rank: ClassVar[int] = 2

    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        use_bias: bool = True,
        name: str | None = None,
    ):
        super().__init__(name)
        if out_channels % groups:
            raise ValueError(f"out_channels is {out_channels}; it must be a multiple of groups {groups}.")
        weight = parameter("weight", [None, out_channels // groups, *spread(kernel_size, self.rank, "kernel_size")])
        wires = {"bias": parameter("bias", [out_channels])} if use_bias else {}
        settings = {"stride": stride, "padding": padding, "output_padding": output_padding}
        conv = op(f"conv_transpose{self.rank}d", **settings, dilation=dilation, groups=groups)
        self |= conv(input="input", weight=weight, **wires, output=IOKey("output"))


def of_rank(layer: type[Layer], rank: int) -> type[Layer]:
    """Returns the layer for `rank` spatial axes, which ends its name: `Convolution2D`."""
    return type(f"{layer.__name__}{rank}D", (layer,), {"__doc__": layer.__doc__, "__module__": __name__, "rank": rank})


Convolution1D, Convolution2D, Convolution3D = (of_rank(Convolution, rank) for rank in (1, 2, 3))
TransposedConvolution1D, TransposedConvolution2D = (of_rank(TransposedConvolution, rank) for rank in (1, 2))
