"""Models of timm and transformers, imported and equal to PyTorch."""

import numpy as np
import pytest
import torch

import mithril as ml
from mithril.interop.exporting import named_leaves
from tests.mithril.interop.foreign import TIMM, TRANSFORMERS, make

QUICK = {"convnext", "densenet", "coatnet", "segformer", "dpt", "beit"}
"""Run by default; all others are marked slow."""

ALL = (*TIMM, *TRANSFORMERS)


def slow_but(quick, names):
    """Parameters of a test, all but some of them slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.fixture
def build(timm, transformers):
    """A function from a name to a module and its inputs by position."""
    return lambda name: make(name, timm, transformers)


def leaves(outputs):
    """Tensors that a module returns, by the imported model's names, as NumPy arrays."""
    return {name: leaf.detach().numpy() for name, leaf in named_leaves(outputs) if isinstance(leaf, torch.Tensor)}


def by_name(inputs, keys):
    return inputs if isinstance(inputs, dict) else dict(zip(keys, inputs))


def expected_of(module, inputs):
    with torch.no_grad():
        return leaves(module(**inputs) if isinstance(inputs, dict) else module(*inputs))


def difference(found, expected):
    """The largest difference, relative to the largest value of each output."""
    assert found.keys() == expected.keys()
    return max(np.abs(found[k] - expected[k]).max() / np.abs(expected[k]).max() for k in expected)


def check(name, build, backends, tolerance, dtype=torch.float32):
    """Import a model and compare what it computes on these backends with PyTorch."""
    module, inputs = build(name)
    module = module.to(dtype)
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in by_name(inputs, range(9)).items()}
    inputs = cast if isinstance(inputs, dict) else tuple(cast.values())
    expected = expected_of(module, inputs)
    model, params = ml.from_torch(module, inputs)
    for backend in backends:
        compiled = ml.compile(model, backend, inference=True)
        data = {k: v.numpy() for k, v in by_name(inputs, compiled.data_keys).items()}
        outputs = compiled.evaluate(params, data)
        found = {k: backend.to_numpy(v) for k, v in outputs.items()}
        assert difference(found, expected) < tolerance, backend


@pytest.mark.parametrize("name", slow_but(QUICK, ALL))
def test_equal_on_numpy_and_torch(name, build):
    check(name, build, [ml.NumpyBackend(), ml.TorchBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit"}, sorted(QUICK)))
def test_equal_on_mlx(name, build):
    pytest.importorskip("mlx.core")
    check(name, build, [ml.MlxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit"}, ALL))
def test_equal_on_jax(name, build):
    pytest.importorskip("jax")
    check(name, build, [ml.JaxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit", "bert"}, ["convnext", "densenet", "beit", "gmlp", "bert"]))
def test_equal_in_float64(name, build):
    check(name, build, [ml.NumpyBackend(dtype=ml.float64), ml.TorchBackend(dtype=ml.float64)], 1e-9, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beit", "coatnet"])
def test_equal_in_float64_on_jax(name, build):
    pytest.importorskip("jax")
    check(name, build, [ml.JaxBackend(dtype=ml.float64)], 1e-9, torch.float64)


def gradients(name, build, backend):
    """Gradients of the sum of squares by PyTorch and by a backend."""
    module, inputs = build(name)
    module, inputs = module.double(), tuple(value.double() for value in inputs)
    model, params = ml.from_torch(module, inputs)
    compiled = ml.compile(model, backend, inference=True)
    outputs = module(*inputs)
    outputs.square().sum().backward()
    data = {compiled.data_keys[0]: inputs[0].numpy()}
    found = compiled.evaluate_gradients(params, data, {"output": 2 * outputs.detach().numpy()})
    theirs = {k.replace(".", "_"): v.grad for k, v in module.named_parameters() if v.grad is not None}
    assert found.keys() == theirs.keys()
    for key, value in theirs.items():
        scale = max(value.abs().max().item(), 1e-6)
        np.testing.assert_allclose(backend.to_numpy(found[key]), value.numpy(), rtol=0, atol=1e-7 * scale, err_msg=key)


@pytest.mark.parametrize("name", ["beit", "densenet"])
def test_gradients_on_numpy(name, build):
    gradients(name, build, ml.NumpyBackend(dtype=ml.float64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beit", "convnext", "coatnet"])
def test_gradients_on_jax(name, build):
    pytest.importorskip("jax")
    gradients(name, build, ml.JaxBackend(dtype=ml.float64))


def test_there_are_more_than_thirty():
    assert len(TIMM) + len(TRANSFORMERS) > 50
