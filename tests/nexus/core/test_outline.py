"""Models are outlined, and loaded, without drawing weights that nobody keeps."""

import subprocess
import sys

import pytest
import torch

from nexus import create_model
from nexus.core.module import NexusModule
from nexus.core.outline import outlined

TINY = {
    "tf_efficientnet_lite0": {"num_classes": 2},
    "resnet18": {"num_classes": 2, "num_layers": (1, 1, 1, 1), "hidden_dim": 8},
    "vit_tiny_patch16_224": {"num_classes": 2, "num_layers": 1, "embed_dim": 24, "num_heads": 2, "image_size": 32},
}


@pytest.mark.parametrize("name", TINY)
def test_loading_draws_nothing_and_loads_everything(name, tmp_path):
    model = create_model(name, **TINY[name]).eval()
    folder = model.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    again = NexusModule.from_pretrained(folder).eval()
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_outline_has_shapes_alone():
    with outlined():
        model = create_model("resnet18")
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert model.num_parameters() == 11_689_512


def test_loading_does_not_import_the_compiler(tmp_path):
    """`normal_` on `meta` would: 1.8 s of every command that opens a model."""
    create_model("resnet18", **TINY["resnet18"]).save_pretrained(tmp_path)
    script = (
        "import sys, nexus; nexus.NexusModule.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]);"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(tmp_path / "again")], timeout=250)
    assert done.returncode == 0
