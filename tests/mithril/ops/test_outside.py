"""Indices outside of their axis: refused where they can be seen, else reading holds to the ends and writing leaves out."""

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from mithril.models.common import op

X = np.arange(12.0).reshape(4, 3)
ROWS = np.array([9, 1, -9])
"""Behind the last row, inside, before the first."""
HELD = np.array([3, 1, 0])
PLACES = np.array([[0, 1, 9], [-9, 2, 0]])


def reads():
    x, i = IOKey("x", trainable=True), IOKey("i", type=int)
    return {
        "index": (x[i], ROWS, X[HELD]),
        "index behind dots": (x.T[..., i], ROWS, X.T[..., HELD]),
        "index of two": (x[i, 1], ROWS, X[HELD, 1]),
        "take": (op("take", axis=0)(x, i), ROWS, X[HELD]),
        "take_along_axis": (op("take_along_axis", axis=0)(x, i), PLACES, np.take_along_axis(X, PLACES.clip(0, 3), 0)),
        "embedding": (op("embedding")(i, x), ROWS, X[HELD]),
    }


def writes():
    x, i, y = IOKey("x", trainable=True), IOKey("i", type=int), IOKey("y", trainable=True)
    inside = (PLACES >= 0) & (PLACES < 4)
    put, added = X.copy(), X.copy()
    for row, column in np.argwhere(inside):
        put[PLACES[row, column], column] = 100
        added[PLACES[row, column], column] += 100
    return {
        "scatter": (op("scatter", axis=0)(x, i, y), put),
        "scatter_add": (op("scatter_add", axis=0)(x, i, y), added),
    }


@pytest.mark.parametrize("name", reads())
@pytest.mark.parametrize("framework", ["JaxBackend", "MlxBackend"])
def test_reading_holds_to_the_ends(needed, framework, name):
    needed(framework.removesuffix("Backend").lower())
    value, index, expected = reads()[name]
    backend = getattr(ml, framework)()
    compiled = ml.compile(Model.create(out=value), backend, shapes={"x": X.shape, "i": index.shape})
    found = compiled.evaluate({"x": X}, {"i": index})["out"]
    np.testing.assert_array_equal(backend.to_numpy(found), expected)


@pytest.mark.parametrize("name", writes())
@pytest.mark.parametrize("framework", ["JaxBackend", "MlxBackend"])
def test_writing_leaves_out(needed, framework, name):
    needed(framework.removesuffix("Backend").lower())
    value, expected = writes()[name]
    backend = getattr(ml, framework)()
    compiled = ml.compile(Model.create(out=value), backend, shapes={"x": X.shape, "i": (2, 3), "y": (2, 3)})
    seed = np.ones((4, 3), np.float32)
    outputs, slopes = compiled.evaluate_all({"x": X, "y": np.full((2, 3), 100.0)}, {"i": PLACES}, {"out": seed})
    np.testing.assert_array_equal(backend.to_numpy(outputs["out"]), expected)
    np.testing.assert_array_equal(backend.to_numpy(slopes["y"]), ((PLACES >= 0) & (PLACES < 4)).astype(float))


@pytest.mark.parametrize("name", [*reads(), *writes()])
@pytest.mark.parametrize("framework", ["NumpyBackend", "TorchBackend"])
def test_eager_frameworks_refuse(framework, name):
    value, index = reads()[name][:2] if name in reads() else (writes()[name][0], PLACES)
    backend = getattr(ml, framework)()
    values = {"x": X, "y": np.ones((2, 3))} if name in writes() else {"x": X}
    shapes = {key: given.shape for key, given in {**values, "i": index}.items()}
    compiled = ml.compile(Model.create(out=value), backend, shapes=shapes)
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        compiled.evaluate(values, {"i": index})
