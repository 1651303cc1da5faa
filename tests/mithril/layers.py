"""The few layers that the tests of the compiler compose; those of mithril.models have tests of their own."""

import numpy as np

import mithril as ml
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


def compare(backend, model, values, expected, gradients=None, seeds=None):
    """Hold outputs, and the gradients of their sum weighted with `seeds`, to those expected; all by key."""
    gradients = gradients or {}
    shapes = {key: np.shape(value) for key, value in values.items()}
    compiled = ml.compile(model, backend, shapes=shapes, trainable_keys=list(gradients))
    arrays = {key: backend.array(value) for key, value in values.items()}
    tolerance = {"rtol": backend.tolerance, "atol": backend.tolerance}
    if gradients:
        seeds = {key: np.asarray(seed, np.float64) for key, seed in (seeds or {}).items()}
        outputs, found = compiled.evaluate_all(arrays, {}, seeds)
        for key, gradient in gradients.items():
            np.testing.assert_allclose(backend.to_numpy(found[key]), gradient, err_msg=key, **tolerance)
    else:
        outputs = compiled.evaluate(arrays, {})
    for key, value in expected.items():
        np.testing.assert_allclose(backend.to_numpy(outputs[key]), value, err_msg=key, **tolerance)
