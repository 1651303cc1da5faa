"""Passes keep the numbers: the same model with and without each, on every backend."""

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model
from mithril import models as m
from mithril.physical import passes

BACKENDS = ["torch", "jax", "mlx", "numpy"]


@pytest.fixture(params=BACKENDS)
def backend(needed, request):
    needed(request.param)
    return getattr(ml, f"{request.param.capitalize()}Backend")()


def values_for(compiled, seed=0):
    """Parameters and statistics, none of which is 0 or 1."""
    random = np.random.default_rng(seed)
    values = {k: np.asarray(v) for k, v in compiled.randomize_params(seed).items()}
    for key in compiled.state_keys:
        values[key] = random.uniform(0.5, 1.5, compiled.shapes[key]).astype(np.float32)
    return values


def frozen_and_plain(model, backend, shape):
    """Outputs of a model before and after its parameters are fixed, and both models."""
    compiled = ml.compile(model, backend, shapes={"input": shape}, inference=True)
    params = values_for(compiled)
    frozen = compiled.freeze(params)
    data = {"input": np.random.default_rng(1).standard_normal([2 if n is None else n for n in shape]).astype("f")}
    before, after = compiled.evaluate(params, data), frozen.evaluate({}, data)
    for key, value in before.items():
        np.testing.assert_allclose(backend.to_numpy(after[key]), backend.to_numpy(value), rtol=1e-4, atol=1e-5)
    return compiled, frozen


def operators(compiled):
    return [node.op.name for node in compiled.graph.nodes]


def test_batch_norms_vanish_from_a_resnet(backend):
    compiled, frozen = frozen_and_plain(m.resnet((2, 1), True, 5, width=4), backend, [None, 3, 32, 32])
    assert operators(compiled).count("batch_norm") == 12
    assert operators(frozen).count("batch_norm") == 0
    assert frozen.data_keys == ["input"]
    assert not frozen.parameter_keys
    assert not frozen.state_keys
    assert {"layer1_1_conv1_weight", "layer1_1_conv1_bias", "fc_weight"} <= frozen.constants.keys()
    assert not any("bn" in key for key in frozen.constants)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda bias: m.Linear(6, bias), [None, 4]),
        (lambda bias: m.Convolution1D(6, 3, groups=2, use_bias=bias), [None, 4, 9]),
        (lambda bias: m.Convolution2D(6, 3, stride=2, use_bias=bias), [None, 4, 9, 8]),
        (lambda bias: m.Convolution3D(6, 2, use_bias=bias), [None, 4, 5, 4, 3]),
        (lambda bias: m.TransposedConvolution1D(6, 3, stride=2, use_bias=bias), [None, 4, 5]),
        (lambda bias: m.TransposedConvolution2D(6, 3, use_bias=bias), [None, 4, 5, 4]),
    ],
    ids=["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"],
)
def test_batch_norm_folds_into(layer, shape, use_bias):
    model = Model(name="net")
    model += layer(use_bias)(input="input")
    model += m.BatchNorm2D(6, affine=use_bias)(output=IOKey("output"))
    _, frozen = frozen_and_plain(model, ml.NumpyBackend(), shape)
    assert len(operators(frozen)) == 1


@pytest.mark.parametrize("case", ["read twice", "channels last", "grouped transpose", "shared weight"])
def test_batch_norm_stays_or_folds_apart_where_it_must(case):
    """The convolution's own output is needed; the norm is over another axis; one weight is used twice."""
    model, shape, left = Model(name="net"), [None, 4, 6, 6], 1
    if case == "read twice":
        model |= m.Convolution2D(6, 3)(input="input", output="inner")
        model |= m.BatchNorm2D(6)(input="inner", output="normal")
        model |= m.Add()(left="inner", right="normal", output=IOKey("output"))
    elif case == "channels last":
        model += m.Linear(4)(input="input")
        model += m.BatchNorm1D()(output=IOKey("output"))
        shape = [None, 5, 3]
    elif case == "grouped transpose":
        model += m.TransposedConvolution2D(6, 3, groups=2)(input="input")
        model += m.BatchNorm2D(6)(output=IOKey("output"))
    else:
        conv = m.Convolution2D(4, 3, padding=1, name="conv")
        model |= conv(input="input", output="inner")
        model |= m.BatchNorm2D(4)(input="inner", output="normal")
        model |= conv.shared()(input="normal", output=IOKey("output"))
        left = 0
    _, frozen = frozen_and_plain(model, ml.NumpyBackend(), shape)
    assert operators(frozen).count("batch_norm") == left


