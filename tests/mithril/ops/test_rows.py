"""Every row of the operator table: values on four backends, gradients, and the shape and dtype rules.

NumPy in float64 is the referee, and PyTorch's autograd in float64 referees NumPy.
"""

import numpy as np
import pytest

import mithril as ml
from mithril import backends
from mithril.ops.table import OPS
from mithril.types import DType, as_dtype
from tests.mithril.ops.examples import EXAMPLES, RNG
from tests.mithril.ops.rows import (
    CASES,
    CONSTANT,
    RANDOM,
    SHAPE_ONLY,
    arrays_of,
    at,
    by_framework,
    gradients_by_rule,
    is_differentiable,
    leaves_of,
    op_shapes,
    replaced,
    run,
    seeds_for,
    tolerance,
)


def test_every_row_has_an_example():
    assert set(OPS) - SHAPE_ONLY - set(EXAMPLES) == set()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_row(name, number, tools):
    op, (inputs, attributes) = OPS[name], EXAMPLES[name][number]
    referee = tools["numpy64"]
    arrays = arrays_of(referee, inputs)
    truth = run(op, referee, arrays, attributes)
    check_rules(op, referee, arrays, attributes, truth)
    seeds, rule = [], []
    if is_differentiable(op, truth):
        seeds = seeds_for(name, truth)
        full = [np.zeros_like(o) if s is None else s for s, o in zip(seeds, truth)]
        rule = gradients_by_rule(op, referee, arrays, attributes, truth, full)
        check_finite_differences(op, referee, arrays, attributes, full, rule)
    elif np.asarray(truth[0]).dtype.kind == "f" and list(leaves_of(inputs)):
        assert name in CONSTANT | {"cast", "floor_divide"}, "a differentiable row without a gradient"
    for label, backend in tools.items():
        outputs, grads = by_framework(op, backend, inputs, attributes, seeds if backend.name != "numpy" else [])
        check_values(label, op, backend, outputs, truth)
        for key, found in grads.items():
            expected = at(rule, key) if isinstance(inputs[key[0]], list) else rule[key[0]]
            expected = np.zeros(found.shape) if expected is None else expected
            assert name in RANDOM or np.shape(expected) == found.shape
            if name not in RANDOM:
                loose = {k: 5 * v for k, v in tolerance(name, backend.dtype).items()}
                np.testing.assert_allclose(found, expected, err_msg=f"{label}, gradient of {key}", **loose)


def check_values(label, op, backend, outputs, truth):
    """Shape, dtype (JAX has 32-bit integers only) and values are the referee's."""
    assert len(outputs) == len(truth)
    for output, expected in zip(outputs, truth):
        dtype = as_dtype(expected.dtype)
        if dtype is DType.float64:
            dtype = backend.dtype
        elif dtype is DType.int64 and label == "jax":
            dtype = DType.int32
        assert (label, backend.dtype_of(output)) == (label, dtype)
        assert (label, backend.shape_of(output)) == (label, expected.shape)
        if op.name not in RANDOM:
            got = backend.to_numpy(output).astype(np.float64)
            loose = tolerance(op.name, backend.dtype)
            np.testing.assert_allclose(got, expected.astype(np.float64), err_msg=label, **loose)


def check_rules(op, backend, arrays, attributes, truth):
    """The shape and dtype rules tell what really comes out."""
    complete = op.complete(attributes)
    shapes = op_shapes(op, arrays, complete, backend)
    shapes = shapes[0] if op.outputs[0].startswith("*") else shapes
    assert [tuple(shape) for shape in shapes] == [np.shape(value) for value in truth]
    dtypes = op.dtype(*map(_kind, arrays), **complete)
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,) * len(truth)
    assert [as_dtype(d) for d in dtypes] == [as_dtype(np.asarray(v).dtype) for v in truth]


def _kind(value):
    if isinstance(value, list):
        return tuple(as_dtype(v.dtype) for v in value)
    return None if value is None else type(value) if isinstance(value, int | float) else as_dtype(value.dtype)


