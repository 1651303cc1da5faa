"""Indexing as it is written in a model, against NumPy's values and torch's gradients, on four backends."""

import numpy as np
import pytest
import torch

import mithril as ml
from mithril import IOKey, Model
from mithril.errors import DtypeError

RNG = np.random.default_rng(0)
X, I, J, K = RNG.standard_normal((4, 5, 6)), np.array([0, -1, 2]), np.array([[1], [3]]), np.array([3, 0, 5])
BACKENDS = {
    "numpy": ("NumpyBackend", ml.float64, 1e-12),
    "torch": ("TorchBackend", ml.float64, 1e-12),
    "jax": ("JaxBackend", ml.float32, 1e-6),
    "mlx": ("MlxBackend", ml.float32, 1e-6),
}
KEYS = [
    "i", ":, j", "i, :, k", ":, j, k", "..., k", "i, None, 1:4, k", "None, i, ..., None", "1, :, k", "1, j", ":, 2, k",
    "i, j, k", "j, 2:, k", "-1, ::2, -3:", ":, 1:-1:2, None", "[0, 2]", ":, 1:, [5, 0]", "..., ::-1", "1:, ::-1, k",
    "..., ::-2, None, 3:0:-1", "x.shape[0] - 1", "i[1], :, k", "MASK", "..., PLANES",
]  # fmt: skip
"""Words of an index; `i`, `j`, `k` are tensors of the model, MASK and PLANES constants."""
NAMES = {"MASK": X[..., 0] > 0, "PLANES": np.array([True, False, True, False, True, True])}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("key", KEYS)
def test_index_equals_numpy(needed, key, name):
    needed(name)
    cls, dtype, tolerance = BACKENDS[name]
    backend = getattr(ml, cls)(dtype=dtype)

    def write(x, i, j, k):
        return eval(f"x[{key}]", {**NAMES, "x": x, "i": i, "j": j, "k": k})

    model = Model.create(out=write(IOKey("x", trainable=True), *(IOKey(word, type=int) for word in "ijk")))
    values = {word: v for word, v in {"x": X, "i": I, "j": J, "k": K}.items() if word in model.input_keys}
    compiled = ml.compile(model, backend, shapes={word: v.shape for word, v in values.items()})
    expected = write(X, I, J, K)
    seed = RNG.standard_normal(expected.shape)
    outputs, gradients = compiled.evaluate_all(
        {word: backend.array(v) for word, v in values.items()}, {}, {"out": backend.array(seed)}
    )
    assert compiled.shapes["out"] == list(expected.shape)
    np.testing.assert_allclose(backend.to_numpy(outputs["out"]), expected, rtol=tolerance)
    places = write(np.arange(X.size).reshape(X.shape), I, J, K)
    gradient = np.bincount(places.ravel(), seed.ravel(), X.size).reshape(X.shape)
    np.testing.assert_allclose(backend.to_numpy(gradients["x"]), gradient, rtol=tolerance, atol=tolerance)


def test_a_computed_mask_is_refused():
    x = IOKey("x")
    with pytest.raises(DtypeError, match="a mask that is computed gives a shape that depends on the data"):
        ml.compile(Model.create(out=x[x > 0]), ml.NumpyBackend(), shapes={"x": (3,)})


def test_einsum_refuses_an_ellipsis_on_one_side():
    x = IOKey("x")
    model = Model.create(out=ml.models.Einsum(equation="...i->i")([x]))
    with pytest.raises(ml.errors.ShapeError, match=r"'...i->i' has an ellipsis on one side only; write it on both"):
        ml.compile(model, ml.NumpyBackend(), shapes={"x": (3, 2)})


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("b...c,cd->b...d", [(2, 3, 4, 5), (5, 6)]), ("...i,...i", [(2, 1, 3), (4, 3)]), ("...ii->...i", [(2, 3, 3)])],
)
def test_einsum_equals_torch(equation, shapes):
    values = [RNG.standard_normal(shape) for shape in shapes]
    keys = [IOKey(f"x{n}", trainable=True) for n in range(len(values))]
    compiled = ml.compile(
        Model.create(out=ml.models.Einsum(equation=equation)(keys)),
        ml.NumpyBackend(dtype=ml.float64),
        shapes={key.name: v.shape for key, v in zip(keys, values)},
    )
    tensors = [torch.tensor(v, requires_grad=True) for v in values]
    expected = torch.einsum(equation, *tensors)
    expected.sum().backward()
    named = {key.name: v for key, v in zip(keys, values)}
    outputs, gradients = compiled.evaluate_all(named, {}, {"out": np.ones(expected.shape)})
    np.testing.assert_allclose(outputs["out"], expected.detach().numpy(), rtol=1e-12)
    for key, tensor in zip(keys, tensors):
        np.testing.assert_allclose(gradients[key.name], tensor.grad.numpy(), rtol=1e-12)
