"""Operators whose mapping is more than a name: values and gradients on NumPy in float64 against PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mithril as ml
from mithril.interop.mapping import MAPPINGS, maps


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


def compare(function, *inputs, backend=None):
    """Values by a backend equal to the function's; returns the compiled model."""
    backend = backend or ml.NumpyBackend(dtype=ml.float64)
    module = function if isinstance(function, nn.Module) else Calls(function)
    model, params = ml.from_torch(module, inputs)
    compiled = ml.compile(model, backend, inference=True)
    found = compiled.evaluate(params, {k: v.numpy() for k, v in zip(compiled.data_keys, inputs)})
    expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, theirs in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(backend.to_numpy(ours), theirs.detach().numpy(), rtol=1e-6, atol=1e-9)
    return compiled


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


FOLDS = [
    {"output_size": (4, 5), "kernel_size": (2, 2)},
    {"output_size": (7, 6), "kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)},
    {"output_size": (8, 9), "kernel_size": (2, 3), "dilation": (3, 2), "stride": 2, "padding": 2},
]


@pytest.mark.parametrize("options", FOLDS)
@pytest.mark.parametrize("batched", [True, False])
def test_fold_adds_where_windows_overlap(options, batched):
    image = random(2, 3, *options["output_size"])
    columns = F.unfold(image, **{k: v for k, v in options.items() if k != "output_size"})
    compare(nn.Fold(**options), columns if batched else columns[0])


@pytest.mark.slow
def test_fold_and_unfold_on_jax(needed):
    needed("jax")
    compare(lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), (6, 7), 3, padding=1, stride=2),
            random(2, 3, 6, 7).float(), backend=ml.JaxBackend())  # fmt: skip


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "dilation": 2, "stride": 1},
]


@pytest.mark.parametrize("options", POOLS)
def test_places_of_maxima(options):
    compare(nn.MaxPool2d(**options, return_indices=True), random(2, 3, 8, 9))


def test_the_first_of_equal_maxima_counts():
    compare(nn.MaxPool2d(2, return_indices=True), torch.zeros(1, 1, 4, 4, dtype=torch.float64))


def test_maxima_return_to_their_places():
    def there_and_back(x):
        values, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values * 2, places, 2)

    compare(there_and_back, random(2, 3, 6, 8))
    compare(there_and_back, random(2, 3, 6, 8), backend=ml.TorchBackend(dtype=ml.float64))


@pytest.mark.parametrize("images", [1, 3])
def test_batch_norm_without_running_statistics(images):
    weight, bias = random(4), random(4) + 1
    compiled = compare(lambda x: F.batch_norm(x, None, None, weight, bias, training=True), random(images, 4, 5, 6))
    assert ("group_norm" in compiled.source) == (images == 1)


@pytest.mark.parametrize("mask", [None, "causal", "bool", "float"])
def test_dropout_of_attention_weights(mask):
    options = {"is_causal": mask == "causal"}
    if mask in ("bool", "float"):
        options["attn_mask"] = (torch.arange(5) < 4).expand(5, 5) if mask == "bool" else random(5, 5)
    query = random(2, 2, 5, 4)
    module = Calls(lambda x: F.scaled_dot_product_attention(x, x + 1, x * 2, dropout_p=0.5, **options))
    model, _ = ml.from_torch(module, query)
    data = {"x_0": query.numpy()}
    still = ml.compile(model, ml.NumpyBackend(dtype=ml.float64), inference=True).evaluate({}, data)["output"]
    expected = F.scaled_dot_product_attention(query, query + 1, query * 2, **options)
    np.testing.assert_allclose(still, expected.numpy(), rtol=1e-9, atol=1e-12)
    training = ml.compile(model, ml.NumpyBackend(dtype=ml.float64))
    draws = [training.evaluate({}, data, training.initial_state(seed))[0]["output"] for seed in range(400)]
    assert not np.allclose(draws[0], still)
    assert abs(np.mean(draws, axis=0) - still).max() < 0.25 * abs(still).max()


