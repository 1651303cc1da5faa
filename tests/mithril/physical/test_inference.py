"""Shapes and dtypes of whole graphs, and what the passes leave."""

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from mithril.physical.graph import Graph, Node, Value, Variadic, verify
from mithril.physical.infer import Inference
from mithril.physical.passes import remove_dead, remove_duplicates
from mithril.physical.signature import Sizes, apply_signature, parse
from mithril.types import Dim, DType
from tests.mithril.layers import BatchNorm2D, Convolution2D, LayerNorm, Linear, op


def infer(model, shapes=None, training=True):
    return verify(Inference(model, DType.float32, shapes or {}, training).run())


def mlp():
    model = Model(name="mlp")
    model += Linear(16)(input="input")
    model += op("relu")
    model += Linear(4)
    return model


def test_all_some_or_no_shapes():
    known = infer(mlp(), {"input": [2, 8]})
    assert known.outputs["output"].shape == (2, 4)
    assert known.inputs["linear_0_weight"].shape == (16, 8)
    some = infer(mlp(), {"input": [None, 8]})
    assert some.outputs["output"].shape == (Dim("batch"), 4)
    none = infer(mlp())
    assert none.outputs["output"].shape == Variadic((4,))
    assert none.inputs["linear_1_weight"].shape == (4, 16)


def test_a_weight_tells_the_shape_of_the_data():
    graph = infer(mlp(), {"linear_0_weight": [16, 8]})
    assert graph.inputs["input"].shape == Variadic((8,))


def test_ranks_follow_from_operators():
    model = Model()
    model += op("relu")(input="input")
    model += Convolution2D(4, 3)
    graph = infer(model)
    assert len(graph.outputs["output"].shape) == 4
    assert graph.outputs["output"].shape[1] == 4


def test_symbolic_convolution_arithmetic():
    model = Model()
    for stride in (2, 2):
        model += Convolution2D(4, 3, stride=stride, padding=1)
    graph = infer(model, {"input": [None, 3, None, 32]})
    shape = graph.outputs["output"].shape
    assert shape[3] == 8
    assert str(shape[2]) == "(input_2 + 3) // 4"


def test_variadic_declarations():
    model = Model.create(out=IOKey("x", shape=["b", "...", 3]) + 0.0)
    assert infer(model, {"x": [2, 5, 6, 3]}).outputs["out"].shape == (2, 5, 6, 3)
    assert infer(model).outputs["out"].shape == Variadic((3,))
    with pytest.raises(ml.MithrilError, match=r"\(b, \.\.\., 3\) was declared"):
        infer(model, {"x": [2, 4]})


def test_layer_norm_parameters_follow_the_data():
    model = Model()
    model += LayerNorm(name="norm")(input="input")
    assert infer(model, {"input": [None, 7, 12]}).inputs["norm_weight"].shape == (12,)


def test_state_in_training_and_inference():
    model = Model()
    model += BatchNorm2D(name="bn")(input="input")
    training = infer(model, {"input": [2, 3, 4, 4]})
    assert training.inputs["bn_running_var"].kind == "state"
    assert list(training.new_state) == ["bn_running_mean", "bn_running_var"]
    inference = infer(model, {"input": [2, 3, 4, 4]}, training=False)
    assert inference.inputs["bn_running_var"].kind == "state"
    assert not inference.new_state
    assert [n.op.name for n in inference.nodes] == ["batch_norm"]


def test_equal_blocks_are_inferred_once(monkeypatch):
    calls = []
    rule = op("conv2d").op.shape
    monkeypatch.setitem(op("conv2d").op.__dict__, "shape", lambda *a, **k: calls.append(a) or rule(*a, **k))
    model = Model()
    for _ in range(12):
        model += Convolution2D(4, 3, padding=1)
    infer(model, {"input": [2, 4, 8, 8]})
    assert len(calls) == 1


def test_signatures():
    sizes = Sizes()
    input, weight = Value("x", (2, Dim("n"), 6), DType.float32), Value("w", Variadic(), DType.float32)
    weight.kind = "parameter"
    shapes = apply_signature(
        parse("... i, o i/groups -> ... o"), [input, weight], {"groups": 2}, sizes, ("input", "weight")
    )
    assert weight.shape[1] == 3
    assert shapes[0][:2] == (2, Dim("n"))
    other = Value("w", (4, 4), DType.float32)
    with pytest.raises(ml.MithrilError, match=r"weight has shape \(4, 4\) where"):
        apply_signature(parse("... i, o i/groups"), [input, other], {"groups": 2}, sizes, ("input", "weight"))


def test_duplicates_and_dead_code_go():
    x = IOKey("x")
    model = Model.create(out=x.exp() + x.exp(), unused=x.sin())
    graph = infer(model, {"x": [3]})
    del graph.outputs["unused"]
    graph = verify(remove_dead(remove_duplicates(graph)))
    assert [n.op.name for n in graph.nodes] == ["exp", "add"]


def test_constants_are_folded():
    k = IOKey("k")
    model = Model.create(out=IOKey("x") * k.exp().sum(axis=0))
    compiled = ml.compile(model, ml.NumpyBackend(dtype=ml.float64), constant_keys={"k": np.arange(3.0)})
    assert [n.op.name for n in compiled.graph.nodes] == ["multiply"]
    expected = 2 * np.exp(np.arange(3.0)).sum()
    np.testing.assert_allclose(compiled.evaluate({}, {"x": np.array([2.0])})["out"], [expected])


def test_the_verifier_finds_what_passes_break():
    graph = infer(mlp(), {"input": [2, 8]})
    graph.nodes.reverse()
    with pytest.raises(AssertionError, match="before it is computed"):
        verify(graph)
    value = Value("y", (2,), DType.float32)
    node = Node(op("exp").op, (value,), {}, (Value("z", (2,), DType.float32),))
    with pytest.raises(AssertionError, match="before it is computed"):
        verify(Graph("g", {}, [node], {"z": node.outputs[0]}))
