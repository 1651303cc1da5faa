"""compile and the models it returns: keys, state, gradients, the same numbers on every backend."""

import subprocess
import sys

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from tests.mithril.layers import BatchNorm2D, Convolution2D, LayerNorm, Linear, op

DATA = np.random.default_rng(0).standard_normal((2, 3, 8, 8))


def network():
    """Convolution, batch norm, a shortcut, attention over pixels, and a scalar loss beside the logits."""
    model = Model(name="net")
    model += Convolution2D(8, 3, padding=1, name="stem")(input="image")
    model += BatchNorm2D(name="bn")
    shortcut = model.cout
    model += op("relu")
    model |= op("add")(left=shortcut, right=model.cout, output="features")
    tokens = model.features.flatten(2).transpose(0, 2, 1)
    q, k = Linear(8, name="q")(tokens), Linear(8, name="k")(tokens)
    mixed = op("scaled_dot_product_attention")(query=q, key=k, value=tokens)
    pooled = LayerNorm(name="norm")(mixed + tokens).mean(axis=1)
    model |= Linear(4, name="head")(pooled, output=IOKey("logits"))
    model |= op("buffer")((model.logits * model.logits).mean(), output=IOKey("loss"))
    return model


def evaluate_all(backend, **options):
    compiled = ml.compile(network(), backend, shapes={"image": [None, 3, 8, 8]}, data_keys={"image"}, **options)
    params, image = compiled.randomize_params(0), backend.array(DATA)
    outputs, gradients, state = compiled.evaluate_all(params, {"image": image}, {"loss": backend.full((), 1.0)})
    plain, plain_state = compiled.evaluate(params, {"image": image}, state={})
    arrays = [outputs, gradients, state, plain, plain_state]
    return [{k: backend.to_numpy(v) for k, v in part.items()} for part in arrays]


@pytest.fixture(scope="module")
def reference():
    return evaluate_all(ml.NumpyBackend(dtype=ml.float64))


