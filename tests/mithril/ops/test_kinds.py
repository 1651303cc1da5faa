"""What operators take besides floats: integers and truth values, infinities and NaN, on every backend alike.

An operator that computes in floats takes whole numbers and truth values as floats; one that takes numbers refuses truth
values by name. Shapes and dtypes are what the row declares, values are torch's.
"""

import math

import numpy as np
import pytest

import mithril as ml
from mithril.errors import DtypeError, MithrilError
from mithril.logical.primitive import primitive
from mithril.ops.table import OPS
from mithril.types import DType, as_dtype
from tests.mithril.ops.examples import EXAMPLES
from tests.mithril.ops.rows import RANDOM, SHAPE_ONLY, arrays_of, by_framework, run
from tests.mithril.ops.test_edges import measured

BACKENDS = ("TorchBackend", "NumpyBackend", "JaxBackend", "MlxBackend")
SINGULAR = {"inverse", "solve", "cholesky"}
"""Whose matrices of rounded numbers, or of truth values, have no answer."""
DATA = {"power"}
"""Integers to negative powers: each framework has its own answer (0, an error, a float)."""
ROWS = [
    name
    for name in OPS
    if name not in RANDOM | SHAPE_ONLY | SINGULAR | DATA
    and not OPS[name].outputs[0].startswith("*")
    and any(isinstance(v, np.ndarray) and v.dtype == np.float64 for value in EXAMPLES[name][0][0]
            for v in (value if isinstance(value, list) else [value]))
]  # fmt: skip


def whole(value, kind):
    """An example's floats as numbers of another kind."""
    if isinstance(value, list):
        return [whole(part, kind) for part in value]
    if not (isinstance(value, np.ndarray) and value.dtype == np.float64):
        return value
    return np.round(value * 3) > 0 if kind is bool else np.round(value * 3).astype(np.int64)


def compiled(name, inputs, attributes, backend):
    """One operator on data of declared types."""
    row, bindings, data = OPS[name], {}, {}
    for key, value in zip(row.input_names, inputs):
        parts = value if isinstance(value, list) else [value]
        keys = [
            ml.IOKey(f"{key}_{n}", type=as_dtype(v.dtype)) if isinstance(v, np.ndarray) else v
            for n, v in enumerate(parts)
        ]
        data |= {f"{key}_{n}": v for n, v in enumerate(parts) if isinstance(v, np.ndarray)}
        bindings[key] = keys if isinstance(value, list) else keys[0]
    bindings = {key: value for key, value in bindings.items() if value is not None}
    model = ml.Model()
    outputs = {name: ml.IOKey(name) for name in row.output_names}
    model |= primitive(name)(**bindings, **attributes, **outputs)
    made = ml.compile(model, backend, shapes={key: value.shape for key, value in data.items()}, data_keys=set(data))
    given = {key: backend.array(data[key]) for key in made.data_keys}
    with np.errstate(all="ignore"):
        return {key: backend.to_numpy(value) for key, value in made.evaluate({}, given).items()}


@pytest.fixture(scope="module")
def backends(needed):
    for name in ("jax", "mlx"):
        needed(name)
    return [getattr(ml, name)() for name in BACKENDS]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("kind", [int, bool])
@pytest.mark.parametrize("name", ROWS)
def test_whole_numbers_and_truth_values(name, kind, backends):
    inputs, attributes = EXAMPLES[name][0]
    inputs = [whole(value, kind) for value in inputs]
    if kind is bool and OPS[name].numbers:
        for backend in backends:
            with pytest.raises(DtypeError, match=r"is bool where numbers are needed; cast it, as in x\.cast"):
                compiled(name, inputs, attributes, backend)
        return
    truth, *others = (outcome(name, inputs, attributes, backend) for backend in backends)
    for backend, found in zip(backends[1:], others):
        if isinstance(found, str):
            assert (name, backend.name) == ("einsum", "mlx"), found
            continue
        for key, value in found.items():
            wanted = truth[key]
            near = np.int32 if backend.name == "jax" and wanted.dtype == np.int64 else wanted.dtype
            assert (backend.name, value.dtype) == (backend.name, near)
            np.testing.assert_allclose(
                value.astype(float), wanted.astype(float), rtol=1e-4, atol=1e-4, err_msg=f"{name} on {backend.name}"
            )


def outcome(name, inputs, attributes, backend):
    """Outputs by key, or what the refusal says."""
    try:
        return compiled(name, inputs, attributes, backend)
    except MithrilError as error:
        return str(error)


