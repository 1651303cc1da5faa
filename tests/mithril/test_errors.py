"""Golden texts: what is wrong, the path of the connection, both shapes, where each was set, the nearest right name."""

import re
import subprocess
import sys

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from mithril.errors import MithrilError
from tests.mithril.layers import BatchNorm2D, Convolution2D, Linear, op

BACKEND = ml.NumpyBackend()


def message(action) -> str:
    """The error's text, lines of this file as `here`."""
    with pytest.raises(MithrilError) as caught:
        action()
    text = re.sub(r"test_errors\.py:\d+|layers\.py:\d+", "here", str(caught.value))
    return "\n".join(line.rstrip() for line in text.splitlines())


def block(channels):
    inner = Model(name="layer2_0")
    inner += Convolution2D(channels, 3, padding=1, name="conv1")(input="input")
    inner += op("relu")
    return inner


def resnet():
    model = Model(name="resnet")
    model += Convolution2D(4, 3, padding=1, name="stem")(input="input")
    model += block(8)
    model += op("flatten", start_dim=1)
    model += Linear(10, name="fc")(output=IOKey("logits"))
    return model


def compiled(**options):
    return ml.compile(resnet(), BACKEND, shapes={"input": [2, 3, 8, 8]}, **options)


def test_wrong_weight_shape_at_compile():
    shapes = {"input": [2, 3, 8, 8], "layer2_0_conv1_weight": [8, 3, 3, 3]}
    assert message(lambda: ml.compile(resnet(), BACKEND, shapes=shapes)) == (
        "resnet.layer2_0.conv1.weight has shape (8, 3, 3, 3) where (8, 4, kh, kw) is needed.\n"
        "  resnet.layer2_0.conv1.input: float32 (2, 4, 8, 8), computed by resnet.stem (conv2d, here)\n"
        "  resnet.layer2_0.conv1.weight: float32 (8, 3, 3, 3), given to compile in shapes\n"
        "  resnet.layer2_0.conv1.bias: float32 (8,), declared at here\n"
        "  operator conv2d, whose rule is n i h w, o i/groups kh kw, o, composed at here"
    )


def test_convolution_on_a_2d_input():
    assert message(lambda: ml.compile(resnet(), BACKEND, shapes={"input": [2, 3]})) == (
        "resnet.stem.input has 2 dimensions, (2, 3), where 4 are needed: (n, i, h, w).\n"
        "  resnet.stem.input: float32 (2, 3), given to compile in shapes\n"
        "  resnet.stem.weight: float32 (4, stem_weight_1, 3, 3), declared at here\n"
        "  resnet.stem.bias: float32 (4,), declared at here\n"
        "  operator conv2d, whose rule is n i h w, o i/groups kh kw, o, composed at here"
    )


def test_wrong_input_shape_against_a_declared_weight():
    shapes = {"input": [2, 5, 8, 8], "stem_weight": [4, 3, 3, 3]}
    text = message(lambda: ml.compile(resnet(), BACKEND, shapes=shapes))
    assert text.startswith("resnet.stem.weight has shape (4, 3, 3, 3) where (4, 5, kh, kw) is needed.")
    assert "resnet.stem.input: float32 (2, 5, 8, 8), given to compile in shapes" in text


def test_operands_that_do_not_broadcast():
    model = Model(name="net")
    model |= Linear(3, name="a")(input="x", output="left")
    model |= Linear(4, name="b")(input="x", output="right")
    model |= op("add")(left="left", right="right")
    assert message(lambda: ml.compile(model, BACKEND, shapes={"x": [2, 5]})) == (
        "net.add_0: (2, 3) and (2, 4) do not broadcast: sizes 3 and 4 must be equal or 1.\n"
        "  net.add_0.left: float32 (2, 3), computed by net.a (linear, here)\n"
        "  net.add_0.right: float32 (2, 4), computed by net.b (linear, here)\n"
        "  operator add, composed at here"
    )


def test_a_declared_shape_that_does_not_hold():
    model = Model.create(out=IOKey("x", shape=["n", 3]) + 1.0)
    assert message(lambda: ml.compile(model, BACKEND, shapes={"x": [4, 4]})) == (
        "model.x has shape (4, 4), but (n, 3) was declared.\n"
        "  declared at here\n"
        "  (4, 4) was given to compile in shapes"
    )


