"""Operators of a user's own: on every backend, with a gradient, and the errors."""

import numpy as np
import pytest

import mithril as ml
from mithril.errors import OperatorError
from mithril.logical.register import register_op
from mithril.models import Add, IOKey, Model
from mithril.ops.table import HELPERS, OPS

BACKENDS = ["NumpyBackend", "TorchBackend", "JaxBackend", "MlxBackend"]


@pytest.fixture(autouse=True)
def table():
    """The table without the test's operators, after the test."""
    yield
    HELPERS.pop(("np", "softsign_gradient"), None)
    for name in ("scaled_softsign", "gaussian"):
        OPS.pop(name, None)
        for backend in ("torch", "jax", "mlx", "numpy"):
            HELPERS.pop((backend, name), None)


def scaled_softsign(input, scale=1.0):
    return scale * input / (1 + xp.abs(input))


def torch_softsign(input, scale=1.0):
    return scale * F.softsign(input)


def softsign_gradient(grad, input, output, scale=1.0):
    return (grad * scale / np.square(1 + np.abs(input)),)


@pytest.mark.parametrize("name", BACKENDS)
def test_functions_per_backend(name):
    cls = register_op(
        "scaled_softsign",
        attributes={"scale": 1.0},
        implementations={"any": scaled_softsign, "torch": torch_softsign},
        gradient=softsign_gradient,
    )
    check(cls(scale=3.0), getattr(ml, name)(), lambda x: 3 * x / (1 + abs(x)), lambda x: 3 / (1 + abs(x)) ** 2)


@pytest.mark.parametrize("name", BACKENDS)
def test_templates(name):
    cls = register_op(
        "gaussian",
        implementations={"any": "{xp}.exp(-{input} ** 2)"},
        gradient={"input": "-2 * {grad} * {input} * {output}"},
    )
    check(cls(), getattr(ml, name)(), lambda x: np.exp(-(x**2)), lambda x: -2 * x * np.exp(-(x**2)))


def check(operator, backend, value, slope):
    """The operator behind a sum: values, and the gradient of what was added."""
    model = Model()
    model |= Add()(left="input", right="offset", output="sum")
    model |= operator(input="sum", output=IOKey("output"))
    shapes = {"input": (2, 4), "offset": (4,)}
    compiled = ml.compile(model, backend, shapes=shapes, data_keys={"input"})
    rng = np.random.default_rng(0)
    offset, data = rng.standard_normal(4), rng.standard_normal((2, 4))
    outputs, grads = compiled.evaluate_all(
        {"offset": backend.array(offset)},
        {"input": backend.array(data)},
        output_gradients={"output": backend.ones(2, 4)},
    )
    np.testing.assert_allclose(backend.to_numpy(outputs["output"]), value(data + offset), rtol=1e-5, atol=1e-5)
    expected = slope(data + offset).sum(0)
    np.testing.assert_allclose(backend.to_numpy(grads["offset"]), expected, rtol=1e-5, atol=1e-5)


def test_errors():
    with pytest.raises(OperatorError, match="There is an operator 'relu' already"):
        register_op("relu", implementations={"any": "{input}"})
    with pytest.raises(
        OperatorError, match=r"implementations are for torch, jax, mlx, numpy or any, not \['tensorflow'\]"
    ):
        register_op("mine", implementations={"tensorflow": "{input}"})
