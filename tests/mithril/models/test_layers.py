"""Every layer against torch.nn: values and gradients, on NumPy and torch in float64, on JAX and MLX in float32."""

import numpy as np
import pytest
import torch
from torch import nn

import mithril as ml
from mithril import models as m

IMAGE, TOKENS = (2, 4, 7, 6), (2, 5, 8)


class TorchLast(nn.Module):
    """A recurrent torch layer that gives its outputs alone."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.forward = lambda x: layer(x)[0]

    def state_dict(self, *args, **kwargs):
        return self.layer.state_dict()


class TorchAttention(nn.MultiheadAttention):
    def forward(self, query, key, value):
        return super().forward(query, key, value, need_weights=False)[0]


class TorchMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_0, self.linear_1 = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.linear_1(torch.tanh(self.linear_0(x)))


LAYERS = {
    "linear": (lambda: m.Linear(3), lambda: nn.Linear(8, 3), {"input": TOKENS}),
    "linear without bias": (lambda: m.Linear(3, use_bias=False), lambda: nn.Linear(8, 3, bias=False), {"input": (8,)}),
    "mlp": (lambda: m.MLP([m.Tanh(), m.Buffer()], [6, 3]), TorchMLP, {"input": TOKENS}),
    "conv1d": (lambda: m.Convolution1D(6, 3, padding=1), lambda: nn.Conv1d(8, 6, 3, padding=1), {"input": (2, 8, 5)}),
    "conv2d": (
        lambda: m.Convolution2D(6, (3, 2), stride=2, padding=(1, 0), use_bias=False),
        lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), bias=False),
        {"input": IMAGE},
    ),
    "conv2d same": (
        lambda: m.Convolution2D(6, kernel_size=2, padding="same", dilation=2),
        lambda: nn.Conv2d(4, 6, 2, padding="same", dilation=2),
        {"input": IMAGE},
    ),
    "depthwise": (
        lambda: m.Convolution2D(8, 3, groups=4, padding=1),
        lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1),
        {"input": IMAGE},
    ),
    "conv3d": (lambda: m.Convolution3D(3, 2), lambda: nn.Conv3d(2, 3, 2), {"input": (2, 2, 3, 4, 3)}),
    "transposed conv1d": (
        lambda: m.TransposedConvolution1D(3, 4, stride=2, padding=1),
        lambda: nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1),
        {"input": (2, 8, 5)},
    ),
    "transposed conv2d": (
        lambda: m.TransposedConvolution2D(6, 3, stride=2, padding=1, output_padding=1, groups=2),
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        {"input": IMAGE},
    ),
    "batch norm 1d": (lambda: m.BatchNorm1D(), lambda: nn.BatchNorm1d(8), {"input": (4, 8)}),
    "batch norm 2d": (lambda: m.BatchNorm2D(4, eps=1e-3), lambda: nn.BatchNorm2d(4, eps=1e-3), {"input": IMAGE}),
    "batch norm without affine": (
        lambda: m.BatchNorm2D(4, affine=False),
        lambda: nn.BatchNorm2d(4, affine=False),
        {"input": IMAGE},
    ),
    "layer norm": (lambda: m.LayerNorm(), lambda: nn.LayerNorm(8), {"input": TOKENS}),
    "layer norm over two axes": (
        lambda: m.LayerNorm(eps=1e-3, dims=2, use_bias=False),
        lambda: nn.LayerNorm((5, 8), eps=1e-3, bias=False),
        {"input": TOKENS},
    ),
    "group norm": (lambda: m.GroupNorm(2), lambda: nn.GroupNorm(2, 4), {"input": IMAGE}),
    "rms norm": (lambda: m.RMSNorm(), lambda: nn.RMSNorm(8, eps=1e-6), {"input": TOKENS}),
    "attention": (
        lambda: m.MultiHeadAttention(8, 2),
        lambda: TorchAttention(8, 2, batch_first=True),
        {"query": (2, 3, 8), "key": (2, 5, 8), "value": (2, 5, 8)},
    ),
    "rnn cell": (lambda: m.RNNCell(6), lambda: nn.RNNCell(8, 6), {"input": (3, 8), "h": (3, 6)}),
    "gru cell": (lambda: m.GRUCell(6), lambda: nn.GRUCell(8, 6), {"input": (3, 8), "h": (3, 6)}),
    "rnn": (lambda: m.RNN(6), lambda: TorchLast(nn.RNN(8, 6, batch_first=True)), {"input": TOKENS}),
    "lstm": (lambda: m.LSTM(6), lambda: TorchLast(nn.LSTM(8, 6, batch_first=True)), {"input": TOKENS}),
    "gru": (lambda: m.GRU(6), lambda: TorchLast(nn.GRU(8, 6, batch_first=True)), {"input": TOKENS}),
    "prelu": (lambda: m.Prelu(), lambda: nn.PReLU(4), {"input": IMAGE}),
    "max pool 1d": (lambda: m.MaxPool1D(kernel_size=2, stride=2), lambda: nn.MaxPool1d(2), {"input": TOKENS}),
    "max pool 2d": (lambda: m.MaxPool2D(3, padding=1), lambda: nn.MaxPool2d(3, padding=1), {"input": IMAGE}),
    "max pool strided": (lambda: m.MaxPool2D(2, 1), lambda: nn.MaxPool2d(2, 1), {"input": IMAGE}),
    "average pool": (lambda: m.AvgPool2D((2, 3)), lambda: nn.AvgPool2d((2, 3)), {"input": IMAGE}),
    "adaptive average pool": (lambda: m.AdaptiveAvgPool2D(3), lambda: nn.AdaptiveAvgPool2d(3), {"input": IMAGE}),
    "adaptive max pool": (lambda: m.AdaptiveMaxPool2D(1), lambda: nn.AdaptiveMaxPool2d(1), {"input": IMAGE}),
    "flatten": (lambda: m.Flatten(start_dim=1), lambda: nn.Flatten(), {"input": IMAGE}),
    "leaky relu": (lambda: m.LeakyRelu(), lambda: nn.LeakyReLU(), {"input": TOKENS}),
    "gelu": (lambda: m.Gelu(), lambda: nn.GELU(), {"input": TOKENS}),
    "dropout in inference": (lambda: m.Dropout(0.3), lambda: nn.Dropout(0.3).eval(), {"input": TOKENS}),
    "squared error": (m.SquaredError, lambda: nn.MSELoss(reduction="none"), {"input": TOKENS, "target": TOKENS}),
    "absolute error": (m.AbsoluteError, lambda: nn.L1Loss(reduction="none"), {"input": TOKENS, "target": TOKENS}),
    "huber": (lambda: m.HuberLoss(0.7), lambda: nn.HuberLoss("none", 0.7), {"input": TOKENS, "target": TOKENS}),
    "binary cross entropy of logits": (
        m.BinaryCrossEntropy,
        lambda: nn.BCEWithLogitsLoss(reduction="none"),
        {"input": TOKENS, "target": "probabilities"},
    ),
    "binary cross entropy": (
        lambda: m.BinaryCrossEntropy(from_logits=False),
        lambda: nn.BCELoss(reduction="none"),
        {"input": "probabilities", "target": "probabilities"},
    ),
    "kl divergence": (
        m.KLDivergence,
        lambda: nn.KLDivLoss(reduction="none"),
        {"input": TOKENS, "target": "probabilities"},
    ),
}


def draw(shape, random):
    if shape == "probabilities":
        return random.uniform(0.05, 0.95, TOKENS)
    return random.standard_normal(shape)


def as_params(module):
    """The state dict under our keys."""
    state = {key.replace(".", "_"): value.numpy().copy() for key, value in module.state_dict().items()}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def gradients_of(module, inputs, output, weights):
    """Torch's gradients by our keys, of the inputs and of the parameters."""
    output.backward(weights)
    found = {key: value.grad for key, value in inputs.items()}
    found |= {key.replace(".", "_").removeprefix("layer_"): p.grad for key, p in module.named_parameters()}
    return {key: value.numpy() for key, value in found.items() if value is not None}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_torch(name, backend):
    ours, theirs, shapes = LAYERS[name]
    torch.manual_seed(0)
    random = np.random.default_rng(1)
    module = theirs().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 1.0, 0.4) if parameter.ndim == 1 else nn.init.normal_(parameter, 0.0, 0.4)
    arrays = {key: draw(shape, random) for key, shape in shapes.items()}
    params = as_params(module)
    inputs = {key: torch.tensor(value, requires_grad=True) for key, value in arrays.items()}
    expected = module(*inputs.values())
    weights = torch.randn_like(expected)
    expected_gradients = gradients_of(module, inputs, expected, weights)

    inference = name == "dropout in inference"
    compiled = ml.compile(
        ours(),
        backend,
        shapes={key: value.shape for key, value in arrays.items()},
        trainable_keys=expected_gradients,
        inference=inference,
    )
    assert set(compiled.trainable_keys) == expected_gradients.keys()
    output = compiled.output_keys[0]
    outputs, gradients, *state = compiled.evaluate_all(
        {key: backend.array(value) for key, value in {**params, **arrays}.items()}, {}, {output: weights.numpy()}
    )
    tolerance = {"rtol": backend.tolerance, "atol": backend.tolerance}
    np.testing.assert_allclose(backend.to_numpy(outputs[output]), expected.detach().numpy(), **tolerance)
    for key, gradient in expected_gradients.items():
        np.testing.assert_allclose(backend.to_numpy(gradients[key]), gradient, err_msg=key, **tolerance)
    for key, value in (state[0] if state else {}).items():
        np.testing.assert_allclose(backend.to_numpy(value), as_params(module)[key], err_msg=key, **tolerance)


