"""The recipe of clips: it takes a few steps, and commands measure it and tell of it."""

import json

import pytest
import torch
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.data.clips import DigitVideos
from nexus.training import Trainer, load_recipe

SMALL = ["training.batch_size=2", "training.epochs=2", "training.num_threads=1", "schedule.warmup_epochs=0"]
CLIPS = {"train_data": DigitVideos("train", 4), "val_data": DigitVideos("val", 2)}


def run(folder, *changes):
    recipe = load_recipe("digit-videos/sam2_tiny", [*SMALL, *changes])
    return Trainer(recipe, folder, progress="off", **CLIPS).fit()


def test_the_recipe_takes_a_few_steps_and_commands_know_its_run(tmp_path):
    result = run(tmp_path / "run")
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())
    assert set(result.metrics) == {"J&F", "J", "F"}
    told = CliRunner().invoke(
        app, ["eval", str(tmp_path / "run"), "--data", "digit-videos:2", "--split", "train", "--json"]
    )
    assert told.exit_code == 0, told.output
    report = json.loads(told.output)
    assert (report["task"], report["settings"]["prompt"]) == ("video-segmentation", "click")
    drawn = tmp_path / "worst"
    words = ["eval", str(tmp_path / "run"), "--data", "digit-videos:2", "--split", "train", "--draw", str(drawn)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert len(list(drawn.iterdir())) == min(6, len(report["per_object"]))


def test_clips_are_for_what_follows_objects(tmp_path):
    with pytest.raises(ValueError, match=r"clips is .*, and classification has nothing that it is for; leave it out"):
        Trainer(load_recipe("digits/vit_tiny", ["clips.frames=3"]), tmp_path / "a").fit()
    with pytest.raises(ValueError, match=r"Clips train a SAM 2 with its memory \(video=True\), not a SAM2 without one"):
        run(tmp_path / "b", "model.config.video=false")
    with pytest.raises(ValueError, match="augment sets rotate, and clips follow flip; leave it out"):
        run(tmp_path / "c", "augment.rotate=5")
