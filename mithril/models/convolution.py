"""Convolutions and pooling. Images are (n, c, h, w), signals (n, c, w).

Dims: n batch, i input channels, o output channels, c channels, h w pixels.
"""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter, switch, whole
from mithril.ops.rules import spread

Sizes = int | Sequence[int]
Layer = TypeVar("Layer", bound=Model)


def check(
    layer: str, rank: int, mistaken: tuple[object, ...], out_channels: int, kernel_size: Sizes, stride: Sizes,
    dilation: Sizes, groups: int, use_bias: bool,
) -> None:  # fmt: skip
    """Checks the settings of a convolution where a first-day user mixes them up.

    Raises:
        TypeError: more than two settings without a name, as `torch.nn.Conv2d(3, 16, 3)` takes them.
        ValueError: a setting of another type, or below 1.
    """
    if mistaken:
        channels, kernel = (kernel_size, mistaken[0]) if len(mistaken) == 1 else ("16", "3")
        raise TypeError(
            f"{layer} takes out_channels and kernel_size; name all others. The input's channels are deduced from the"
            f" data: write {layer}({channels}, {kernel}), or {layer}({out_channels}, {kernel_size}, stride=...)."
        )
    whole(layer, out_channels=out_channels, groups=groups)
    for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        for size in spread(value, rank, name):
            whole(layer, **{name: size})
    switch(layer, "use_bias", use_bias)


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
        *mistaken: object,
        stride: Sizes = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        use_bias: bool = True,
        name: str | None = None,
    ):
        check(type(self).__name__, self.rank, mistaken, out_channels, kernel_size, stride, dilation, groups, use_bias)
        if out_channels % groups:
            raise ValueError(f"out_channels is {out_channels}; it must be a multiple of groups {groups}.")
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
        *mistaken: object,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        use_bias: bool = True,
        name: str | None = None,
    ):
        check(type(self).__name__, self.rank, mistaken, out_channels, kernel_size, stride, dilation, groups, use_bias)
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