def run(model, inputs, params=None, dtype=ml.float64, **options):
    """Outputs on NumPy for arrays by key."""
    backend = ml.NumpyBackend(dtype=dtype)
    shapes = {key: np.shape(value) for key, value in inputs.items()}
    return ml.compile(model, backend, shapes=shapes, **options).evaluate(params or {}, inputs)


def test_margin_and_quantile_losses():
    score, target = np.array([2.0, 0.5, -0.25, -3.0]), np.array([1.0, 1.0, 1.0, -1.0])
    hinge = np.array([0.0, 0.5, 1.25, 0.0])
    np.testing.assert_allclose(run(m.HingeLoss(), {"input": score, "target": target})["output"], hinge)
    np.testing.assert_allclose(run(m.SquaredHingeLoss(), {"input": score, "target": target})["output"], hinge**2)
    quantile = run(m.QuantileLoss(0.9), {"input": score, "target": target})["output"]
    np.testing.assert_allclose(quantile, [0.1, 0.45, 1.125, 1.8])
    with pytest.raises(ValueError, match=r"quantile is 1.5; it must be between 0 and 1"):
        m.QuantileLoss(1.5)


def test_losses_stay_finite_far_from_the_target():
    far = {"input": np.array([-1000.0, 1000.0]), "target": np.array([1.0, 0.0])}
    np.testing.assert_allclose(run(m.BinaryCrossEntropy(), far)["output"], [1000, 1000])
    certain = {"input": np.array([0.0, 1.0]), "target": np.array([1.0, 0.0])}
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(run(m.BinaryCrossEntropy(from_logits=False), certain)["output"], [100, 100])
    absent = {"input": np.array([-3.0, -3.0]), "target": np.array([0.0, 1.0])}
    np.testing.assert_allclose(run(m.KLDivergence(), absent)["output"], [0, 3])


