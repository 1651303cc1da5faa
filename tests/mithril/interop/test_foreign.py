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

FLOAT64 = {"xcit": 1e-8}
"""Differences allowed in float64 where a module computes its positions in float32 even then; 1e-9 for all others."""


def slow_but(quick, names):
    """Parameters of a test, all but some of them slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.fixture
def build(timm, transformers):
    """A function from a name to a module and its inputs by name."""
    return lambda name: make(name, timm, transformers)


def leaves(outputs):
    """Tensors that a module returns, by the imported model's names, as NumPy arrays."""
    return {name: leaf.detach().numpy() for name, leaf in named_leaves(outputs) if isinstance(leaf, torch.Tensor)}


def expected_of(module, inputs):
    with torch.no_grad():
        return leaves(module(**inputs))


def difference(found, expected):
    """The largest difference, relative to the largest value of each output."""
    assert found.keys() == expected.keys()
    assert any(value.std() > 1e-6 for value in expected.values())
    return max(np.abs(found[k] - expected[k]).max() / max(np.abs(expected[k]).max(), 1e-9) for k in expected)


def check(name, build, backends, tolerance, dtype=torch.float32):
    """Import a model and compare what it computes on these backends with PyTorch."""
    module, inputs = build(name)
    module = module.to(dtype)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    expected = expected_of(module, inputs)
    if dtype is torch.float64:  # a detector gives its boxes and scores in float32 even then
        expected = {k: v for k, v in expected.items() if v.dtype != np.float32}
    model, params = ml.from_torch(module, inputs)
    for backend in backends:
        compiled = ml.compile(model, backend, inference=True)
        outputs = compiled.evaluate(params, {k: v.numpy() for k, v in inputs.items()})
        found = {k: backend.to_numpy(v) for k, v in outputs.items() if k in expected}
        assert difference(found, expected) < tolerance, backend


@pytest.mark.parametrize("name", slow_but(QUICK, ALL))
def test_equal_on_numpy_and_torch(name, build):
    check(name, build, [ml.NumpyBackend(), ml.TorchBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit"}, sorted(QUICK)))
def test_equal_on_mlx(needed, name, build):
    needed("mlx.core")
    check(name, build, [ml.MlxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit"}, ALL))
def test_equal_on_jax(needed, name, build):
    needed("jax")
    check(name, build, [ml.JaxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"beit", "bert"}, ALL))
def test_equal_in_float64(name, build):
    check(name, build, [ml.NumpyBackend(dtype=ml.float64)], FLOAT64.get(name, 1e-9), torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_equal_in_float64_on_jax(needed, name, build):
    needed("jax")
    check(name, build, [ml.JaxBackend(dtype=ml.float64)], FLOAT64.get(name, 1e-9), torch.float64)


def gradients(module, inputs, backend):
    """Gradients of the mean square of all outputs, by PyTorch and by a backend, in float64."""
    module = module.double()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    model, params = ml.from_torch(module, inputs)
    compiled = ml.compile(model, backend, inference=True)
    outputs = {k: v for k, v in named_leaves(module(**inputs)) if isinstance(v, torch.Tensor)}
    outputs = {k: v for k, v in outputs.items() if v.requires_grad and v.dtype is torch.float64}
    sum(v.square().mean() for v in outputs.values()).backward()
    given = {k: (2 * v / v.numel()).detach().numpy() for k, v in outputs.items()}
    found = compiled.evaluate_gradients(params, {k: v.numpy() for k, v in inputs.items()}, given)
    theirs = {k.replace(".", "_"): v.grad for k, v in module.named_parameters() if v.grad is not None}
    assert theirs
    assert theirs.keys() <= found.keys()
    least = max(value.abs().max().item() for value in theirs.values()) / 1000
    for key, value in theirs.items():
        scale = max(value.abs().max().item(), least)
        np.testing.assert_allclose(backend.to_numpy(found[key]), value.numpy(), rtol=0, atol=1e-7 * scale, err_msg=key)


@pytest.mark.parametrize("name", ["beit", "densenet"])
def test_gradients_on_numpy(name, build):
    gradients(*build(name), ml.NumpyBackend(dtype=ml.float64))


@pytest.mark.parametrize("name", slow_but({"beit"}, ["beit", "convnext", "coatnet", "segformer", "bert"]))
def test_gradients_on_jax(needed, name, build):
    needed("jax")
    gradients(*build(name), ml.JaxBackend(dtype=ml.float64))


def test_there_are_more_than_thirty():
    assert len(TIMM) + len(TRANSFORMERS) > 50
