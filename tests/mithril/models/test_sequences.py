"""Models of sequences against torch, and positional encodings against transformers and complex numbers."""

import numpy as np
import pytest
import torch
from torch import nn

import mithril as ml
from mithril import models as m
from tests.mithril.layers import compare

RNG = np.random.default_rng(0)
SEQUENCE = RNG.standard_normal((2, 3, 4))
LAYERS = {"rnn": (m.RNN, nn.RNN), "lstm": (m.LSTM, nn.LSTM), "gru": (m.GRU, nn.GRU)}
CELLS = {"rnn": (m.RNNCell, nn.RNNCell), "lstm": (m.LSTMCell, nn.LSTMCell), "gru": (m.GRUCell, nn.GRUCell)}


def check(backend, model, inputs, modules, forward):
    """Hold a model to `forward` of torch modules by name: output, gradients of the inputs and of every parameter."""
    values = {f"{name}_{key}": p for name, module in modules.items() for key, p in module.named_parameters()}
    values |= {key: torch.tensor(value, requires_grad=True) for key, value in inputs.items()}
    expected = forward(*(values[key] for key in inputs))
    seed = RNG.standard_normal(expected.shape)
    expected.backward(torch.tensor(seed))
    gradients = {key: value.grad.numpy() for key, value in values.items()}
    arrays = {key: value.detach().numpy() for key, value in values.items()}
    compare(backend, model, arrays, {"output": expected.detach().numpy()}, gradients, {"output": seed})


@pytest.mark.parametrize("kind", LAYERS)
def test_many_to_one_equals_torch(kind, backend):
    torch.manual_seed(0)
    ours, theirs = LAYERS[kind]
    layer, head = theirs(4, 6, batch_first=True).double(), nn.Linear(6, 3).double()
    modules = {"layer": layer, "head": head}
    check(backend, m.ManyToOne(ours(6), 3), {"input": SEQUENCE}, modules, lambda x: head(layer(x)[0][:, -1]))


@pytest.mark.parametrize("kind", CELLS)
def test_one_to_many_equals_torch(kind, backend):
    torch.manual_seed(0)
    ours, theirs = CELLS[kind]
    cell, head = theirs(4, 6).double(), nn.Linear(6, 4).double()

    def forward(x):
        state, outputs = None, []
        for _ in range(2):
            state = cell(x, state)
            x = head(state[0] if kind == "lstm" else state)
            outputs.append(x)
        return torch.stack(outputs, 1)

    check(backend, m.OneToMany(ours(6), 4, 2), {"input": SEQUENCE[:, 0]}, {"cell": cell, "head": head}, forward)


@pytest.mark.parametrize("kind", LAYERS)
def test_encoder_decoder_equals_torch(kind, backend):
    torch.manual_seed(0)
    ours, theirs = LAYERS[kind]
    encoder, decoder = theirs(4, 6, batch_first=True).double(), theirs(3, 6, batch_first=True).double()
    head = nn.Linear(6, 2).double()
    inputs = {"input": SEQUENCE, "target": RNG.standard_normal((2, 2, 3))}
    modules = {"encoder": encoder, "decoder": decoder, "head": head}
    model = m.EncoderDecoder(ours(6), ours(6), 2)
    check(backend, model, inputs, modules, lambda x, y: head(decoder(y, encoder(x)[1])[0]))


def test_encoder_and_decoder_must_fit():
    with pytest.raises(ValueError, match=r"The decoder LSTM\(6\) cannot start from the states of the encoder GRU\(6\)"):
        m.EncoderDecoder(m.GRU(6), m.LSTM(6), 2)


def test_sinusoidal_encoding_equals_transformers(transformers, backend):
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table = MarianSinusoidalPositionalEmbedding(16, 6).create_weight().detach().numpy()
    x = RNG.standard_normal((2, 15, 6))
    angle = np.arange(15)[:, None] / 10000 ** (np.arange(0, 6, 2) / 6)
    exact = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(15, 6)
    np.testing.assert_allclose(exact, table[:15, [0, 3, 1, 4, 2, 5]], atol=1e-5)  # Marian puts all sines first
    compare(backend, m.SinusoidalPositionalEncoding(), {"input": x}, {"output": x + exact})


def test_learned_encoding_equals_torch(backend):
    table = RNG.standard_normal((7, 4))
    seed = RNG.standard_normal(SEQUENCE.shape)
    slope = np.concatenate([seed.sum(0), np.zeros((4, 4))])
    values = {"input": SEQUENCE, "weight": table}
    expected = {"output": SEQUENCE + table[:3]}
    compare(backend, m.LearnedPositionalEncoding(7, 4), values, expected, {"weight": slope}, {"output": seed})


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_rotary_embedding_equals_transformers_and_complex_numbers(is_interleaved, transformers, backend):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = RNG.standard_normal((2, 3, 5, 8))
    angle = np.arange(5)[:, None] / 100.0 ** (np.arange(0, 8, 2) / 8)
    query = torch.tensor(x, requires_grad=True)
    if is_interleaved:
        pairs = torch.view_as_complex(query.reshape(2, 3, 5, 4, 2))
        turned = torch.view_as_real(pairs * torch.polar(torch.ones(5, 4).double(), torch.tensor(angle))).flatten(-2)
    else:
        both = torch.tensor(np.concatenate([angle, angle], -1))[None]
        turned = apply_rotary_pos_emb(query, query, both.cos(), both.sin())[0]
    seed = RNG.standard_normal(x.shape)
    turned.backward(torch.tensor(seed))
    model = m.RotaryEmbedding(100.0, is_interleaved)
    compare(backend, model, {"input": x}, {"output": turned.detach()}, {"input": query.grad}, {"output": seed})


def test_positions_may_stay_open():
    for model in (m.RotaryEmbedding(), m.SinusoidalPositionalEncoding(), m.LearnedPositionalEncoding(9, 4)):
        model_params = {"weight": RNG.standard_normal((9, 4))} if isinstance(model, m.LearnedPositionalEncoding) else {}
        known = ml.compile(model, ml.NumpyBackend(), shapes={"input": [2, 3, 4]})
        open_ = ml.compile(model, ml.NumpyBackend(), shapes={"input": [None, "t", 4]})
        params = {**known.randomize_params(0), **model_params}
        both = [c.evaluate(params, {"input": SEQUENCE.astype(np.float32)})["output"] for c in (known, open_)]
        np.testing.assert_array_equal(*both)
    with pytest.raises(ml.errors.ShapeError, match="the width 3 must be known and even"):
        ml.compile(m.RotaryEmbedding(), ml.NumpyBackend(), shapes={"input": [2, 5, 3]})


@pytest.mark.parametrize(
    "model", [m.EncoderDecoder(m.LSTM(3), m.LSTM(3), 2), m.RotaryEmbedding(10.0, True), m.PolynomialRegression(2)]
)
def test_models_of_the_library_survive_json(model):
    data = {"input": SEQUENCE, "target": RNG.standard_normal((2, 2, 5))}
    data = {key: value.astype(np.float32) for key, value in data.items() if key in model.input_keys}
    shapes = {key: value.shape for key, value in data.items()}
    both = [ml.compile(one, ml.NumpyBackend(), shapes=shapes) for one in (model, ml.Model.from_json(model.to_json()))]
    np.testing.assert_array_equal(*[c.evaluate(c.randomize_params(0), data)["output"] for c in both])
