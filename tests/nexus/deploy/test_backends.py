"""Models of the zoo on other frameworks."""

import re

import numpy as np
import pytest
import torch

import mithril as ml
from nexus import create_model
from nexus.deploy import to_backend

TINY = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 3}


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return create_model("vit_tiny_patch16_224", **TINY)


@pytest.mark.parametrize("backend", ["numpy", "torch", "mlx"])
def test_equal_for_any_batch(needed, vit, backend):
    if backend == "mlx":
        needed("mlx.core")
    brought = to_backend(vit, backend)
    assert vit.training
    vit.eval()
    for count in (1, 3):
        images = torch.randn(count, 3, 32, 32)
        expected = vit(images)
        found = brought(images)
        np.testing.assert_allclose(found["logits"], expected["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["features_1"], expected["features"][1].detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_equal_on_jax_in_float64(needed, vit):
    needed("jax")
    vit = vit.double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = to_backend(vit, ml.JaxBackend(dtype=ml.float64))(images)
    np.testing.assert_allclose(found["logits"], vit(images)["logits"].detach().numpy(), rtol=1e-9, atol=1e-12)


def test_batch_norms_are_folded_and_the_program_is_written(tmp_path):
    torch.manual_seed(0)
    model = create_model("resnet18", hidden_dim=8)
    model(torch.randn(4, 3, 64, 64))
    model.eval()
    brought = to_backend(model, "torch", image_size=64, batch_size=2)
    images = torch.randn(2, 3, 64, 64)
    found = brought(images.numpy())
    np.testing.assert_allclose(found["logits"], model(images)["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)
    brought.save_source(tmp_path / "resnet.py")
    assert "batch_norm" not in (tmp_path / "resnet.py").read_text()


def test_errors(vit):
    with pytest.raises(ValueError, match=re.escape("There is no backend 'jaxx'. Did you mean 'jax'?")):
        to_backend(vit, "jaxx")
    with pytest.raises(ValueError, match=r"cannot trace the module\."):
        to_backend(vit, "numpy", image_size=(5, 5))
