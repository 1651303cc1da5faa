"""Every class of the zoo, imported and equal to PyTorch."""

import numpy as np
import pytest
import torch

import mithril as ml
from nexus import create_model
from tests.mithril.interop.test_foreign import difference, expected_of
from tests.nexus.models.test_every_model import CASES

QUICK = {"vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224"}


def small(case):
    """The model, with what starts at zero made visible, and its images by name."""
    torch.manual_seed(0)
    module = create_model(case.name, **case.changes).eval()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return module, torch.randn(2, 3, case.size, case.size)


PARAMS = [
    pytest.param(case, id=f"{number}-{case.name}", marks=() if case.name in QUICK else pytest.mark.slow)
    for number, case in enumerate(CASES)
]


@pytest.mark.parametrize("case", PARAMS)
def test_equal_on_numpy_and_torch(case):
    module, images = small(case)
    expected = expected_of(module, (images,))
    model, params = ml.from_torch(module, (images,))
    for backend in (ml.NumpyBackend(), ml.TorchBackend()):
        compiled = ml.compile(model, backend, inference=True)
        found = compiled.evaluate(params, {compiled.data_keys[0]: images.numpy()})
        assert difference({k: backend.to_numpy(v) for k, v in found.items()}, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("case", PARAMS)
def test_equal_on_jax(case):
    pytest.importorskip("jax")
    module, images = small(case)
    expected = expected_of(module, (images,))
    model, params = ml.from_torch(module, (images,))
    compiled = ml.compile(model, ml.JaxBackend(), inference=True)
    found = compiled.evaluate(params, {compiled.data_keys[0]: images.numpy()})
    assert difference({k: np.asarray(v) for k, v in found.items()}, expected) < 1e-4


@pytest.mark.parametrize("case", [p for p in PARAMS if not any(word in str(p.id) for word in ("rcnn", "detr", "mae"))])
def test_open_batch(case):
    module, images = small(case)
    model, params = ml.from_torch(module, (images,), ({0: "batch"},))
    compiled = ml.compile(model, ml.NumpyBackend(), inference=True)
    more = torch.randn(3, *images.shape[1:])
    found = compiled.evaluate(params, {compiled.data_keys[0]: more.numpy()})
    assert difference(found, expected_of(module, (more,))) < 1e-4
