"""The few layers that the tests of the compiler compose; those of mithril.models have tests of their own."""

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.logical.primitive import primitive_class
from mithril.ops.table import OPS


def op(name, **attributes):
    """An operator of the table as a model."""
    return primitive_class(OPS[name])(**attributes)


def parameter(name, shape=None):
    return IOKey(name, shape=shape, trainable=True)


class Linear(Model):
    def __init__(self, dimension, name=None):
        super().__init__(name)
        weight, bias = parameter("weight", [dimension, None]), parameter("bias", [dimension])
        self |= op("linear")(input="input", weight=weight, bias=bias, output=IOKey("output"))


class Convolution2D(Model):
    def __init__(self, out_channels, kernel_size, stride=1, padding=0, name=None):
        super().__init__(name)
        weight = parameter("weight", [out_channels, None, kernel_size, kernel_size])
        bias = parameter("bias", [out_channels])
        conv = op("conv2d", stride=stride, padding=padding)
        self |= conv(input="input", weight=weight, bias=bias, output=IOKey("output"))


class BatchNorm2D(Model):
    def __init__(self, name=None):
        super().__init__(name)
        state = {"mean": IOKey("running_mean"), "var": IOKey("running_var")}
        wires = {"weight": parameter("weight"), "bias": parameter("bias"), **state}
        self |= op("batch_norm_training")(input="input", **wires, output=IOKey("output"))


class LayerNorm(Model):
    def __init__(self, name=None):
        super().__init__(name)
        wires = {"weight": parameter("weight"), "bias": parameter("bias")}
        self |= op("layer_norm")(input="input", **wires, output=IOKey("output"))
