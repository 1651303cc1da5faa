"""Models that mithril compiled, trained by nexus's trainer as any other module."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mithril as ml
import nexus
from mithril.models import BatchNorm2D, Convolution2D, IOKey, Linear, Model, Relu
from nexus import create_model

SETTINGS = {
    "batch_size": 32,
    "lr": 3e-3,
    "warmup_epochs": 0,
    "preprocessing": {"image_size": [8, 8], "resize": "none", "mean": [0.3], "std": [0.4]},
    "progress": "off",
}


def small_cnn():
    """A convolution, a normalization with statistics, and a classifier, composed in mithril."""
    model = Model()
    model |= Convolution2D(kernel_size=3, out_channels=8, padding=1, name="conv")(input="images")
    model += BatchNorm2D(name="norm")
    model += Relu()
    model |= Linear(10, name="head")(input=model.cout.reshape(model.cout.shape[0], -1), output=IOKey("logits"))
    return model


def test_a_composed_model_is_trained_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    compiled = ml.compile(small_cnn(), ml.TorchBackend(), shapes={"images": [None, 1, 8, 8]})
    result = nexus.fit(compiled.as_module(), "digits", run_dir=tmp_path, epochs=2, ema=0.5, **SETTINGS)
    assert result.metrics["top1"] > 0.85
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {"conv.weight", "norm.weight", "norm.running_mean", "norm.running_var", "head.bias"} <= set(stored)
    assert stored["norm.running_mean"].abs().max() > 0.01, "the trainer's steps have moved the statistics"

    images = torch.randn(3, 1, 8, 8)
    expected = result.model(images)["logits"].detach()
    loaded = compiled.as_module()
    assert not torch.allclose(loaded.eval()(images)["logits"], expected)
    loaded.load_state_dict(stored)
    torch.testing.assert_close(loaded(images)["logits"], expected, rtol=0, atol=0)

    on_numpy = ml.compile(small_cnn(), ml.NumpyBackend(), shapes={"images": [None, 1, 8, 8]}, inference=True)
    params = {name.replace(".", "_"): value.numpy() for name, value in stored.items()}
    found = on_numpy.evaluate(params, {"images": images.numpy()})["logits"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_imported_model_is_trained_and_goes_back(tmp_path):
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 2, "in_channels": 1, "embed_dim": 32, "num_layers": 2, "num_heads": 2}
    vit = create_model("vit_tiny_patch16_224", num_classes=10, weight_std=0.125, position_std=0.5, **sizes)
    model, params = ml.from_torch(vit.eval(), torch.zeros(2, 1, 8, 8), ({0: "batch"},))
    module = ml.compile(model, ml.TorchBackend()).as_module(params)
    result = nexus.fit(module, "digits", run_dir=tmp_path, epochs=5, **SETTINGS)
    assert result.metrics["top1"] > 0.6
    vit.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(vit(images)["logits"], result.model(images)["logits"], rtol=1e-4, atol=1e-5)
