"""What `+=`, `|=`, calls, names and expressions record."""

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model, Operator
from mithril.errors import ConnectionError, OperatorError
from tests.mithril.layers import Convolution2D, Linear, op

BACKEND = ml.NumpyBackend(dtype=ml.float64)


def run(model, data, **options):
    """Outputs of a compiled model on given arrays."""
    compiled = ml.compile(model, BACKEND, shapes={k: v.shape for k, v in data.items()}, **options)
    return compiled.evaluate(compiled.randomize_params(0), data)


def array(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def test_models_are_chained_from_output_to_input():
    model = Model()
    model += op("relu")(input="input")
    model += op("exp")
    model += op("negative")
    x = array(2, 3)
    np.testing.assert_allclose(run(model, {"input": x})["output"], -np.exp(np.maximum(x, 0)))


def test_an_unnamed_model_can_open_a_chain():
    model = Model()
    model |= op("exp")
    model += op("negative")
    x = array(2, 3)
    np.testing.assert_allclose(run(model, {"input": x})["output"], -np.exp(x))


def test_a_shortcut_beside_the_main_path_does_not_steal_the_output():
    block = Model()
    block += op("exp")
    block += op("sin")
    shortcut = Model()
    shortcut += op("cos")
    block |= shortcut(input=block.cin, output="shortcut")
    block |= op("add")(left="shortcut", right=block.cout, output="res")
    block += op("negative")(input="res")
    x = array(2, 3)
    np.testing.assert_allclose(run(block, {"input": x})["output"], -(np.cos(x) + np.sin(np.exp(x))))


def test_a_reader_of_the_output_takes_it_over():
    model = Model()
    model += op("exp")(input="input")
    kept = model.cout
    model |= op("sin")(input="input", output="aside")
    assert model.cout is kept
    model |= op("add")(left=kept, right="aside", output="sum")
    assert model.cout is model.connection("sum")


def test_submodels_connections_stand_for_those_of_the_outer_model():
    backbone = Model(name="backbone")
    backbone += op("exp")(input="input", output="inner")
    backbone += op("sin")
    model = Model()
    model |= backbone
    model |= op("negative")(input=backbone.cout, output=IOKey("head"))
    model |= op("cos")(input=backbone.inner, output=IOKey("early"))
    x = array(4)
    outputs = run(model, {"input": x})
    np.testing.assert_allclose(outputs["head"], -np.sin(np.exp(x)))
    np.testing.assert_allclose(outputs["early"], np.cos(np.exp(x)))


def test_calls_are_values_and_enter_the_model_once():
    cell = Model()
    c = IOKey("c")
    cell |= op("split", split_size=2, axis=1)(input="input", output="pieces")
    i = op("sigmoid")(cell.pieces[0])
    f = op("sigmoid")(cell.pieces[1])
    new = f * c + i * 2
    cell |= op("buffer")(new, output=IOKey("new"))
    cell |= op("buffer")(new - c, output=IOKey("change"))
    x, state = array(3, 4), array(3, 2)
    outputs = run(cell, {"input": x, "c": state})
    gates = 1 / (1 + np.exp(-x))
    expected = gates[:, 2:] * state + gates[:, :2] * 2
    np.testing.assert_allclose(outputs["new"], expected)
    np.testing.assert_allclose(outputs["change"], expected - state)
    assert sum(node.model.type_name == "Sigmoid" for node in cell.nodes) == 2


def test_strings_in_lists_name_connections():
    model = Model()
    model |= op("exp")(input="a", output="b")
    model |= op("concat", axis=0)(input=["a", "b"], output=IOKey("out"))
    x = array(3)
    np.testing.assert_allclose(run(model, {"a": x})["out"], np.concatenate([x, np.exp(x)]))


def test_a_connection_may_bear_the_name_of_a_submodel():
    model = Model()
    model |= Linear(3, name="ln_1")(input="input", output="ln_1")
    model |= op("buffer")(model.ln_1.transpose((1, 0)), output=IOKey("out"))
    assert run(model, {"input": array(2, 5)})["out"].shape == (3, 2)
    only_submodel = Model()
    only_submodel |= Linear(3, name="fc")(input="input")
    only_submodel |= op("buffer")(only_submodel.fc.transpose((1, 0)) * 1.0, output=IOKey("out"))
    assert run(only_submodel, {"input": array(2, 5)})["out"].shape == (3, 2)


def test_sizes_are_values():
    x = IOKey("x")
    mean = x.sum(axis=0) / x.shape[0]
    model = Model.create(mean=mean, flat=x.reshape(x.shape[0] * x.shape[1]), half=x[: x.shape[0] // 2])
    value = array(4, 3)
    outputs = run(model, {"x": value})
    np.testing.assert_allclose(outputs["mean"], value.mean(0))
    np.testing.assert_allclose(outputs["flat"], value.ravel())
    np.testing.assert_allclose(outputs["half"], value[:2])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda x, y: x - y / 2, lambda x, y: x - y / 2),
        (lambda x, y: 2 - x**2, lambda x, y: 2 - x**2),
        (lambda x, y: x @ y.T, lambda x, y: x @ y.T),
        (lambda x, y: abs(-x).sqrt(), lambda x, y: np.sqrt(np.abs(x))),
        (lambda x, y: (x > y) & (x > 0.0), lambda x, y: (x > y) & (x > 0)),
        (lambda x, y: x.mean(axis=1, keepdims=True) + y.max(axis=0), lambda x, y: x.mean(1, keepdims=True) + y.max(0)),
        (lambda x, y: x[:, None, 1:], lambda x, y: x[:, None, 1:]),
        (lambda x, y: x.var(axis=-1), lambda x, y: x.var(-1)),
        (lambda x, y: x[y[0].argmax(axis=0)], lambda x, y: x[y[0].argmax(0)]),
    ],
)
def test_expressions(expression, expected):
    x, y = array(3, 3), array(3, 3) + 0.1
    model = Model.create(out=expression(IOKey("x"), IOKey("y")))
    data = {key: value for key, value in {"x": x, "y": y}.items() if key in model.input_keys}
    np.testing.assert_allclose(run(model, data)["out"], expected(x, y))