def test_constant_keys_fold_like_freezing():
    model = Model(name="net")
    model += m.Convolution2D(4, 3)(input="input")
    model += m.BatchNorm2D(4)(output=IOKey("output"))
    backend = ml.NumpyBackend()
    params = values_for(ml.compile(model, backend, shapes={"input": [1, 3, 5, 5]}, inference=True))
    compiled = ml.compile(model, backend, constant_keys=params, inference=True)
    assert operators(compiled) == ["conv2d"]


def test_freezing_computes_what_depends_on_parameters_only(backend):
    """GPT-2 keeps its weights transposed: the transpose is done once."""
    model = m.gpt2(11, 8, 8, 2, 2)
    compiled = ml.compile(model, backend, shapes={"input": [2, 5]}, inference=True)
    params = compiled.randomize_params(0)
    frozen = compiled.freeze(params)
    tokens = {"input": np.array([[1, 2, 3, 4, 5], [0, 9, 8, 7, 6]])}
    before, after = compiled.evaluate(params, tokens), frozen.evaluate({}, tokens)
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-4, atol=1e-5)
    weights = [n.inputs[1].kind for n in frozen.graph.nodes if n.op.name == "linear"]
    assert set(weights) == {"constant"}
    if backend.name == "torch":
        assert "def h(params, prefix, x):" in frozen.source


def test_freezing_checks_the_parameters():
    compiled = ml.compile(m.Linear(3, name="fc"), ml.NumpyBackend(), shapes={"input": [None, 2]})
    with pytest.raises(ml.MithrilError, match=r"'wieght' in params is no key of fc\. Did you mean 'weight'"):
        compiled.freeze({"wieght": np.zeros((3, 2)), "bias": np.zeros(3)})
    with pytest.raises(ml.MithrilError, match=r"'bias' \(3,\) is missing from params"):
        compiled.freeze({"weight": np.zeros((3, 2))})
    frozen = compiled.freeze({"weight": np.ones((3, 2)), "bias": np.zeros(3)})
    np.testing.assert_allclose(frozen.evaluate({}, {"input": np.ones((1, 2), "f")})["output"], [[2, 2, 2]])


def test_equal_operators_run_once_and_unneeded_ones_never(backend):
    x = IOKey("x")
    model = Model.create(out=m.Exp()(x) + m.Exp()(x) * m.Relu()(x), unneeded=m.Sin()(x))
    compiled = ml.compile(model, backend, discard_keys={"unneeded"})
    assert sorted(operators(compiled)) == ["add", "exp", "multiply", "relu"]
    value = np.array([-1.0, 0.5, 2.0], np.float32)
    expected = np.exp(value) * (1 + np.maximum(value, 0))
    np.testing.assert_allclose(compiled.evaluate({}, {"x": value})["out"], expected, rtol=1e-5)


def test_frozen_convolutions_keep_channels_last_from_the_first_to_the_last(needed):
    torch = needed("torch")
    model = Model(name="net")
    model += m.Convolution2D(8, 3)(input="input")
    model += m.Relu()
    model += m.Convolution2D(8, 3)(output=IOKey("output"))
    compiled, frozen = frozen_and_plain(model, ml.TorchBackend(), [None, 3, 9, 9])
    image = {"input": torch.randn(2, 3, 9, 9)}
    assert frozen.evaluate({}, image)["output"].is_contiguous(memory_format=torch.channels_last)
    assert compiled.evaluate(compiled.randomize_params(), image)["output"].is_contiguous()


def test_the_verifier_runs_after_every_pass():
    compiled = ml.compile(m.Linear(3), ml.NumpyBackend(), shapes={"input": [None, 2]})

    def forgets_an_input(graph):
        graph.inputs.pop("bias")
        return graph

    with pytest.raises(AssertionError, match=r"reads .*bias.* before it is computed"):
        passes.optimise(compiled.graph, [forgets_an_input])


def test_operators_that_differ_in_the_type_of_a_number_are_not_equal():
    """Python takes True, 1 and 1.0 for one key of a dict."""
    flags, whole = IOKey("flags", type=bool), IOKey("whole", type=int)
    model = Model.create(a=flags * 1, b=flags * True, c=whole * 1, d=whole * 1.0)
    compiled = ml.compile(model, ml.NumpyBackend())
    found = compiled.evaluate({}, {"flags": np.array([True, False]), "whole": np.array([2, 3])})
    kinds = {key: np.asarray(value).dtype.kind for key, value in found.items()}
    assert kinds == {"a": "i", "b": "b", "c": "i", "d": "f"}
