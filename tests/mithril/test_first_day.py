"""What a first-day user of a compiled model meets: outputs by key, data of the kind an operator reads, advice that fits."""

import json
import subprocess
import sys

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from mithril import models as m
from mithril.errors import ConnectionError, KeyMismatchError, MithrilError, ShapeError, ValueMismatchError
from mithril.training import TrainModel

BACKENDS = [ml.NumpyBackend, ml.TorchBackend, ml.JaxBackend, ml.MlxBackend]
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
B = X > 0
I = np.array([1, 0])


def images():
    return np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


def convolved():
    model = Model(name="net")
    model += m.Convolution2D(4, 3, name="conv")(input="input")
    model += m.BatchNorm2D(name="bn")
    model += m.Dropout(0.5)(output=IOKey("output"))
    return model


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("make", BACKENDS)
def test_outputs_come_by_key_whatever_the_model_is(make, inference):
    backend = make()
    compiled = ml.compile(convolved(), backend, shapes={"input": [4, 3, 8, 8]}, inference=inference, jit=False)
    params, data = compiled.randomize_params(), {"input": backend.array(images())}
    assert list(compiled.evaluate(params, data)) == ["output"]
    state = compiled.initial_state()
    outputs, new_state = compiled.evaluate(params, data, state)
    assert list(outputs) == ["output"]
    assert set(new_state) == set(state)
    changed = not np.array_equal(*(backend.to_numpy(s["bn_running_mean"]) for s in (state, new_state)))
    assert changed is not inference


STANDALONE = """
import json, runpy, sys
sys.modules["mithril"] = None
import numpy as np
values = dict(np.load("values.npz"))
keys = json.loads(sys.argv[1])
evaluate = runpy.run_path("source.py")["evaluate"]
given = [{key: values[key] for key in part} for part in keys]
np.save("out.npy", evaluate(*given)["output"])
"""


def test_the_source_alone_takes_what_the_keys_name(tmp_path):
    backend = ml.NumpyBackend()
    path = tmp_path / "source.py"
    compiled = ml.compile(convolved(), backend, shapes={"input": [4, 3, 8, 8]}, inference=True, file_path=path)
    random = np.random.default_rng(1)
    values = {**compiled.randomize_params(), "input": images()}
    values |= {key: abs(random.standard_normal(4).astype(np.float32)) for key in compiled.state_keys}
    assert compiled.state_keys
    np.savez(tmp_path / "values.npz", **values)
    keys = [compiled.parameter_keys, compiled.data_keys, compiled.state_keys]
    subprocess.run([sys.executable, "-c", STANDALONE, json.dumps(keys)], cwd=tmp_path, check=True)
    params, data, state = ({key: values[key] for key in part} for part in keys)
    expected = compiled.evaluate(params, data, state)[0]["output"]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    np.testing.assert_array_equal(compiled.evaluate({**params, **state}, data)["output"], expected)


@pytest.mark.parametrize("make", BACKENDS)
def test_data_of_the_kind_that_an_operator_reads(make):
    backend = make()

    def run(model, **data):
        shapes = {key: list(value.shape) for key, value in data.items()}
        compiled = ml.compile(model, backend, shapes=shapes, jit=False)
        given = {key: backend.array(value) for key, value in data.items()}
        both = [compiled.evaluate(compiled.randomize_params(), part)["output"] for part in (data, given)]
        first, second = map(backend.to_numpy, both)
        np.testing.assert_allclose(first, second, rtol=1e-5)
        return first

    for condition in (B, B.astype(np.int32), B.astype(np.float32) * 3):
        np.testing.assert_allclose(run(m.Where(), condition=condition, input=X, other=-X), abs(X))
        np.testing.assert_array_equal(run(m.LogicalAnd(), left=condition, right=B), B)
        np.testing.assert_array_equal(run(m.LogicalOr(), left=condition, right=~B), np.ones_like(B))
        np.testing.assert_array_equal(run(m.LogicalNot(), input=condition), ~B)
    np.testing.assert_allclose(run(Model.create(output=IOKey("x")[IOKey("i")]), x=X, i=I), X[I])
    q = np.random.default_rng(0).standard_normal((1, 2, 4)).astype(np.float32)
    allowed = np.array([[True, False], [True, True]])
    masks = allowed, np.where(allowed, 0, -1e9).astype(np.float32)
    found = [run(m.MultiHeadAttention(4, 2, use_mask=True), query=q, key=q, value=q, mask=mask) for mask in masks]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


