"""The commands as a user types them: what they print, what they write, how they fail."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli import main
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data.video import frame_rate, read_frames, write_frames
from nexus.models.registry import create_model
from nexus.tasks.source import open_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An untrained ViT for the digits, saved as a trainer saves it."""
    model = create_model(
        "vit_tiny_patch16_224", image_size=8, patch_size=2, in_channels=1, num_classes=10, embed_dim=24, num_layers=2
    )
    model.preprocessing = Preprocessing(image_size=(8, 8), resize="none", mean=(0.3,), std=(0.4,))
    model.class_names = tuple("0123456789")
    return model.save_pretrained(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "digit.png"
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def nexus(monkeypatch, capsys):
    """Runs the command as the installed script does; returns its exit status and what stands on standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nexus", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return call


def test_models_lists_names_that_match():
    rows = json.loads(run("models", "resnet*", "--json").stdout)
    assert {"resnet18", "resnet50", "resnet152"} <= {row["name"] for row in rows}
    assert {row["name"].startswith("resnet") for row in rows} == {True}
    assert next(row for row in rows if row["name"] == "resnet50")["parameters"] == 25_557_032


def test_models_without_a_match_say_so():
    result = run("models", "resnext*")
    assert result.exit_code == 2
    assert "No model matches 'resnext*'" in result.stderr


def test_info_shows_the_card():
    card = json.loads(run("info", "vit_base_patch16_224", "--json").stdout)
    assert card["parameters"] == 86_567_656
    assert card["config"]["embed_dim"] == 768
    assert card["weights"]
    assert all(weights["licence"] for weights in card["weights"])
    assert "vit_base_patch16_224" in run("info", "vit_base_patch16_224").stdout


def test_recommend_answers_the_matrices_from_the_cards():
    rows = json.loads(run("recommend", "--task", "image-classification", "--json").stdout)
    choices = {row["family"]: row["choice"] for row in rows}
    assert choices["VisionTransformer"] == "recommended"
    assert choices["ResNet"] == "alternative"
    by_count = json.loads(run("recommend", "--data", "5000", "--json").stdout)
    assert by_count == json.loads(run("recommend", "--data", "1k-10k", "--json").stdout)
    table = run("recommend", "--task", "image-classification").stdout
    assert "resnet18, resnet34, resnet50, and 2 more" in " ".join(table.split())
    assert run("recommend").exit_code == 0


def test_recommend_names_the_nearest_need(nexus):
    status, message = nexus("recommend", "--task", "image-clasification")
    assert status == 2
    assert message == "nexus: There is no task 'image-clasification'. Did you mean 'image-classification'?\n"


def test_eval_measures_a_saved_model(saved):
    result = json.loads(run("eval", saved, "--data", "digits", "--json").stdout)
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["num_images"] == 360
    assert result["metrics"]["top1"] == pytest.approx(np.trace(confusion) / 360)
    assert "top1" in run("eval", saved).stdout


def test_predict_prints_and_writes(saved, digit, tmp_path):
    table = tmp_path / "guesses.csv"
    rows = json.loads(run("predict", digit, "--model", saved, "--top", 3, "--output", table, "--json").stdout)
    assert len(rows) == 1
    assert len(rows[0]["top"]) == 3
    assert rows[0]["label"] in table.read_text()


def test_predict_goes_through_a_video_and_writes_one(needed, saved, digit, tmp_path):
    needed("av")
    film, drawn = tmp_path / "film.mp4", tmp_path / "drawn.mp4"
    write_frames(film, [Image.open(digit).convert("RGB").resize((32, 32))] * 5, rate=10)
    settings = Preprocessing(image_size=(8, 8), resize="squash", mean=(0.3,), std=(0.4,))
    model = open_model(saved)
    model.preprocessing = settings
    folder = model.save_pretrained(tmp_path / "model")
    rows = json.loads(run("predict", film, "--model", folder, "--every", 2, "--draw", drawn, "--json").stdout)
    assert [row["path"] for row in rows] == [f"{film}#0", f"{film}#2", f"{film}#4"]
    assert len(list(read_frames(drawn))) == 3
    assert frame_rate(drawn) == pytest.approx(5)


@pytest.mark.parametrize("method", ["gradcam", "attention", "rollout", "features"])
def test_explain_draws_a_picture(saved, digit, tmp_path, method):
    picture = tmp_path / "explanation.png"
    result = run("explain", digit, "--model", saved, "--method", method, "--output", picture)
    assert "The model's guess is" in result.stdout
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 5, "the picture is empty"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "resnet5O"], "There is no model 'resnet5O'. Did you mean 'resnet50'?"),
        (["train", "digits/vit_tinny"], "Did you mean 'digits/vit_tiny'?"),
        (["train", "digits/vit_tiny", "optimizer.lrr=1"], "optimizer.lr"),
        (["predict", "missing.png", "--model", "resnet5O"], "Did you mean 'resnet50'?"),
        (["train"], "train needs a model or a recipe"),
    ],
)
def test_mistakes_end_in_one_line_that_says_what_to_change(nexus, arguments, message):
    status, shown = nexus(*arguments)
    assert status == 2
    assert message in shown
    assert shown.count("\n") == 1


def test_a_missing_image_is_named(nexus, saved):
    status, shown = nexus("predict", "no-such-image.png", "--model", saved)
    assert status == 2
    assert "no-such-image.png" in shown
    assert shown.count("\n") == 1


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "nexus", "train", "digits/vit_tinny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Did you mean 'digits/vit_tiny'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_are_listed():
    assert "digits/vit_tiny" in run("train", "--list").stdout


def test_explain_takes_the_name_of_a_class(saved, digit, tmp_path):
    picture = tmp_path / "explanation.png"
    assert run("explain", digit, "--model", saved, "--target", "7", "-o", picture).exit_code == 0
    with pytest.raises(ValueError, match="The model has no class 'seven'"):
        run("explain", digit, "--model", saved, "--target", "seven", "-o", picture)
