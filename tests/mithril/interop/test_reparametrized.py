"""Modules whose weights are computed, and two networks that are written unlike others, imported and equal to PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import mithril as ml
from nexus.proofs.libraries import import_library

MODULES = {
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "weight_norm of columns": lambda: parametrizations.weight_norm(nn.Conv2d(4, 3, 3), dim=1),
    "weight_norm by hooks": lambda: weight_norm(nn.Linear(4, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
    "spectral_norm by hooks": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 3, 3)),
}


def difference(module, args, backend):
    """The largest between the first outputs, relative to the largest value."""
    with torch.no_grad():
        expected = module(*args)
    expected = expected if isinstance(expected, torch.Tensor) else expected[0]
    model, params = ml.from_torch(module, args)
    compiled = ml.compile(model, backend, inference=True)
    outputs = compiled.evaluate(params, dict(zip(compiled.data_keys, [x.numpy() for x in args])))
    found = backend.to_numpy(next(iter(outputs.values())))
    assert found.shape == expected.shape
    assert expected.std() > 1e-3
    return np.abs(found - expected.numpy()).max() / expected.abs().max().item()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MODULES)
def test_computed_weights(name):
    torch.manual_seed(0)
    module = nn.Sequential(MODULES[name]()).eval()
    x = torch.randn(2, 4, 5, 5) if isinstance(module[0], nn.Conv2d) else torch.randn(2, 4)
    assert difference(module, (x,), ml.NumpyBackend()) < 1e-5


def test_gpt2_without_a_mask():
    transformers = import_library("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=19, n_positions=8, n_embd=24, n_layer=2, n_head=3, use_cache=False)
    module = transformers.GPT2Model(config).eval()
    assert difference(module, (torch.randint(0, 19, (2, 6)),), ml.NumpyBackend()) < 1e-5


@pytest.mark.slow
def test_swin_v2_of_torchvision():
    torchvision = import_library("torchvision")
    torch.manual_seed(0)
    module = torchvision.models.swin_v2_t().eval()
    assert difference(module, (torch.randn(1, 3, 224, 224),), ml.TorchBackend()) < 1e-5
