"""Ties, kinks, zeros and infinities: every backend has torch's values and gradients; odd settings are refused by all."""

import math

import numpy as np
import pytest
import torch

import mithril as ml
from mithril.errors import BackendError, OperatorError, ShapeError
from mithril.ops.table import OPS
from tests.mithril.ops.examples import UNARY
from tests.mithril.ops.rows import arrays_of, at, by_framework, gradients_by_rule, leaves_of, run

KINKS = np.array([-7.0, -6.0, -3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0])
TIES = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [2.0, -2.0, 2.0, 0.0], [-1.0, -1.0, 3.0, 3.0]])
BOUNDED = KINKS if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14) else KINKS[~np.isin(KINKS, (-1, 0, 1))]
"""Values to bound by -1, 0 and 1. At a bound every backend has the gradient, as torch had until 2.13; torch 2.14 has none there."""
LEFT, RIGHT = (a.ravel() for a in np.meshgrid(KINKS, KINKS))
SMALL = {"log", "log1p", "log2", "log10", "arcsin", "arccos", "arctanh", "arccosh", "reciprocal", "rsqrt", "tan"}
"""Functions with poles at these points, or not defined at most of them."""
CASES = {
    **{name: [([KINKS], {})] for name in UNARY if name not in SMALL},
    **{name: [([LEFT, RIGHT], {}), ([BOUNDED, 1.0], {})] for name in ("maximum", "minimum")},
    "clip": [([BOUNDED], {"min": -1.0, "max": 1.0}), ([BOUNDED], {"min": 0.0})],
    "leaky_relu": [([KINKS], {"negative_slope": 0.2})], "elu": [([KINKS], {"alpha": 0.5})],
    "celu": [([KINKS], {"alpha": 0.5})], "sqrt": [([abs(KINKS)], {})],
    "power": [([abs(LEFT), np.where(RIGHT < 0, 0, RIGHT)], {})],
    "arctan2": [([LEFT, RIGHT], {})], "hard_swish": [([KINKS], {})],
    **{name: [([TIES], {"axis": 1}), ([TIES], {}), ([TIES], {"keepdims": True}), ([TIES], {"axis": (0, 1), "keepdims": True})]
       for name in ("sum", "mean", "prod", "max", "min", "variance", "std", "logsumexp")},
    "norm": [([TIES], {"axis": axis, "ord": ord}) for axis in (1, None, (0, 1)) for ord in (math.inf, -math.inf, 0, 1, 2, 3, 0.5)],
    **{name: [([TIES], {"axis": axis}) for axis in (1, -1, -2)] for name in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")},
    "sort": [([TIES], {}), ([TIES], {"axis": 0, "descending": True})],
    "max_pool2d": [([TIES[None, None]], {"kernel_size": 2}), ([TIES[None, None]], {"kernel_size": 2, "dilation": 2, "stride": 1})],
    "adaptive_max_pool2d": [([TIES[None, None]], {"output_size": (2, 3)}), ([TIES[None, None]], {"output_size": 1})],
    "pad": [([TIES], {"padding": ((1, 2), (2, 1)), "mode": mode}) for mode in ("reflect", "replicate", "circular")],
    "conv2d": [([TIES[None, None], TIES[None, None, :2, :3], None], {"padding": ((1, 2), (0, 3))})],
    "conv_transpose1d": [([TIES[None], TIES[..., None] * np.ones(3), None], {"padding": 3, "stride": 3})],
}  # fmt: skip
LABELS = ("numpy64", "jax64", "mlx")
SHARED = {"max_pool2d"}
"""Where MLX shares the gradient among equal values. Exponents of 0 have none there."""


@pytest.fixture(scope="module")
def backends(needed):
    needed("jax")
    needed("mlx")
    return {
        "numpy64": ml.NumpyBackend(dtype="float64"),
        "jax64": ml.JaxBackend(dtype="float64"),
        "mlx": ml.MlxBackend(),
    }


@pytest.mark.parametrize("name", CASES)
def test_edges_are_torchs(name, backends):
    op, referee = OPS[name], ml.TorchBackend(dtype="float64")
    for inputs, attributes in CASES[name]:
        truth = [referee.to_numpy(v) for v in run(op, referee, arrays_of(referee, inputs), attributes)]
        floats = op.gradient and any(t.dtype.kind == "f" for t in truth)
        seeds = [np.linspace(0.5, 1.5, t.size).reshape(t.shape) for t in truth] if floats else []
        _, slopes = by_framework(op, referee, inputs, attributes, seeds)
        for label, backend in backends.items():
            near = {"rtol": 1e-4, "atol": 1e-5} if label == "mlx" else {"rtol": 1e-7, "atol": 1e-9}
            with np.errstate(all="ignore"):
                outputs, found = measured(op, backend, inputs, attributes, seeds)
            for got, want in zip(outputs, truth):
                got = backend.to_numpy(got)
                np.testing.assert_allclose(got, want, err_msg=f"{name} {attributes} on {label}", **near)
            for key, got in found.items():
                if label == "mlx" and (name in SHARED or (name, key[0]) == ("power", 1)):
                    continue
                message = f"{name} {attributes} on {label}, gradient of {key}"
                np.testing.assert_allclose(got, slopes[key], err_msg=message, **near)


def measured(op, backend, inputs, attributes, seeds):
    """Values and gradients; NumPy's by the row's rule."""
    if backend.name != "numpy":
        return by_framework(op, backend, inputs, attributes, seeds)
    arrays = arrays_of(backend, inputs)
    outputs = run(op, backend, arrays, attributes)
    rule = gradients_by_rule(op, backend, arrays, attributes, list(outputs), seeds) if seeds else []
    keys = [key for key, _ in leaves_of(inputs)] if seeds else []
    zeros = {key: np.zeros(at(inputs, key).shape) for key in keys}
    return outputs, {key: zeros[key] if rule[key[0]] is None else rule[key[0]] for key in keys}


ODD = [
    (lambda: ml.models.Sum(axis=()), (3, 4), r"sum: axis \(\) names no axis; leave axis out to reduce over all"),
    (lambda: ml.models.Tile(repeats=2), (3, 4), r"tile: repeats is 2; give a number for each of the 2 axes"),
    (lambda: ml.models.MaxPool2D(kernel_size=2, stride=0), (1, 1, 4, 4), r"stride is 0; it must be whole numbers"),
    (lambda: ml.models.AvgPool2D(kernel_size=2, padding="same"), (1, 1, 4, 4), r"padding of pooling is 'same'"),
    (lambda: ml.models.Pad(padding=((4, 0),), mode="reflect"), (2, 3), r"mode 'reflect' can add at most 2 to an axis"),
    (lambda: ml.models.Softmax(axis=None), (2, 3), r"axis is None; it must be a whole number from -2 to 1"),
]


@pytest.mark.parametrize(("make", "shape", "message"), ODD)
def test_odd_settings_are_refused_before_a_backend_sees_them(make, shape, message):
    model = ml.Model()
    model |= make()(input="x", output=ml.IOKey("out"))
    for backend in (ml.NumpyBackend(), ml.TorchBackend(), ml.JaxBackend(), ml.MlxBackend()):
        with pytest.raises(ShapeError, match=message):
            ml.compile(model, backend, shapes={"x": shape})


def test_joining_along_no_axis_is_refused():
    model = ml.Model.create(out=ml.models.Concat(axis=None)([ml.IOKey("x"), ml.IOKey("y")]))
    with pytest.raises(ShapeError, match=r"axis is None; it must be a whole number"):
        ml.compile(model, ml.NumpyBackend(), shapes={"x": (2,), "y": (2,)})


def test_wide_integers_do_not_wrap_on_jax():
    with pytest.raises(BackendError, match=r"3000000000 does not fit JAX's int32; use JaxBackend\(dtype='float64'\)"):
        ml.JaxBackend().array(np.array([3_000_000_000]))
    assert int(ml.JaxBackend(dtype="float64").array(np.array([3_000_000_000]))[0]) == 3_000_000_000


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Dropout", {"rate": 1.5}), ("Dropout", {"rate": -0.1}), ("Dropout", {"rate": math.nan}),
        ("BatchNorm2D", {"momentum": 2.0}), ("BatchNorm2D", {"eps": -1e-05}), ("LayerNorm", {"eps": -1.0}),
        ("GroupNorm", {"num_groups": 2, "eps": -1.0}), ("RMSNorm", {"eps": -1.0}),
        ("CrossEntropy", {"label_smoothing": 1.5}), ("HuberLoss", {"delta": 0.0}), ("HuberLoss", {"delta": -1.0}),
        ("BinaryCrossEntropy", {"pos_weight": -1.0}), ("QuantileLoss", {"quantile": 1.0}),
    ],
)  # fmt: skip
def test_numbers_out_of_their_range_are_refused_at_the_door(name, settings):
    word = list(settings)[-1]
    with pytest.raises((OperatorError, ValueError), match=rf"{word} is {settings[word]}; it must be"):
        getattr(ml.models, name)(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ml.models.Convolution2D(2, 3, padding="SAME"), r"padding is 'SAME'; it must be 'same' or 'valid', or num.* 'same'\?"),
        (lambda: ml.models.Convolution1D(2, 3, padding="vald"), r"padding is 'vald'; .* Did you mean 'valid'\?"),
        (lambda: ml.models.Gelu(approximate="tan"), r"approximate is 'tan'; it must be 'none' or 'tanh'\. Did you mean 'tanh'\?"),
        (lambda: ml.models.Interpolate(scale_factor=2, mode="biliner"), r"mode is 'biliner'; .* Did you mean 'bilinear'\?"),
        (lambda: ml.models.GridSample(padding_mode="edge"), r"padding_mode is 'edge'; it must be 'zeros' or 'border' or"),
        (lambda: ml.models.Pad(padding=((1, 1),), mode="refl"), r"mode is 'refl'; .* Did you mean 'reflect'\?"),
    ],
)  # fmt: skip
def test_words_that_are_not_there_are_refused_at_the_door(make, message):
    with pytest.raises(OperatorError, match=message):
        make()


@pytest.mark.parametrize("seed", ["a", -1, 1.5, None, True])
def test_a_seed_is_a_whole_number(seed):
    model = ml.Model.create(out=ml.models.Linear(3)(ml.IOKey("x")))
    compiled = ml.compile(model, ml.NumpyBackend(), shapes={"x": (2, 4)})
    for call in (lambda: compiled.randomize_params(seed=seed), lambda: ml.NumpyBackend(seed=seed)):
        with pytest.raises(BackendError, match=r"seed is .*; it must be a whole number of at least 0"):
            call()


def test_a_range_holds_where_the_number_comes_late():
    model = ml.Model.create(out=ml.models.Dropout()(ml.IOKey("x"), rate=ml.IOKey("rate", value=1.5)))
    with pytest.raises(OperatorError, match=r"dropout: rate is 1.5; it must be a number from 0 to 1"):
        ml.compile(model, ml.NumpyBackend(), shapes={"x": (2,)})