def test_parameter_keys_are_paths_of_names():
    inner = Model(name="layer1_0")
    inner += Convolution2D(2, 3, name="conv1")
    inner += Convolution2D(2, 3)
    model = Model(name="net")
    model += inner
    model += Linear(2)
    model += Linear(2)
    keys = ml.compile(model, BACKEND).parameter_keys
    assert keys[::2] == [
        "layer1_0_conv1_weight",
        "layer1_0_convolution2d_0_weight",
        "linear_0_weight",
        "linear_1_weight",
    ]


def test_using_a_model_twice_says_whether_weights_are_shared():
    layer = Linear(4, name="fc")
    model = Model()
    model += layer(input="input")
    model += layer.shared()
    model += layer.copy(name="own")
    compiled = ml.compile(model, BACKEND, shapes={"input": [2, 4]})
    assert compiled.parameter_keys == ["fc_weight", "fc_bias", "own_weight", "own_bias"]
    params, x = compiled.randomize_params(0), array(2, 4)
    twice = (x @ params["fc_weight"].T + params["fc_bias"]) @ params["fc_weight"].T + params["fc_bias"]
    expected = twice @ params["own_weight"].T + params["own_bias"]
    np.testing.assert_allclose(compiled.evaluate(params, {"input": x})["output"], expected)
    with pytest.raises(ConnectionError, match=r"already part of .* Add a copy\(\)"):
        model += layer


def test_a_weight_can_be_wired_to_another_layer():
    model = Model()
    first = Linear(4, name="first")
    model += first(input="input")
    model |= Linear(4, name="second")(input=model.cout, weight=first.weight, output="out")
    assert ml.compile(model, BACKEND).parameter_keys == ["first_weight", "first_bias", "second_bias"]


def test_parameterless_models_may_be_added_again():
    model, act = Model(), op("exp")
    model += act
    model += act
    x = array(2)
    np.testing.assert_allclose(run(model, {"input": x})["output"], np.exp(np.exp(x)))