def test_integers_are_multiplied_exactly_on_mlx(backends):
    large = np.array([[2**30 + 1, 3], [5, 7]])
    for left, right in ((large, large), (large[0], large), (large, large[0]), (large[0], large[0])):
        found = compiled("matmul", [left, right], {}, backends[3])["output"]
        assert np.array_equal(found, left @ right)


def test_a_refusal_names_the_place(backends):
    with pytest.raises(DtypeError, match=r"negative_0\.input is bool where numbers are needed") as caught:
        compiled("negative", [np.array([True])], {}, backends[1])
    assert "bool (1,)" in str(caught.value)


ENDS = np.array([math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e3, -1e3])
LEFT, RIGHT = (a.ravel() for a in np.meshgrid(ENDS, ENDS))
NANS = np.array([math.nan, 1.0, math.nan, math.inf]), np.array([1.0, math.nan, math.nan, math.nan])
ELEMENTWISE = [name for name in ROWS if OPS[name].elementwise and name != "where"] + ["power"]
OWN_VALUES = {
    ("sign", "numpy"): "NaN stays NaN, where torch says 0",
    ("sign", "jax"): "NaN stays NaN, where torch says 0",
    ("floor_divide", "mlx"): "-1 // inf is -0, where torch says -1",
    ("hard_swish", "mlx"): "-0 at minus infinity, where torch says NaN",
    ("arctan2", "mlx"): "0 at (0, -0), where torch says pi",
    ("nan_to_num", "mlx"): "the largest float32",
}
OWN_SLOPES = {
    ("softsign", "numpy"): "0 at infinities, where torch says NaN",
    ("remainder", "jax"): "infinite where torch says NaN",
    ("remainder", "mlx"): "of the divisor, floor(-1 / inf) is 0, where torch says -1",
    ("fmod", "mlx"): "0 at 0",
    ("power", "jax"): "of the exponent, NaN at 0 to a negative power",
    ("power", "mlx"): "of the exponent, at 0 and below",
    ("power", "numpy"): "of the exponent, the sign of -0",
    ("logaddexp", "jax"): "a half where both are the same infinity, where torch says NaN",
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_infinities_and_nan_are_torchs(name):
    op, referee = OPS[name], ml.TorchBackend(dtype="float64")
    tools = {"numpy": ml.NumpyBackend(dtype="float64"), "jax": ml.JaxBackend(dtype="float64"), "mlx": ml.MlxBackend()}
    example, attributes = EXAMPLES[name][0]
    floats = [n for n, v in enumerate(example) if isinstance(v, np.ndarray) and v.dtype == np.float64]
    for left, right, slopes in ((LEFT, RIGHT, True), (*NANS, False)):
        values = [np.unique(left)] if len(floats) == 1 else [left, right]
        inputs = [values[floats.index(n)] if n in floats else v for n, v in enumerate(example)]
        truth = [referee.to_numpy(v) for v in run(op, referee, arrays_of(referee, inputs), attributes)]
        differs = slopes and op.gradient and truth[0].dtype.kind == "f"
        seeds = [np.linspace(0.5, 1.5, t.size).reshape(t.shape) for t in truth] if differs else []
        _, wanted = by_framework(op, referee, inputs, attributes, seeds)
        for label, backend in tools.items():
            near = {"rtol": 1e-4, "atol": 1e-5} if label == "mlx" else {"rtol": 1e-7, "atol": 1e-9}
            with np.errstate(all="ignore"):
                outputs, found = measured(op, backend, inputs, attributes, seeds)
            for got, want in zip(outputs, truth):
                if (name, label) not in OWN_VALUES:
                    np.testing.assert_allclose(backend.to_numpy(got), want, err_msg=f"{name} on {label}", **near)
            for key, got in found.items():
                if (name, label) not in OWN_SLOPES:
                    np.testing.assert_allclose(got, wanted[key], err_msg=f"{name} on {label}, {key}", **near)


def test_declared_types_are_what_comes_out():
    assert OPS["clip"].dtype(DType.int64, min=0, max=5) is DType.int64
    assert OPS["clip"].dtype(DType.int64, min=0.5, max=None) is DType.float32
    assert OPS["layer_norm"].dtype(DType.float16, DType.float32, None) is DType.float16
    assert OPS["layer_norm"].dtype(DType.int64, DType.float64, None) is DType.float64
