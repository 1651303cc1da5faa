"""TrainModel: its loss and gradients against torch, its keys, metrics and errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mithril as ml
from mithril.errors import ConnectionError
from mithril.models import (
    AbsoluteError,
    Accuracy,
    BatchNorm2D,
    CrossEntropy,
    Dropout,
    F1Score,
    IOKey,
    Linear,
    Model,
    Precision,
    Recall,
    Relu,
    SquaredError,
    clip,
    gpt2,
    resnet18,
)
from mithril.training import TrainModel, l1, l2, parameters, tikhonov

RANDOM = np.random.default_rng(0)
X, LABELS, HEIGHTS = RANDOM.standard_normal((6, 4)), RANDOM.integers(0, 3, (6,)), RANDOM.standard_normal((6, 1))


def two_headed():
    model, trunk = Model(name="net"), Model(name="trunk")
    trunk |= Linear(5, name="fc")(input="input")
    trunk += Relu()
    model |= trunk(input="input", output="features")
    model |= Linear(3, name="head")(input="features", output=IOKey("logits"))
    model |= Linear(1, name="height")(input="features", output=IOKey("height"))
    return model


class TorchTwoHeaded(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.ModuleDict({"fc": nn.Linear(4, 5)})
        self.head, self.height = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, x):
        x = F.relu(self.trunk["fc"](x))
        return self.head(x), self.height(x)


def trained():
    train = TrainModel(two_headed())
    train.add_loss(CrossEntropy(), input="logits", target="labels")
    train.add_loss(SquaredError(), reduction="sum", weight=0.3, name="height_error", input="height", target="heights")
    train.add_loss(AbsoluteError(), weight=0.1, input="height", target="heights")
    train.add_regularization(l2, 0.05, pattern="weight$")
    train.add_regularization(l1, 0.02, pattern="^trunk_fc_bias$")
    train.add_regularization(tikhonov(np.diff(np.eye(3), axis=0)), 0.4, pattern="^head_weight")
    train.add_metric(Accuracy(), input="logits", target="labels")
    return train


def torch_loss(module):
    logits, height = module(torch.tensor(X))
    target, weight = torch.tensor(HEIGHTS), module.head.weight
    fit = F.cross_entropy(logits, torch.tensor(LABELS))
    error = F.mse_loss(height, target, reduction="sum")
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    penalty = 0.025 * sum((w**2).sum() for w in weights) + 0.02 * module.trunk["fc"].bias.abs().sum()
    penalty = penalty + 0.2 * ((weight[1:] - weight[:-1]) ** 2).sum()
    return fit + 0.3 * error + 0.1 * F.l1_loss(height, target) + penalty, {"cross_entropy": fit, "height_error": error}


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "mlx"])
def test_loss_and_gradients_equal_torch(needed, name):
    needed(name)
    double = name in ("numpy", "torch")
    classes = {"numpy": "NumpyBackend", "torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}
    backend = getattr(ml, classes[name])(dtype=ml.float64 if double else ml.float32)
    compiled = ml.compile(trained(), backend, shapes={"input": X.shape}, data_keys={"input", "labels", "heights"})
    torch.manual_seed(0)
    module = TorchTwoHeaded().double()
    params = {key.replace(".", "_"): backend.array(value.numpy()) for key, value in module.state_dict().items()}
    assert set(params) == set(compiled.parameter_keys)
    data = {"input": backend.array(X), "labels": backend.array(LABELS), "heights": backend.array(HEIGHTS)}
    outputs, gradients = compiled.evaluate_all(params, data, {"loss": 1.0})
    expected, terms = torch_loss(module)
    expected.backward()
    tolerance = {"rtol": 1e-9 if double else 2e-4, "atol": 1e-9 if double else 1e-5}
    for key, value in {"loss": expected, **terms}.items():
        np.testing.assert_allclose(backend.to_numpy(outputs[key]), value.detach().numpy(), **tolerance)
    for key, parameter in module.named_parameters():
        found = backend.to_numpy(gradients[key.replace(".", "_")])
        np.testing.assert_allclose(found, parameter.grad.numpy(), err_msg=key, **tolerance)
    logits = module(torch.tensor(X))[0].detach().numpy()
    np.testing.assert_allclose(float(outputs["accuracy"]), np.mean(logits.argmax(1) == LABELS), rtol=1e-6)


def test_keys_stay_those_of_the_model():
    model = two_headed()
    own = ml.compile(model, ml.NumpyBackend(), shapes={"input": X.shape})
    train = ml.compile(trained(), ml.NumpyBackend(), shapes={"input": X.shape})
    assert set(own.parameter_keys) == set(train.parameter_keys)
    assert own.output_keys == ["logits", "height"]
    terms = ["cross_entropy", "height_error", "absolute_error", "accuracy", "loss"]
    assert set(train.output_keys) == {*own.output_keys, *terms}
    own.evaluate(train.randomize_params(0), {"input": X})


@pytest.mark.parametrize("name", ["gpt2", "clip", "resnet18", "shared"])
def test_parameters_are_found_at_any_depth(name):
    if name == "shared":
        model, layer = Model(), Linear(4, name="fc")
        model += layer
        model += layer.shared()
        model += Linear(2, name="head")
    else:
        model = {"gpt2": lambda: gpt2(7, 5, 8, 2, 2), "clip": lambda: clip(8, 32, 1, 64, 16, 5, 7, 8, 2, 1)}.get(
            name, resnet18
        )()
    shapes = {"gpt2": {"input": [1, 3]}, "clip": {}, "shared": {"input": [1, 4]}}.get(name, {"input": [1, 3, 32, 32]})
    compiled = ml.compile(model, ml.NumpyBackend(), shapes=shapes)
    found = [key for key, _ in parameters(model)]
    assert sorted(found) == sorted(compiled.parameter_keys)


def test_a_bare_layer_can_be_trained():
    train = TrainModel(Linear(2)).add_loss(SquaredError(), input="output", target="target")
    train.add_regularization(l2, 1.0)
    compiled = ml.compile(
        train, ml.NumpyBackend(dtype=ml.float64), shapes={"input": (1, 3)}, data_keys={"input", "target"}
    )
    params = {"weight": np.ones((2, 3)), "bias": np.zeros(2)}
    found = compiled.evaluate(params, {"input": np.ones((1, 3)), "target": np.full((1, 2), 2.0)})
    np.testing.assert_allclose(found["loss"], 1.0 + 3.0)


def test_binary_metrics():
    data = {"input": np.array([2.0, -1.0, 0.5, 3.0, -2.0]), "target": np.array([1.0, 1.0, 0.0, 1.0, 0.0])}
    for metric, expected in (
        (Precision(), 2 / 3),
        (Recall(), 2 / 3),
        (F1Score(), 2 / 3),
        (Recall(2.5), 1 / 3),
        (Precision(9.0), 0),
    ):
        compiled = ml.compile(metric, ml.NumpyBackend(), shapes={"input": (5,)})
        np.testing.assert_allclose(compiled.evaluate({}, data)["output"], expected, rtol=1e-6)


def test_errors_say_what_to_change():
    train = TrainModel(two_headed())
    with pytest.raises(ValueError, match="reduction is 'average'; it must be 'mean', 'sum' or 'none'"):
        train.add_loss(SquaredError(), reduction="average", input="height", target="heights")
    with pytest.raises(ConnectionError, match=r"No parameter of .* fits the pattern 'hed_weight'.*head_weight"):
        train.add_regularization(l2, 0.1, "hed_weight")
    train.add_loss(SquaredError(), input="height", target="heights")
    with pytest.raises(ConnectionError, match="already has a connection named 'squared_error'; give another name"):
        train.add_loss(SquaredError(), input="height", target="heights")


def test_state_of_the_model_is_returned_beside_the_gradients():
    """Batch statistics and random keys; in inference mode they are only read."""
    model = Model()
    model += BatchNorm2D(4, name="norm")(input="input")
    model += Dropout(0.5)
    model |= Linear(1, name="fc")(model.cout, output=IOKey("output"))
    train = TrainModel(model).add_loss(SquaredError(), input="output", target="target")
    backend = ml.NumpyBackend(dtype=ml.float64)
    data, keys = {"input": X, "target": HEIGHTS}, {"input", "target"}
    compiled = ml.compile(train, backend, shapes={"input": X.shape}, data_keys=keys)
    params = compiled.randomize_params(0)
    _, gradients, state = compiled.evaluate_all(params, data, {"loss": 1.0})
    assert gradients.keys() == {"norm_weight", "norm_bias", "fc_weight", "fc_bias"}
    np.testing.assert_allclose(state["norm_running_mean"], 0.1 * X.mean(axis=0))
    again = compiled.evaluate_all(params, data, {"loss": 1.0}, state)[2]
    np.testing.assert_allclose(again["norm_running_mean"], 0.19 * X.mean(axis=0))
    assert (again["random_key"] != state["random_key"]).any()
    fixed = ml.compile(train, backend, shapes={"input": X.shape}, data_keys=keys, inference=True)
    statistics = {key: state[key] for key in ("norm_running_mean", "norm_running_var")}
    found = fixed.evaluate({**params, **statistics}, data)
    normed = (X - state["norm_running_mean"]) / np.sqrt(state["norm_running_var"] + 1e-5)
    expected = (normed * params["norm_weight"] + params["norm_bias"]) @ params["fc_weight"].T + params["fc_bias"]
    np.testing.assert_allclose(found["output"], expected)