def test_keys_can_be_changed_until_the_model_is_frozen():
    model = Model()
    model |= op("exp")(input="a", output="b")
    model |= op("sin")(input="c", output="d")
    model.rename_key("a", "x").merge_connections("b", "c").expose_keys("b", last="d").set_cin("x").set_cout("b")
    x = array(3)
    outputs = run(model, {"x": x})
    np.testing.assert_allclose(outputs["last"], np.sin(np.exp(x)))
    np.testing.assert_allclose(outputs["b"], np.exp(x))
    model.freeze()
    with pytest.raises(ConnectionError, match="frozen"):
        model.rename_key("x", "y")
    with pytest.raises(ConnectionError, match="frozen"):
        model += op("exp")


def test_declared_values_types_and_shapes():
    model = Model()
    model |= op("multiply")(left="x", right="scale", output=IOKey("y"))
    model.set_values(scale=2.0).set_types(x=ml.float64).set_shapes(x=["n", 3])
    compiled = ml.compile(model, BACKEND)
    assert compiled.data_keys == ["x"]
    assert compiled.shapes == {"x": [None, 3], "y": [None, 3]}
    np.testing.assert_allclose(compiled.evaluate({}, {"x": np.ones((2, 3))})["y"], 2 * np.ones((2, 3)))


def test_order_of_composition_does_not_matter():
    model = Model()
    model |= op("sin")(input="b", output=IOKey("c"))
    model |= op("exp")(input="a", output="b")
    x = array(3)
    np.testing.assert_allclose(run(model, {"a": x})["c"], np.sin(np.exp(x)))


class Halves(Operator):
    """Swaps the halves of the last axis; the code needs its size."""

    def __init__(self, scale, name=None):
        super().__init__(name=name)
        self.scale = scale

    def create_model(self):
        model, input = Model(), IOKey("input")
        _, width = input.shape
        swapped = op("concat", axis=1)([input[:, width // 2 :], input[:, : width // 2]])
        model |= op("buffer")(swapped * self.scale, output=IOKey("output"))
        return model


def test_an_operator_is_written_when_ranks_are_known():
    model = Model()
    model += op("exp")(input="input")
    model += Halves(2.0)
    x = array(3, 4)
    expected = 2 * np.exp(x)[:, [2, 3, 0, 1]]
    np.testing.assert_allclose(run(model, {"input": x})["output"], expected)
    compiled = ml.compile(model, BACKEND, shapes={"input": [None, None]})
    np.testing.assert_allclose(compiled.evaluate({}, {"input": x})["output"], expected)
    with pytest.raises(OperatorError, match="Halves needs the rank of its input 'input'"):
        ml.compile(model, BACKEND)


def test_an_operator_alone_has_keys_without_prefix():
    class Twice(Operator):
        def create_model(self):
            model = Model()
            model |= Linear(3, name="fc")(input=IOKey("input"), output="h")
            model |= op("relu")(input="h", output=IOKey("output"))
            return model

    assert ml.compile(Twice(), BACKEND, shapes={"input": [2, 3]}).parameter_keys == ["fc_weight", "fc_bias"]


@pytest.mark.parametrize("build", [lambda: "text", lambda: 3, lambda: IOKey("x")])
def test_only_models_can_be_added(build):
    with pytest.raises(ConnectionError, match="Only models can be added"):
        Model().__ior__(build())


def test_a_model_grows_after_connections_were_merged():
    model = Model()
    model |= op("exp")(input="a")
    model |= op("sin")(input="b")
    model.merge_connections("a", "b")
    model += op("cos")
    model += op("tanh")
    x = array(3)
    np.testing.assert_allclose(run(model, {"a": x})["output"], np.tanh(np.cos(np.exp(x))))
    grown = Model.from_json(model.to_json())
    grown += op("absolute")
    grown += op("sqrt")
    expected = np.sqrt(np.abs(np.tanh(np.cos(np.exp(x)))))
    np.testing.assert_allclose(run(grown, {"a": x})["output"], expected)


def test_input_names_the_canonical_input_that_has_no_name():
    block = Model()
    block += op("exp")
    block |= op("add")(left="input", right=block.cout)
    model = Model()
    model += block(input="x")
    x = array(3)
    np.testing.assert_allclose(run(model, {"x": x})["output"], x + np.exp(x))
