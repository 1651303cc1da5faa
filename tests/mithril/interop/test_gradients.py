"""What in a torch module says where gradients go is kept by `from_torch`, or refused by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import mithril as ml


def gradients_agree(module, *inputs):
    """Gradients of all parameters on NumPy and JAX equal torch's, for random gradients of the outputs."""
    model, params = ml.from_torch(module, inputs)
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    seeds = [torch.randn_like(output) for output in outputs]
    reached = [(o, s) for o, s in zip(outputs, seeds) if o.requires_grad]
    torch.autograd.backward(*map(list, zip(*reached)))
    for backend in (ml.NumpyBackend(dtype=ml.float64), ml.JaxBackend(dtype=ml.float64)):
        compiled = ml.compile(model, backend, jit=False)
        data = {key: value.numpy() for key, value in zip(compiled.data_keys, inputs)}
        given = {key: seed.numpy() for key, seed in zip(compiled.output_keys, seeds)}
        found = compiled.evaluate_gradients(params, data, given)
        for name, value in module.named_parameters():
            ours = backend.to_numpy(found[name.replace(".", "_")]) if value.requires_grad else None
            theirs = None if value.grad is None else value.grad.numpy()
            if theirs is None:
                assert ours is None or not ours.any(), name
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


class Region(nn.Module):
    """A part of `forward` under `no_grad`, with a part under `enable_grad` inside; some of it is returned."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.first(x)
        with torch.no_grad():
            z = self.second(y) * 2
            left, right = z.split([2, 1], 1)
            with torch.enable_grad():
                u = z.exp() + y
        return y * z + u, left * 3, right


class Frozen(nn.Module):
    """A backbone that is not trained, its forward decorated."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    @torch.no_grad()
    def features(self, x):
        return self.backbone(x).relu()

    def forward(self, x):
        return self.head(self.features(x))


class Momentum(nn.Module):
    """Some parameters are no longer learned."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.first.requires_grad_(False)

    def forward(self, x):
        with torch.set_grad_enabled(False):
            target = self.second(x)
        return self.second(self.first(x)) - target


@pytest.mark.parametrize("kind", [Region, Frozen, Momentum])
def test_gradients_stop_at_regions_without_them(kind):
    torch.manual_seed(0)
    gradients_agree(kind().double(), torch.randn(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weights_that_are_normed(norm):
    torch.manual_seed(0)
    module = nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh(), norm(nn.Linear(4, 2))).double()
    module(torch.randn(2, 3, dtype=torch.float64))
    gradients_agree(module.eval(), torch.randn(2, 3, dtype=torch.float64))


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return Rounded.apply(self.linear(x)) * 2


def test_a_backward_of_ones_own_is_refused_by_name():
    with pytest.raises(
        ml.errors.ConversionError, match=r"autograd.Function 'Rounded', whose backward no other"
    ) as found:
        ml.from_torch(Quantized(), torch.randn(2, 3))
    assert "test_gradients.py" in str(found.value)
    assert "under torch.no_grad()" in str(found.value)


def test_a_backward_of_ones_own_is_left_out_where_gradients_are_off():
    module, x = Quantized(), torch.randn(2, 3)
    with torch.no_grad():
        model, params = ml.from_torch(module, x)
    compiled = ml.compile(model, ml.NumpyBackend())
    np.testing.assert_allclose(compiled.evaluate(params, {"x": x})["output"], module(x).detach().numpy(), rtol=1e-6)
    found = compiled.evaluate_gradients(params, {"x": x}, {"output": np.ones((2, 3), np.float32)})
    assert not any(value.any() for value in found.values())


class Hooked(nn.Module):
    def forward(self, x):
        y = x * 2
        if y.requires_grad:
            y.register_hook(reverse)
        return y


def reverse(grad):
    return -grad


def test_hooks_on_gradients_are_refused_by_name():
    module = nn.Sequential(nn.Linear(3, 3), Hooked())
    with pytest.raises(ml.errors.ConversionError, match=r"the hook 'reverse' on a gradient"):
        ml.from_torch(module, torch.randn(2, 3))
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    module[1].register_full_backward_hook(lambda module, given, grads: None)
    with pytest.raises(ml.errors.ConversionError, match=r"1 has a backward hook"):
        ml.from_torch(module, torch.randn(2, 3))
