"""K folds: every item is held out once, classes keep their share, figures are those of the runs, and it goes on."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.data import load_dataset
from nexus.data.adapt import as_dataset
from nexus.data.detection.digit_scenes import DigitScenes
from nexus.data.facets import Annotated, Captioned, Labelled, Pictured
from nexus.data.part import part_of
from nexus.training.folds import cut
from nexus.training.kept import read_result
from nexus.training.trainer import Trainer

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X[:, :, None, None], (X[:, 0] > 0.4).long())
SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.05, "progress": "off"}


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2))


def test_every_item_is_held_out_once_and_classes_keep_their_share():
    digits = load_dataset("digits", "train")
    parts = cut(digits, 5, 0)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(digits)))
    counts = np.array([np.bincount(digits.labels[part], minlength=10) for part in parts])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert not np.array_equal(parts[0], cut(digits, 5, 1)[0])
    assert np.array_equal(parts[0], cut(digits, 5, 0)[0])


@pytest.mark.parametrize("folds", [1, 0, -2, 61, True, 2.5, "5"])
def test_a_number_of_folds_that_cannot_be(folds):
    with pytest.raises(ValueError, match=r"folds is .*; it is a number from 2 to the 60 items"):
        nexus.cross_validate(linear(), DATA, folds=folds, **SETTINGS)


def test_a_part_has_the_facets_of_the_whole():
    scenes = DigitScenes("train", 6)
    part = part_of(scenes, [4, 1])
    assert isinstance(part, Annotated)
    assert isinstance(part, Pictured)
    assert not isinstance(part, Captioned)
    assert part.annotations.scenes == (scenes.annotations.scenes[4], scenes.annotations.scenes[1])
    assert np.array_equal(np.asarray(part[1].image), np.asarray(scenes[1].image))
    digits = load_dataset("digits", "val")
    few = part_of(digits, [3, 5, 8])
    assert isinstance(few, Labelled)
    assert few.labels.tolist() == digits.labels[[3, 5, 8]].tolist()
    assert few.class_names == digits.class_names
    assert len(few) == 3


def test_tensors_go_in_as_they_are():
    part = part_of(as_dataset(DATA), [7, 2])
    assert part.as_input
    assert torch.equal(part[0].image, DATA[7][0])
    assert part.labels.tolist() == [int(DATA[7][1]), int(DATA[2][1])]


def test_files_of_a_part_are_those_of_its_items(tmp_path):
    import PIL.Image

    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            PIL.Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "train" / name / f"{number}.png")
    folder = load_dataset(f"folder:{tmp_path}", "train")
    part = part_of(folder, [5, 0])
    assert part.path(0).endswith("dog/2.png")
    assert part.open(1).path == folder[0].path


def test_figures_are_those_of_the_runs(tmp_path):
    found = nexus.cross_validate(linear(), DATA, folds=3, run_dir=tmp_path / "kf", **SETTINGS)
    told = json.loads((tmp_path / "kf" / "folds.json").read_text())
    for number, figures in enumerate(found.figures, start=1):
        assert read_result(tmp_path / "kf" / f"fold-{number}")[1] == figures
    top1 = [one["top1"] for one in found.figures]
    assert found.mean["top1"] == told["mean"]["top1"] == pytest.approx(np.mean(top1))
    assert found.deviation["top1"] == pytest.approx(np.std(top1, ddof=1))
    assert len(set(top1)) > 1 or len({one["loss"] for one in found.figures}) > 1
    assert "3 folds" in repr(found)
    assert "deviation" in found._repr_html_()


def test_it_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = nexus.cross_validate(linear(), DATA, folds=3, run_dir=tmp_path / "whole", **SETTINGS)
    fit, runs = Trainer.fit, []

    def stop_at_the_second(trainer):
        runs.append(trainer.run_dir.name)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return fit(trainer)

    monkeypatch.setattr(Trainer, "fit", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        nexus.cross_validate(linear(), DATA, folds=3, run_dir=tmp_path / "kf", **SETTINGS)
    again = nexus.cross_validate(linear(), DATA, folds=3, run_dir=tmp_path / "kf", resume=True, **SETTINGS)
    assert runs == ["fold-1", "fold-2", "fold-2", "fold-3"]
    assert again.figures == whole.figures


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="the folds hold out their own parts; give one data set"):
        nexus.cross_validate(linear(), (as_dataset(DATA), as_dataset(DATA)), folds=3, **SETTINGS)


def test_the_command(tmp_path):
    words = [
        "digits/vit_tiny",
        "training.epochs=1",
        "training.batch_size=128",
        "--folds",
        "2",
        "--run-dir",
        str(tmp_path / "kf"),
    ]
    result = CliRunner().invoke(app, ["train", *words, "data.source=digits"])
    assert result.exit_code == 0, result.output
    assert "deviation" in result.output
    assert sorted(path.name for path in (tmp_path / "kf").iterdir()) == ["fold-1", "fold-2", "folds.json"]