def test_cycle():
    def compose():
        model = Model(name="net")
        model |= op("exp")(input="a", output="b")
        model |= op("sin")(input="b", output="a")

    assert message(compose) == (
        "'net.a' depends on itself: sin_0 <- exp_0 <- sin_0.\n  sin_0 was added at here\n  exp_0 was added at here"
    )


def test_two_writers():
    def compose():
        model = Model(name="net")
        model |= op("exp")(input="a", output="b")
        model |= op("sin")(input="a", output="b")

    assert message(compose) == (
        "'net.b' has two writers: 'exp_0' and 'sin_0'.\n  first written at here\n  again at here"
    )


def test_unknown_key_of_a_call():
    assert message(lambda: Linear(3, name="fc")(inptu="x")) == (
        "Linear(name='fc') has no key 'inptu'. Did you mean 'input'?\n  called at here"
    )


def test_unknown_attribute_of_an_operator():
    assert message(lambda: op("concat", axs=1)) == "Concat has no attribute 'axs'. Did you mean 'axis'?"


def test_unknown_attribute_of_a_model():
    with pytest.raises(AttributeError, match=r"no connection or submodel 'layer2'\. Did you mean 'layer2_0'"):
        _ = resnet().layer2


def test_a_connection_of_a_stranger():
    def compose():
        other = Model(name="other")
        other += op("exp")(input="x", output="y")
        model = Model(name="net")
        model |= op("sin")(input=other.y)

    assert message(compose) == (
        "'other.y' belongs to Model(name='other'), which is not part of Model(name='net').\n  used at here"
    )


def test_unknown_keys_of_compile():
    assert message(lambda: ml.compile(resnet(), BACKEND, data_keys={"imput"})) == (
        "data_keys has 'imput', which resnet does not have as an input.\n  'imput': Did you mean 'input'?"
    )
    assert message(lambda: compiled(discard_keys={"logit"})) == (
        "discard_keys has 'logit', which is no output. Did you mean 'logits'?"
    )


def test_all_problems_of_params_and_data_in_one_list():
    model = compiled()
    params = model.randomize_params(0)
    params["layer2_0_conv1_wieght"] = params.pop("layer2_0_conv1_weight")
    params["fc_weight"] = np.zeros((10, 3), np.float32)
    params["fc_bias"] = np.zeros(10, np.int64)
    params["gamma"] = np.zeros(3, np.float32)
    assert message(lambda: model.evaluate(params, {"input": np.zeros((2, 4, 8, 8), np.float32)})) == (
        "resnet cannot run with these values:\n"
        "  'fc_weight' has shape (10, 3), but (10, 512) is needed (resnet.fc.weight, declared at here).\n"
        "  'fc_bias' is int64, but float32 is needed (resnet.fc.bias, the dtype of NumpyBackend(dtype=float32)).\n"
        "  'layer2_0_conv1_wieght' in params is no key of resnet. Did you mean 'layer2_0_conv1_weight'?\n"
        "  'gamma' in params is no key of resnet. There are 'input', 'stem_weight', 'stem_bias',"
        " 'layer2_0_conv1_weight', 'layer2_0_conv1_bias', 'fc_weight', 'fc_bias'.\n"
        "  'input' has shape (2, 4, 8, 8), but (2, 3, 8, 8) is needed (resnet.input, given to compile in shapes).\n"
        "  'layer2_0_conv1_weight' (8, 4, 3, 3) is missing from params (resnet.layer2_0.conv1.weight)."
    )


def test_missing_data():
    model = compiled()
    assert message(lambda: model.evaluate(model.randomize_params(0))) == (
        "resnet cannot run with these values:\n  'input' (2, 3, 8, 8) is missing from data (resnet.input)."
    )


def test_wrong_dtype_of_data():
    model = compiled()
    image = np.zeros((2, 3, 8, 8), np.uint8)
    assert message(lambda: model.evaluate(model.randomize_params(0), {"input": image})) == (
        "resnet cannot run with these values:\n  'input' is uint8, but float32 is needed"
        " (resnet.input, the dtype of NumpyBackend(dtype=float32))."
    )


