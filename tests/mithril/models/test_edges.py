"""Losses at their edges, and settings that a first-day user mixes up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mithril as ml
from mithril import models as M

BACKENDS = [ml.NumpyBackend, ml.TorchBackend, ml.JaxBackend, ml.MlxBackend]
LOGITS = np.array([-200.0, -30.0, -1.0, 0.0, 0.0, 0.5, 30.0, 200.0], np.float32)
PROBABILITIES = np.array([0.0, 0.0, 1e-30, 0.25, 0.5, 1.0, 1.0, 1 - 2**-20], np.float32)
TARGETS = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], np.float32)


def loss_of(loss, backend, x, target):
    """Values and the gradient of their sum for the prediction."""
    model, key = ml.Model(), ml.IOKey("target", type=int if target.dtype.kind == "i" else None)
    model |= loss(input=ml.IOKey("x", trainable=True), target=key, output=ml.IOKey("out"))
    compiled = ml.compile(model, backend, shapes={"x": x.shape, "target": target.shape}, jit=False)
    ones = {"out": backend.array(np.ones(compiled.shapes["out"], np.float32))}
    values, grads = compiled.evaluate_all({"x": backend.array(x)}, {"target": target}, ones)
    return backend.to_numpy(values["out"]), backend.to_numpy(grads["x"])


def torch_loss(function, x, target):
    x = torch.tensor(x, requires_grad=True)
    value = function(x, torch.tensor(target))
    value.sum().backward()
    return value.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_binary_cross_entropy_of_logits(backend, weight):
    """Smooth at a logit of 0: a head that starts with zeros learns."""

    def theirs(x, t):
        return F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=torch.tensor(weight))

    value, grad = loss_of(M.BinaryCrossEntropy(pos_weight=weight), backend(), LOGITS, TARGETS)
    expected, slope = torch_loss(theirs, LOGITS, TARGETS)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_binary_cross_entropy_of_probabilities(backend):
    """At 0 and 1, values are torch's and gradients are finite, as steep as torch's where the answer is wrong."""

    def theirs(x, t):
        return F.binary_cross_entropy(x, t, reduction="none")

    value, grad = loss_of(M.BinaryCrossEntropy(from_logits=False), backend(), PROBABILITIES, TARGETS)
    expected, slope = torch_loss(theirs, PROBABILITIES, TARGETS)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    wrong = abs(expected) > 0.1
    np.testing.assert_allclose(grad[wrong], slope[wrong], rtol=1e-4)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_entropy_of_probabilities(backend):
    p = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], np.float32)
    value, grad = loss_of(M.ProbabilityCrossEntropy(), backend(), p, np.array([1, 2]))
    np.testing.assert_allclose(value, [-np.log(0.75), 100.0], rtol=1e-5)
    np.testing.assert_allclose(grad, [[0, -1 / 0.75, 0], [0, 0, -1e12]], rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_cross_entropy_keep_their_dtype(backend):
    scores, target = np.array([[0.1, -0.3], [2.0, 1.0]], np.float32), np.array([1, 0])
    loss = M.CrossEntropy(label_smoothing=0.1, weight=(0.5, 2.0))
    value, grad = loss_of(loss, backend(), scores, target)

    def theirs(x, t):
        return F.cross_entropy(x, t, torch.tensor([0.5, 2.0]), label_smoothing=0.1, reduction="none")

    expected, slope = torch_loss(theirs, scores, target)
    assert value.dtype == grad.dtype == np.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-6)


MISTAKES = [
    (
        lambda: M.Linear(784, 128),
        ValueError,
        r"use_bias is 128; it must be True or False. The input's width is deduced",
    ),
    (lambda: M.Linear("8"), ValueError, r"Linear: dimension is '8'; it must be a whole number, such as dimension=8"),
    (lambda: M.Linear(0), ValueError, r"Linear: dimension is 0; it must be at least 1"),
    (lambda: M.Linear(2.0), ValueError, r"dimension is 2.0; it must be a whole number"),
    (lambda: M.Linear(True), ValueError, r"dimension is True; it must be a whole number"),
    (lambda: M.Convolution2D(3, 16, 3), TypeError, r"deduced from the data: write Convolution2D\(16, 3\)"),
    (lambda: M.Convolution2D(3, 16, 3, 1, 1), TypeError, r"takes out_channels and kernel_size; name all others"),
    (lambda: M.Convolution1D(4, 3, stride=0), ValueError, r"Convolution1D: stride is 0; it must be at least 1"),
    (lambda: M.TransposedConvolution2D(4, (3, 0)), ValueError, r"kernel_size is 0; it must be at least 1"),
    (lambda: M.Convolution2D(6, 3, groups=4), ValueError, r"out_channels is 6; it must be a multiple of groups 4"),
    (lambda: M.Embedding(10, 0), ValueError, r"Embedding: dimension is 0"),
    (lambda: M.BinaryCrossEntropy("mean"), ValueError, r"from_logits is 'mean'; it must be True or False"),
]


@pytest.mark.parametrize(("make", "kind", "message"), MISTAKES)
def test_mistaken_settings_are_told(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