@pytest.mark.parametrize("name", ["torch", "jax", "mlx"])
def test_every_backend_gives_the_same_numbers(needed, name, reference):
    needed(name)
    backend = {"torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}[name]
    found = evaluate_all(getattr(ml, backend)())
    for ours, expected in zip(found, reference):
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(ours[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


def test_numpy_gradients_agree_with_finite_differences(reference):
    compiled = ml.compile(network(), ml.NumpyBackend(dtype=ml.float64), shapes={"image": [2, 3, 8, 8]})
    params = compiled.randomize_params(0)
    for key in ("stem_weight", "bn_weight", "q_weight", "norm_bias", "head_weight"):
        step = np.random.default_rng(1).standard_normal(params[key].shape)
        losses = [
            compiled.evaluate({**params, key: params[key] + sign * 1e-6 * step}, {"image": DATA})["loss"]
            for sign in (1, -1)
        ]
        slope = (losses[0] - losses[1]) / 2e-6
        np.testing.assert_allclose((reference[1][key] * step).sum(), slope, rtol=1e-4, atol=1e-7)


def test_state_is_returned_in_training_and_read_in_inference():
    backend = ml.NumpyBackend()
    options = {"shapes": {"image": [2, 3, 8, 8]}, "data_keys": {"image"}}
    training = ml.compile(network(), backend, **options)
    params, data = training.randomize_params(0), {"image": DATA}
    state = training.initial_state()
    assert set(state) == {"bn_running_mean", "bn_running_var"}
    first, state = training.evaluate(params, data, state)
    _, again = training.evaluate(params, data, state)
    assert not np.allclose(state["bn_running_mean"], again["bn_running_mean"])
    inference = ml.compile(network(), backend, inference=True, **options)
    outputs, same = inference.evaluate(params, data, state)
    assert all(same[key] is state[key] for key in state)
    np.testing.assert_allclose(outputs["loss"], inference.evaluate({**params, **state}, data)["loss"])
    assert not np.allclose(outputs["loss"], first["loss"])


def test_random_operators_follow_the_key():
    model = Model(name="noise")
    model += op("dropout", rate=0.5)(input="x")
    model += op("dropout", rate=0.5)
    compiled = ml.compile(model, ml.NumpyBackend())
    data = {"x": np.ones((8, 8), np.float32)}
    one, state = compiled.evaluate({}, data, compiled.initial_state(3))
    same, _ = compiled.evaluate({}, data, compiled.initial_state(3))
    other, _ = compiled.evaluate({}, data, state)
    np.testing.assert_array_equal(one["output"], same["output"])
    assert not np.array_equal(one["output"], other["output"])
    assert (one["output"] == 0).sum() > (8 * 8) * 0.55  # the two masks differ
    still = ml.compile(model, ml.NumpyBackend(), inference=True)
    np.testing.assert_array_equal(still.evaluate({}, data)["output"], data["x"])
    assert still.state_keys == []


def test_keys_are_data_parameters_or_constants():
    model = Model()
    model |= Linear(2, name="fc")(input=IOKey("x") + IOKey("offset"), output=IOKey("y"))
    model |= op("exp")(input="y", output=IOKey("z"))
    backend = ml.NumpyBackend()
    assert ml.compile(model, backend).data_keys == ["x", "offset"]
    given = ml.compile(model, backend, shapes={"x": [2, 3], "offset": [3]}, data_keys={"x"}, trainable_keys={"fc_bias"})
    assert given.parameter_keys == ["offset", "fc_weight", "fc_bias"]
    assert given.trainable_keys == ["fc_bias"]
    gradient = given.evaluate_gradients(given.randomize_params(), {"x": np.ones((2, 3))}, {"y": np.ones((2, 2))})
    np.testing.assert_allclose(gradient["fc_bias"], [2, 2])
    fixed = ml.compile(model, backend, constant_keys={"offset": np.ones(3)}, discard_keys={"z"})
    assert (fixed.data_keys, fixed.output_keys) == (["x"], ["y"])


def test_any_batch_size_runs_when_none_was_fixed():
    compiled = ml.compile(network(), ml.NumpyBackend(), shapes={"image": [None, 3, 8, 8]}, inference=True)
    params = compiled.randomize_params(0)
    whole = compiled.evaluate(params, {"image": np.concatenate([DATA, DATA])})["logits"]
    half = compiled.evaluate(params, {"image": DATA})["logits"]
    np.testing.assert_allclose(whole[:2], half, rtol=1e-4, atol=1e-5)


def test_summary_counts_parameters():
    compiled = ml.compile(network(), ml.NumpyBackend(), shapes={"image": [1, 3, 8, 8]})
    lines = compiled.summary().splitlines()
    count = sum(np.prod(compiled.shapes[key]) for key in compiled.parameter_keys)
    assert f"{count} parameters" in lines[0]
    assert any(line.split() == ["parameter", "stem_weight", "float32", "(8,", "3,", "3,", "3)"] for line in lines)


def test_params_and_data_may_be_given_in_either_place_and_as_lists():
    model = Model.create(out=IOKey("x") * IOKey("w", trainable=True))
    compiled = ml.compile(model, ml.NumpyBackend())
    assert compiled.evaluate({"x": [1.0, 2.0], "w": 2.0})["out"].tolist() == [2.0, 4.0]


def test_source_is_shown_in_tracebacks():
    import traceback

    model = Model.create(out=IOKey("x") @ IOKey("y"))
    compiled = ml.compile(model, ml.NumpyBackend())
    with pytest.raises(ValueError, match="matmul") as caught:
        compiled.evaluate({}, {"x": np.ones((2, 3), np.float32), "y": np.ones((4, 2), np.float32)})
    assert "out = x @ y" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_import_loads_no_framework():
    code = "import sys, mithril; print([m for m in ('torch', 'jax', 'mlx', 'numpy') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_gradients_stop_at_detach():
    x = IOKey("x", shape=[3], trainable=True)
    model = Model.create(out=(x * op("detach")(x)).sum())
    compiled = ml.compile(model, ml.NumpyBackend())
    found = compiled.evaluate_gradients({"x": np.array([1.0, 2.0, 3.0])})
    np.testing.assert_allclose(found["x"], [1, 2, 3])


def test_inputs_that_no_output_needs_may_be_left_out_or_given():
    model = Model.create(loss=(IOKey("x") - IOKey("target")).mean(), out=IOKey("x") * IOKey("w", trainable=True))
    compiled = ml.compile(model, ml.NumpyBackend(), discard_keys={"loss"})
    assert compiled.data_keys == ["x"]
    x, w = np.ones(3, np.float32), np.full(3, 2, np.float32)
    for data in ({"x": x}, {"x": x, "target": x}):
        np.testing.assert_allclose(compiled.evaluate({"w": w}, data)["out"], [2, 2, 2])


def test_an_input_can_be_given_gradients_too():
    model = Model.create(out=(IOKey("x") * IOKey("x")).sum())
    compiled = ml.compile(model, ml.NumpyBackend(), shapes={"x": [3]}, trainable_keys={"x"})
    x = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(compiled.evaluate_gradients({}, {"x": x})["x"], 2 * x)


def test_source_makes_its_tensors_on_the_device_of_the_backend(needed):
    torch = needed("torch")
    backend = ml.TorchBackend(device="meta")
    x = IOKey("x", shape=[None, 3])
    model = Model.create(out=x + op("arange")(stop=x.shape[0])[:, None])
    out = ml.compile(model, backend).evaluate({}, {"x": torch.empty(2, 3, device="meta")})["out"]
    assert out.device.type == "meta"
    assert out.shape == (2, 3)


def test_statistics_start_at_0_and_variances_at_1_whatever_the_names_around_them():
    model = Model(name="variants")
    for name in ("var", "invariant", "variance_mean", "mean"):
        model += BatchNorm2D(name=name)(**({"input": "image"} if name == "var" else {}))
    state = ml.compile(model, ml.NumpyBackend(), shapes={"image": [2, 3, 4, 4]}, data_keys={"image"}).initial_state()
    assert len(state) == 8
    for key, value in state.items():
        assert set(np.ravel(value)) == {1.0 if key.endswith("running_var") else 0.0}, key


def test_parameters_start_with_the_variance_of_their_fan_in():
    model = Model()
    model += Convolution2D(64, 3, name="conv")(input="image")
    model |= Linear(50, name="head")(model.cout.mean(axis=(2, 3)), output=IOKey("output"))
    compiled = ml.compile(model, ml.NumpyBackend(), shapes={"image": [2, 32, 6, 6]}, data_keys={"image"})
    found = compiled.randomize_params(0)
    assert found["conv_weight"].std() * np.sqrt(32 * 9) == pytest.approx(1, abs=0.02)
    assert found["head_weight"].std() * np.sqrt(64) == pytest.approx(1, abs=0.05)