def check_finite_differences(op, backend, arrays, attributes, seeds, rule, step=1e-6):
    """The rule's gradients tell how the outputs change along one random direction of all floating inputs."""
    leaves = dict(leaves_of(arrays))
    ways = {key: RNG.standard_normal(leaf.shape) for key, leaf in leaves.items()}
    ends = []
    for sign in (1, -1):
        moved = {key: leaf + sign * step * ways[key] for key, leaf in leaves.items()}
        outputs = run(op, backend, replaced(arrays, moved), attributes)
        ends.append(sum(float((s * o).sum()) for s, o in zip(seeds, outputs) if np.asarray(o).dtype.kind == "f"))
    grads = {key: at(rule, key) if isinstance(arrays[key[0]], list) else rule[key[0]] for key in leaves}
    told = sum(float((grad * ways[key]).sum()) for key, grad in grads.items() if grad is not None)
    np.testing.assert_allclose(told, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


FULL_PRECISION = {"inverse", "solve", "cholesky", "avg_pool3d"}
"""No framework, or not PyTorch on a CPU, has these in float16."""


@pytest.mark.parametrize("cls", ["NumpyBackend", "TorchBackend", "MlxBackend"])
def test_half_precision(cls, tools):
    """Every row keeps float16, and is near the value in float64."""
    half, referee = getattr(backends, cls)(dtype="float16"), tools["numpy64"]
    for name, number in CASES:
        op, (inputs, attributes) = OPS[name], EXAMPLES[name][number]
        if name in FULL_PRECISION | RANDOM or attributes.get("padding") == "same":
            continue
        truth = run(op, referee, arrays_of(referee, inputs), attributes)
        for output, expected in zip(run(op, half, arrays_of(half, inputs), attributes), truth):
            wanted = half.dtype if expected.dtype == np.float64 else as_dtype(expected.dtype)
            assert (name, half.dtype_of(output)) == (name, wanted)
            if expected.dtype == np.float64:
                got = half.to_numpy(output).astype(np.float64)
                np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.05, err_msg=f"{name}-{number}")


@pytest.mark.parametrize("name", ["gelu", "conv2d", "interpolate", "batch_norm", "scaled_dot_product_attention"])
def test_jax_in_float64(needed, name, tools):
    """In 64-bit mode JAX agrees to the last digits, gradients too."""
    needed("jax")
    wide, torch = backends.JaxBackend(dtype="float64"), tools["torch64"]
    inputs, attributes = EXAMPLES[name][0]
    seeds = seeds_for(name, run(OPS[name], torch, arrays_of(torch, inputs), attributes))
    outputs, grads = by_framework(OPS[name], wide, inputs, attributes, seeds)
    expected, expected_grads = by_framework(OPS[name], torch, inputs, attributes, seeds)
    assert wide.dtype_of(outputs[0]) is DType.float64
    np.testing.assert_allclose(wide.to_numpy(outputs[0]), torch.to_numpy(expected[0]), rtol=1e-9, atol=1e-12)
    for key, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "attributes"), [("prod", {}), ("prod", {"axis": 1}), ("cumprod", {"axis": 1})])
def test_gradients_of_products_with_zeros(name, attributes, tools):
    """One zero in a row, two, or none."""
    values = np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    torch, numpy = tools["torch64"], tools["numpy64"]
    seeds = seeds_for(name, run(OPS[name], torch, arrays_of(torch, [values]), attributes))
    _, expected = by_framework(OPS[name], torch, [values], attributes, seeds)
    x = ml.IOKey("x", trainable=True)
    model = ml.Model.create(out=getattr(ml.models, name.capitalize())(**attributes)(x))
    compiled = ml.compile(model, numpy, shapes={"x": values.shape})
    found = compiled.evaluate_gradients({"x": values}, output_gradients={"out": seeds[0]})
    np.testing.assert_allclose(found["x"], next(iter(expected.values())), rtol=1e-12)
