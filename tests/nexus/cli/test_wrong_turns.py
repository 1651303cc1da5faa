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
    with pytest.raises(ValueError, match=r"resnet18 cannot be built with .*num_classes.* would take [\d,]+ GiB, more"):
        nexus.create_model("resnet18", num_classes=10**15)


@pytest.fixture
def two_runs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("model: {name: resnet18}\n")
        (tmp_path / name / "metrics.jsonl").write_text('{"kind": "val", "step": 3, "top1": 0.5}\n')
        (tmp_path / name / "result.json").write_text('{"step": 3, "metrics": {"top1": 0.5}}')
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "result.json: step is None; it must be the step that model/ is of"),
        ('{"step": "3"}', "result.json: step is '3'; it must be a whole number"),
        ('{"step": 3, "metrics": [1]}', "result.json: metrics is [1]; it must be a mapping of figures"),
        ("[]", "result.json is a list; it must be a mapping"),
    ],
)
def test_a_result_that_says_something_else(two_runs, text, message):
    (two_runs[1] / "result.json").write_text(text)
    assert message in said("compare", *two_runs)


def test_lines_of_a_run_that_say_no_step(two_runs):
    (two_runs[1] / "result.json").unlink()
    (two_runs[1] / "metrics.jsonl").write_text('{"kind": "val"}\n{"kind": "val", "step": 1}\n')
    assert "line 1 has no step; each line of a run's metrics says its kind and its step" in said("compare", *two_runs)
    (two_runs[1] / "metrics.jsonl").write_text("")
    assert CliRunner().invoke(app, ["compare", *map(str, two_runs)]).exit_code == 0


def test_ways_to_train_that_exclude_each_other():
    words = ("train", "digits/vit_tiny", "--find-lr", "--folds", "3")
    assert "--find-lr and --folds do different things; give one of them" in said(*words)
    assert "--dry-run and --folds do different things" in said("train", "digits/vit_tiny", "--folds", "3", "--dry-run")


def test_labels_that_are_a_link_to_nowhere(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train" / "a.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames: [cat]\n")
    assert "a.txt" in said("data", "check", tmp_path / "data.yaml")