class Stops(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(x.detach()) * x


def test_gradients_stop_where_the_module_detaches():
    torch.manual_seed(0)
    module, x = Stops().double(), random(2, 3)
    model, params = ml.from_torch(module, x)
    module(x).square().sum().backward()
    given = {"output": (2 * module(x)).detach().numpy()}
    for backend in (ml.NumpyBackend(dtype=ml.float64), ml.TorchBackend(dtype=ml.float64)):
        found = ml.compile(model, backend).evaluate_gradients(params, {"x": x.numpy()}, given)
        for name, value in module.named_parameters():
            ours = backend.to_numpy(found[name.replace(".", "_")])
            np.testing.assert_allclose(ours, value.grad.numpy(), rtol=1e-9, err_msg=name)


def test_a_row_for_padding_is_not_learned():
    module = nn.Embedding(6, 4, padding_idx=2).double()
    nn.init.normal_(module.weight)
    x = torch.tensor([[1, 2, 2], [5, 2, 1]])
    model, params = ml.from_torch(module, (x,))
    compiled = ml.compile(model, ml.NumpyBackend(dtype=ml.float64))
    seed = random(2, 3, 4)
    found = compiled.evaluate_gradients(params, {"input": x.numpy()}, output_gradients={"output": seed.numpy()})
    module(x).backward(seed)
    np.testing.assert_allclose(found["weight"], module.weight.grad.numpy())
    values = compiled.evaluate(params, {"input": x.numpy()})["output"]
    np.testing.assert_array_equal(values, module(x).detach().numpy())


class Flat(nn.Module):
    """A recurrent module whose outputs stand in one tuple."""

    def __init__(self, module):
        super().__init__()
        self.module = module.double()

    def forward(self, x, *states):
        given = states if not isinstance(self.module, nn.LSTM | nn.LSTMCell) else (states,)
        found = self.module(x, *given) if states else self.module(x)
        if isinstance(found, tuple):
            return tuple(part for item in found for part in (item if isinstance(item, tuple) else (item,)))
        return found


RECURRENT = {
    "rnn": (lambda: nn.RNN(3, 4), [(5, 2, 3)]),
    "rnn of relu, no bias": (lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False), [(5, 2, 3)]),
    "lstm": (lambda: nn.LSTM(3, 4, batch_first=True), [(2, 5, 3)]),
    "lstm from a state": (lambda: nn.LSTM(3, 4, 2), [(5, 2, 3), (2, 2, 4), (2, 2, 4)]),
    "lstm both ways, projected": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), [(5, 2, 3)]),
    "lstm projected, no bias": (lambda: nn.LSTM(3, 4, proj_size=2, bias=False), [(5, 2, 3)]),
    "gru both ways": (lambda: nn.GRU(3, 4, 2, batch_first=True, bidirectional=True), [(2, 5, 3)]),
    "gru without a batch": (lambda: nn.GRU(3, 4), [(5, 3)]),
    "rnn cell": (lambda: nn.RNNCell(3, 4), [(2, 3)]),
    "rnn cell of relu": (lambda: nn.RNNCell(3, 4, nonlinearity="relu"), [(2, 3)]),
    "lstm cell": (lambda: nn.LSTMCell(3, 4, bias=False), [(2, 3), (2, 4), (2, 4)]),
    "gru cell": (lambda: nn.GRUCell(3, 4), [(2, 3), (2, 4)]),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_modules(name):
    torch.manual_seed(0)
    module, shapes = RECURRENT[name]
    compare(Flat(module()), *(random(*shape) for shape in shapes))


def test_gradients_through_time():
    torch.manual_seed(0)
    module, x = Flat(nn.LSTM(3, 4, 2, bidirectional=True)), random(5, 2, 3)
    model, params = ml.from_torch(module, (x,))
    compiled = ml.compile(model, ml.NumpyBackend(dtype=ml.float64))
    seeds = {f"output_{i}": np.asarray(random(*part.shape)) for i, part in enumerate(module(x))}
    found = compiled.evaluate_gradients(params, {"x": x.numpy()}, output_gradients=seeds)
    outputs = module(x)
    torch.autograd.backward(outputs, [torch.from_numpy(seed) for seed in seeds.values()])
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(found[key.replace(".", "_")], parameter.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", [ml.JaxBackend, ml.MlxBackend, ml.TorchBackend])
def test_recurrent_modules_in_float32(backend):
    torch.manual_seed(0)
    module, x = Flat(nn.GRU(3, 4, bidirectional=True)).float(), random(5, 2, 3).float()
    model, params = ml.from_torch(module, (x,))
    found = ml.compile(model, backend(), inference=True).evaluate(params, {"x": x.numpy()})
    for ours, theirs in zip(found.values(), module(x), strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_dropout_between_recurrent_layers_is_refused():
    with pytest.raises(
        ml.MithrilError, match=r"Dropout 0\.5 between recurrent layers has no mapping: call `\.eval\(\)`"
    ):
        ml.from_torch(Flat(nn.LSTM(3, 4, 2, dropout=0.5)), (random(5, 2, 3),))


def test_a_mapping_of_ones_own():
    @maps("hypot")
    def hypot(node, left, right):
        return (left * left + right * right) ** 0.5

    try:
        compare(torch.hypot, random(3, 4), random(4))
    finally:
        del MAPPINGS["hypot"]