def test_cross_entropy_equals_torch():
    scores, target = np.random.default_rng(0).standard_normal((4, 5, 3)), np.array([[0, 1, 4], [2, 2, 2]] * 2)
    expected = nn.functional.cross_entropy(torch.tensor(scores), torch.tensor(target), reduction="none")
    found = run(m.CrossEntropy(), {"input": scores, "target": target})["output"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)


def test_linear_svm_decides_by_the_side_of_its_plane():
    points = np.array([[1.0, 2.0], [-3.0, 0.5]])
    found = run(m.LinearSVM(), {"input": points}, {"weight": np.array([[2.0, 1.0]]), "bias": np.array([0.5])})
    np.testing.assert_allclose(found["output"], [[4.5], [-5.0]])
    np.testing.assert_allclose(found["decision_output"], [[1.0], [-1.0]])


@pytest.mark.parametrize("mask", ["causal", "boolean", "added"])
def test_masked_attention_equals_torch(mask):
    torch.manual_seed(0)
    module, x = nn.MultiheadAttention(8, 2, batch_first=True).double(), torch.randn(2, 4, 8, dtype=torch.float64)
    allowed = torch.ones(4, 4).tril().bool()
    numbers = torch.where(allowed, 0.5, -2.0).double()
    expected = module(x, x, x, attn_mask=numbers if mask == "added" else ~allowed, need_weights=False)[0]
    inputs = dict.fromkeys(("query", "key", "value"), x.numpy())
    if mask != "causal":
        inputs["mask"] = (numbers if mask == "added" else allowed).numpy()
    layer = m.MultiHeadAttention(8, 2, is_causal=mask == "causal", use_mask=mask != "causal")
    if mask == "boolean":
        layer.set_types(mask=bool)
    found = run(layer, inputs, as_params(module))["output"]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-9)


