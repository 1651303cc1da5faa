"""Normalization. Parameters bear torch's names: `weight` is the scale, `bias` the shift.

Dims: n batch, c channels, d width.
"""

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter


class BatchNorm2D(Model):
    """Batch normalization over all axes but the channels, (n, c, ...). Ioffe & Szegedy 2015. https://arxiv.org/abs/1502.03167

    Its running statistics `running_mean` and `running_var` are state: in training they are returned anew, with
    `inference=True` they are read.

    Args:
        channels: c; None is deduced from the input.
        momentum: Weight of a new batch in the running statistics.
        eps: Added to the variance.
        affine: Whether `weight` and `bias` are learned.
    """

    def __init__(
        self,
        channels: int | None = None,
        momentum: float = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        name: str | None = None,
    ):
        super().__init__(name)
        wires = {key: parameter(key, [channels]) for key in ("weight", "bias")} if affine else {}
        wires |= {key: IOKey(f"running_{key}", shape=[channels]) for key in ("mean", "var")}
        norm = op("batch_norm_training", momentum=momentum, eps=eps)
        self |= norm(input="input", **wires, output=IOKey("output"))


class BatchNorm1D(BatchNorm2D):
    __doc__ = BatchNorm2D.__doc__


class LayerNorm(Model):
    """Normalizes over the last `dims` axes. Ba et al. 2016. https://arxiv.org/abs/1607.06450

    Keys: `input`, `weight`, `bias`, `output`.
    """

    def __init__(
        self, eps: float = 1e-5, dims: int = 1, affine: bool = True, use_bias: bool = True, name: str | None = None
    ):
        super().__init__(name)
        keys = () if not affine else ("weight", "bias") if use_bias else ("weight",)
        wires = {key: parameter(key) for key in keys}
        self |= op("layer_norm", dims=dims, eps=eps)(input="input", **wires, output=IOKey("output"))


class GroupNorm(Model):
    """Normalizes groups of channels of (n, c, ...). Wu & He 2018. https://arxiv.org/abs/1803.08494"""

    def __init__(self, num_groups: int, eps: float = 1e-5, affine: bool = True, name: str | None = None):
        super().__init__(name)
        wires = {key: parameter(key) for key in ("weight", "bias")} if affine else {}
        self |= op("group_norm", num_groups=num_groups, eps=eps)(input="input", **wires, output=IOKey("output"))


class RMSNorm(Model):
    """Divides by the root mean square of the last axis. Zhang & Sennrich 2019. https://arxiv.org/abs/1910.07467"""

    def __init__(self, eps: float = 1e-6, affine: bool = True, name: str | None = None):
        super().__init__(name)
        wires = {"weight": parameter("weight")} if affine else {}
        self |= op("rms_norm", eps=eps)(input="input", **wires, output=IOKey("output"))
