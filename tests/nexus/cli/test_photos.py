"""The walk of docs/photos.md, from an empty folder to two runs compared, each step one command."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app

SMALL = ["image_size=24", "model.config.hidden_dim=8", "device=cpu", "augment.flip=0.5"]


def nexus(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def mistake(folder, *words):
    """The one line that a mistake ends in."""
    command = [sys.executable, "-m", "nexus", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode in (1, 2), done.stderr
    [line] = (done.stderr or done.stdout).splitlines()[:1] if done.returncode == 1 else done.stderr.splitlines()
    return line


@pytest.fixture
def photos(needed, tmp_path, monkeypatch):
    """60 photos in 3 classes, crops of scikit-image's: one broken, one grey, one of 16 bits."""
    data = needed("skimage").data
    rng = np.random.default_rng(0)
    for name, photo in (("cat", data.chelsea()), ("coffee", data.coffee()), ("rocket", data.rocket())):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            side = int(rng.integers(120, 200))
            top, left = (int(rng.integers(0, limit - side)) for limit in photo.shape[:2])
            crop = Image.fromarray(photo[top : top + side, left : left + side]).resize((48, 40))
            crop.save(tmp_path / "photos" / name / f"{number:02d}.png")
    cats = tmp_path / "photos" / "cat"
    with Image.open(cats / "01.png") as photo:
        grey = photo.convert("L")
    grey.save(cats / "01.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(cats / "02.png")
    whole = (cats / "03.png").read_bytes()
    (cats / "03.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.needs("skimage")
@pytest.mark.timeout(600)
def test_from_an_empty_folder_to_two_runs_compared(photos):
    train = ("train", "resnet18", "--data", "folder:photos", "epochs=4", "lr=3e-3", *SMALL)

    checked = nexus("data", "check", "folder:photos", "--json")
    [fault] = json.loads(checked.stdout)["faults"]
    assert (checked.exit_code, fault["file"]) == (1, "photos/cat/03.png")
    assert "03.png" in mistake(photos, *train, "-o", "first")
    assert not (photos / "first").exists()
    (photos / "photos" / "cat" / "03.png").unlink()
    assert nexus("data", "check", "folder:photos").exit_code == 0

    trained = nexus(*train, "-o", "first")
    assert trained.exit_code == 0
    assert "cat 1" in trained.stderr
    assert "model/ holds the best weights" in trained.stderr
    assert "holds a run already" in mistake(photos, *train, "-o", "first")
    page = (photos / "first" / "report.html").read_text(encoding="utf-8")
    for title in ("Training", "Which classes are confused", "Wrong guesses", "Predictions", "Settings of the run"):
        assert f"<h2>{title}</h2>" in page
    (photos / "first" / "report.html").unlink()
    assert nexus("report", "first").exit_code == 0
    assert (photos / "first" / "report.html").read_text(encoding="utf-8") == page

    told = json.loads((photos / "first" / "result.json").read_text())
    figures = json.loads(nexus("eval", "first", "--json").stdout)
    assert figures["data"] == "folder:photos"
    assert figures["metrics"]["top1"] == pytest.approx(told["metrics"]["top1"])
    assert "top5" not in figures["metrics"]
    assert json.loads(nexus("eval", "first", "--flip", "--json").stdout)["settings"]["flip"] is True

    nexus("predict", "photos", "--model", "first", "-o", "guesses.csv")
    with (photos / "guesses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 59
    assert list(rows[0]) == ["path", "label", "score", "cat", "coffee", "rocket"]
    for row in rows:
        chances = {name: float(row[name]) for name in ("cat", "coffee", "rocket")}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(chances, key=lambda name: chances[name])
    nexus("predict", "photos", "--model", "first", "-o", "long.csv", "--long")
    assert len((photos / "long.csv").read_text().splitlines()) == 1 + 3 * 59

    assert nexus("explain", "photos/coffee/00.png", "--model", "first", "-o", "why.png").exit_code == 0
    with Image.open(photos / "why.png") as picture:
        assert picture.width > 100

    resumed = nexus("train", "--resume", "first", "epochs=5", "lr=1e-3")
    assert resumed.exit_code == 0
    assert "with other values of optimizer.lr, training.epochs." in resumed.stderr
    assert '"epoch": 5' in (photos / "first" / "metrics.jsonl").read_text()
    assert "keys differ: training.seed" in mistake(photos, "train", "--resume", "first", "seed=3")

    assert nexus(*train, "class_weights=balanced", "-o", "second").exit_code == 0
    tables = json.loads(nexus("compare", "first", "second", "--json").stdout)
    differ = {row["setting"]: (row["first"], row["second"]) for row in tables["settings"]}
    assert differ["training.epochs"] == (5, 4)
    assert differ["training.class_weights"] == (None, "balanced")
    assert {row["figure"] for row in tables["figures"]} == {"step of model/", "top1", "loss"}
    assert "none is no run" in mistake(photos, "compare", "first", "none")
    assert "is no run" in mistake(photos, "report", "photos")