def test_lstm_cell_and_embedding_equal_torch():
    torch.manual_seed(0)
    cell, x, h, c = nn.LSTMCell(5, 3).double(), *(torch.randn(2, n, dtype=torch.float64) for n in (5, 3, 3))
    found = run(m.LSTMCell(3), {"input": x.numpy(), "h": h.numpy(), "c": c.numpy()}, as_params(cell))
    for key, expected in zip(("h_next", "c_next"), cell(x, (h, c))):
        np.testing.assert_allclose(found[key], expected.detach().numpy(), rtol=1e-9)
    table, tokens = nn.Embedding(7, 3).double(), np.array([[1, 6], [0, 1]])
    found = run(m.Embedding(7, 3), {"input": tokens}, as_params(table))["output"]
    np.testing.assert_allclose(found, table(torch.tensor(tokens)).detach().numpy())


def test_dropout_zeroes_and_scales_in_training():
    compiled = ml.compile(m.Dropout(0.25), ml.NumpyBackend(), shapes={"input": (200, 50)})
    data = {"input": np.ones((200, 50), np.float32)}

    def draw(state):
        outputs, after = compiled.evaluate({}, data, state)
        return outputs["output"], after

    state = compiled.initial_state(3)
    found, after = draw(state)
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((found == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(found, draw(state)[0])
    assert (found != draw(after)[0]).any()
    assert (found != draw(compiled.initial_state(4))[0]).any()


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match="dim is 10; it must be a multiple of num_heads 4"):
        m.MultiHeadAttention(10, 4)
    with pytest.raises(ValueError, match="out_channels is 5; it must be a multiple of groups 2"):
        m.TransposedConvolution2D(5, 3, groups=2)
    with pytest.raises(ValueError, match="MLP has 1 activations and 2 dimensions; give one activation per dimension"):
        m.MLP([m.Relu()], [3, 4])
    with pytest.raises(ValueError, match=r"kernel_size \(3, 3, 3\)"):
        m.Convolution2D(4, (3, 3, 3))
    with pytest.raises(AttributeError, match=r"mithril\.models has no 'Rely'\. Did you mean 'Relu'\?"):
        m.Rely
    with pytest.raises(ValueError, match="LSTM is unrolled in time, and the length"):
        ml.compile(m.LSTM(3), ml.NumpyBackend(), shapes={"input": [2, None, 4]})


def test_star_import_gives_layers_operators_and_models_alone():
    space = {}
    exec("from mithril.models import *", space)
    assert {
        "Model",
        "IOKey",
        "Linear",
        "LayerNorm",
        "Relu",
        "Concat",
        "Buffer",
        "MaxPool2D",
        "resnet18",
    } <= space.keys()
    assert space["LayerNorm"] is m.LayerNorm
    assert not {"ops", "OPS", "np", "annotations", "nearest"} & space.keys()


@pytest.mark.parametrize(
    "build", [m.LSTMCell, m.BatchNorm2D, m.QuantileLoss, m.Linear], ids=lambda layer: layer.__name__
)
def test_layers_survive_json(build):
    layer = build(0.3 if build is m.QuantileLoss else 4)
    again = m.Model.from_json(layer.to_json())
    shapes = {key: (2, 4) for key in ("input", "target", "h", "c") if key in layer.input_keys}
    backend = ml.NumpyBackend()
    assert ml.compile(again, backend, shapes=shapes).source == ml.compile(layer, backend, shapes=shapes).source
