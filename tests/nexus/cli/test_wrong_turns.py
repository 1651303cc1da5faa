"""Wrong turns that people took, each answered in one line that says what to change."""

import io

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.models.cv import VisionTransformer

TINY = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 1, "num_heads": 2, "num_classes": 3}


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def saved(tmp_path):
    model = VisionTransformer(TINY)
    model.preprocessing = nexus.Preprocessing(image_size=(32, 32))
    return model.save_pretrained(tmp_path / "model")


def said(*words):
    """What the command line answers to a mistake."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code != 0
    return f"{result.output} {result.exception}"


def test_every_frame_of_a_photo(photo, saved):
    assert "--every 5 is for videos, and there is none among the images" in said(
        "predict", photo, "--model", saved, "--every", 5
    )


def test_a_picture_as_the_model(photo):
    assert "a.png is a picture, and the model is wanted here: a name, a run, or a weight file" in said(
        "predict", photo, "--model", photo
    )


def test_a_run_that_is_not_there(tmp_path):
    words = ("train", "vit_tiny_patch16_224", "--data", "digits", "--resume", "--run-dir", tmp_path / "nothere")
    assert "so no run to go on with; leave --resume out to start one" in said(*words)


def test_a_run_whose_model_lost_its_configuration(saved, photo, tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"model lacks config\.json, without which nobody knows what its weights are"):
        nexus.Predictor(tmp_path)(photo)


def test_open_files(saved, photo):
    predictor = nexus.Predictor(saved)
    wanted = predictor(photo)[0].top(3)
    with photo.open("rb") as file:
        assert predictor(file)[0].top(3) == wanted
    assert predictor([io.BytesIO(photo.read_bytes())])[0].top(3) == wanted
    with photo.open() as file, pytest.raises(ValueError, match=r'opened as text; open it as bytes: open\(path, "rb"\)'):
        predictor(file)


def test_a_pattern_that_is_no_text():
    with pytest.raises(ValueError, match=r"The pattern is 3; it is text with \* for anything"):
        nexus.list_models(3)


def test_more_classes_than_there_is_memory():
    with pytest.raises(ValueError, match=r"resnet18 cannot be built with .*num_classes"):
        nexus.create_model("resnet18", num_classes=10**15)
