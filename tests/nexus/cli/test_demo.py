"""The demo's section about other frameworks, for a model that was not trained."""

import re
import runpy

import numpy as np
import pytest
import torch

from nexus import create_model
from nexus.cli import demo, demo_photos
from nexus.cli.report import write_report
from nexus.core.preprocessing import Preprocessing
from nexus.data import load_dataset


@pytest.fixture
def vit():
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 2, "in_channels": 1, "embed_dim": 24, "num_layers": 2, "num_heads": 2}
    model = create_model("vit_tiny_patch16_224", num_classes=10, **sizes)
    model.preprocessing = Preprocessing(image_size=(8, 8), resize="none", mean=(0.3,), std=(0.4,))
    return model


def test_the_model_without_pytorch(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "FRAMEWORKS", {"numpy": ("NumPy", "numpy"), "jax": ("JAX", "no_such_package")})
    section = demo._other_frameworks(vit, load_dataset("digits", "val"), tmp_path)
    (row,) = section.rows
    assert row["framework"] == "NumPy"
    assert row["same digit as PyTorch"] == "360 of 360"
    assert float(row["largest difference of a logit"]) < 1e-5
    assert list(section.links) == ["vit_on_numpy.py"]


def test_the_program_beside_the_report_runs_alone(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "FRAMEWORKS", {"numpy": ("NumPy", "numpy")})
    section = demo._other_frameworks(vit, load_dataset("digits", "val"), tmp_path)
    page = write_report(tmp_path / "report.html", title="t", summary="s", figures_of_merit={}, sections=[section])
    (linked,) = re.findall(r'<a href="([^"]+)">', page.read_text())
    text = (tmp_path / linked).read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) <= {"itertools", "math", "numpy"}
    program = runpy.run_path(str(tmp_path / linked))
    params = {name.replace(".", "_"): value.numpy() for name, value in vit.state_dict().items()}
    images = torch.randn(3, 1, 8, 8)
    found = program["evaluate"](params, {"images": images.numpy()})["logits"]
    np.testing.assert_allclose(found, vit.eval()(images)["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.needs("skimage")
def test_real_photos_are_named_and_its_features_learn_new_classes():
    names, probed = demo_photos.photo_sections()
    guesses = {row["photo"]: row["guess 1"].rpartition(" ")[0] for row in names.rows}
    assert guesses["cat"] in ("tiger cat", "tabby", "Egyptian cat")
    assert (guesses["coffee"], guesses["camera"]) == ("espresso", "tripod")
    trained, fresh = (float(row["held-out accuracy"].rstrip("%")) for row in probed.rows)
    assert trained > fresh + 10