def test_integers_where_they_are_needed():
    model = Model(name="tokens")
    model |= op("embedding")(input="ids", weight=IOKey("table", shape=[10, 4], trainable=True), output=IOKey("out"))
    embed = ml.compile(model, BACKEND)
    assert embed.types["ids"] is ml.int64
    params = embed.randomize_params(0)
    assert embed.evaluate(params, {"ids": np.array([1, 2], np.int32)})["out"].shape == (2, 4)
    assert message(lambda: embed.evaluate(params, {"ids": np.zeros(2, np.float32)})) == (
        "tokens cannot run with these values:\n  'ids' is float32, but an integer dtype is needed (tokens.ids, as declared)."
    )
    model.set_types(ids=ml.float32)
    text = message(lambda: ml.compile(model, BACKEND))
    assert text.startswith("tokens.embedding_0.input is float32 where int values are needed.")


def test_sizes_that_must_agree_at_run_time():
    x, y = IOKey("x", shape=["n", 3]), IOKey("y", shape=["n", 3])
    model = ml.compile(Model.create(out=x + y), BACKEND)
    assert message(lambda: model.evaluate({}, {"x": np.zeros((2, 3), "f"), "y": np.zeros((4, 3), "f")})) == (
        "model cannot run with these values:\n  'y' has 4 where n is 2 in 'x'."
    )


def test_open_shapes_of_parameters():
    assert message(lambda: ml.compile(resnet(), BACKEND).randomize_params()) == (
        "The shape (4, stem_weight_1, 3, 3) of 'stem_weight' is open.\n"
        "  It follows from the shapes of the data: compile with shapes={'input': [None, 3, 224, 224]}."
    )


def test_output_gradients():
    model = compiled()
    params, data = model.randomize_params(0), {"input": np.zeros((2, 3, 8, 8), np.float32)}
    assert message(lambda: model.evaluate_gradients(params, data)) == (
        "output_gradients are needed: the outputs logits are not one scalar."
    )
    assert message(lambda: model.evaluate_gradients(params, data, {"logit": 1.0})) == (
        "output_gradients has 'logit', which is no floating output. Did you mean 'logits'?"
    )


def test_state_is_not_missing_when_it_is_left_out():
    model = Model(name="net")
    model += BatchNorm2D(name="bn")(input="input", output=IOKey("output"))
    bn = ml.compile(model, BACKEND, shapes={"input": [2, 3, 4, 4]}, inference=True)
    assert bn.state_keys == ["bn_running_mean", "bn_running_var"]
    assert message(lambda: bn.evaluate({}, {"input": np.zeros((2, 3, 4, 4), "f")})) == (
        "net cannot run with these values:\n"
        "  'bn_weight' (3,) is missing from params (net.bn.weight).\n"
        "  'bn_bias' (3,) is missing from params (net.bn.bias)."
    )


def test_backend_that_cannot_be_imported():
    code = (
        "import sys; sys.modules['mlx'] = None\n"
        "import mithril as ml\n"
        "try:\n    ml.MlxBackend()\nexcept ml.MithrilError as error:\n    print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("MlxBackend cannot be used here: ")
    assert "pip install 'mlx[cpu]'" in printed


def test_two_inputs_with_one_key():
    inner = Model(name="a")
    inner += Linear(3, name="b_c")
    outer = Model(name="a_b")
    outer += Linear(3, name="c")
    model = Model(name="net")
    model += inner
    model += outer
    assert message(lambda: ml.compile(model, BACKEND)) == (
        "'a.b_c.weight' and 'a_b.c.weight' would both have the key 'a_b_c_weight'; rename one of them."
    )


def test_names_are_identifiers():
    assert message(lambda: Model(name="a.b")) == "'a.b' cannot name a model: a name is a Python identifier."
    assert message(lambda: IOKey("1x")) == "'1x' cannot name a connection: a name is a Python identifier."
    assert message(lambda: IOKey("x", shape=[-1])) == "The shape [-1] of 'x' has the negative size -1."


def test_wrong_arguments_of_compile():
    assert message(lambda: ml.compile(resnet(), "torch")) == (
        "'torch' is not a backend; pass one such as ml.TorchBackend()."
    )
    assert message(lambda: ml.compile("resnet", BACKEND)) == "'resnet' is not a Model."
    assert message(lambda: ml.compile(resnet(), BACKEND, shapes={"input": 3})) == (
        "The shape 3 of 'input' is not a list of sizes."
    )
    assert message(lambda: ml.compile(resnet(), BACKEND, shapes={"input": [2, 0.5, 8, 8]})) == (
        "The shape [2, 0.5, 8, 8] of 'input' has the size 0.5; a size is a number, a name, None or '...'."
    )
    assert ml.compile(resnet(), BACKEND, data_keys="input").data_keys == ["input"]