def test_a_condition_that_is_also_a_number_stays_as_it_was_declared():
    built = Model.create(output=m.Where()(condition=IOKey("c"), input=IOKey("x"), other=0.0) * IOKey("c"))
    compiled = ml.compile(built, ml.NumpyBackend(), shapes={"c": [2, 3], "x": [2, 3]})
    with pytest.raises(ValueMismatchError, match="'c' is float32, but bool is needed"):
        compiled.evaluate({}, {"c": X, "x": X})


def test_integers_for_a_float_key_get_a_hint():
    compiled = ml.compile(m.Relu(), ml.NumpyBackend(), shapes={"input": [2]})
    with pytest.raises(ValueMismatchError, match=r"Convert it to float32, or declare it .* type=int"):
        compiled.evaluate({}, {"input": I})


# Advice


def test_swapped_params_and_data_are_told():
    compiled = ml.compile(m.Linear(2), ml.NumpyBackend(), shapes={"input": [2, 3]})
    params = compiled.randomize_params()
    with pytest.raises(ValueMismatchError, match="they are swapped"):
        compiled.evaluate({"input": X}, params)
    assert list(compiled.evaluate({**params, "input": X})) == ["output"]


def test_advice_names_keys_that_the_model_has():
    model = Model.create(y=m.Linear(2, name="fc")(input=IOKey("features")))
    with pytest.raises(KeyMismatchError) as info:
        ml.compile(model, ml.NumpyBackend()).randomize_params()
    assert "'features'" in str(info.value)
    assert "'input'" not in str(info.value)
    with pytest.raises(ConnectionError, match="There are none"):
        Model()(input="x")
    table = Model.create(y=IOKey("x") + IOKey("table", value=np.ones(3)))
    with pytest.raises(KeyMismatchError) as info:
        ml.compile(table, ml.NumpyBackend(), data_keys={"table"})
    assert "'table': There are 'x'" in str(info.value)


@pytest.mark.parametrize("wires", [{"input": "outptu", "target": "t"}, {"target": "t"}, {"inptu": "output"}])
@pytest.mark.parametrize("add", ["add_loss", "add_metric"])
def test_losses_look_at_keys_that_the_model_has(add, wires):
    train = TrainModel(m.Linear(2))
    with pytest.raises(ConnectionError, match=r"Did you mean '(output|input)'"):
        getattr(train, add)(m.SquaredError(), **wires)


@pytest.mark.parametrize("wired", ["query", "input"])
def test_attention_of_one_input_names_the_others(wired):
    with pytest.raises(ShapeError, match=r"'(\w+_)?key', '(\w+_)?value'"):
        ml.compile(m.MultiHeadAttention(4, 2), ml.NumpyBackend(), shapes={"query": [1, 2, 4]})
    model = Model.create(y=m.MultiHeadAttention(4, 2)(**{wired: "x"}))
    with pytest.raises(MithrilError, match=r"'multi_head_attention_0_key', 'multi_head_attention_0_value'"):
        ml.compile(model, ml.NumpyBackend(), shapes={"x": [1, 2, 4]})


def test_shapes_go_by_key():
    with pytest.raises(MithrilError, match=r"shapes is \[4, 3, 8, 8\]; give a mapping of keys"):
        ml.compile(convolved(), ml.NumpyBackend(), shapes=[4, 3, 8, 8])
