"""The walk of docs/boxes.md, from a set with faults to two runs compared, each step one command."""

import csv
import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from tests.drawn_sets import FORMS

RECIPE = ("train", "digit-scenes/faster_rcnn_tiny")
SMALL = (
    "batch_size=8",
    "device=cpu",
    "data.preprocessing.image_size=[64,64]",
    "model.config.backbone.hidden_dim=8",
    "model.config.pyramid_dim=16",
    "model.config.box_head.hidden_dim=32",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nexus(*words, code=0):
    """Runs a command that ends as it should."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def mistake(*words):
    """The one line that a mistake ends in, without the name of the program."""
    return str(nexus(*words, code=1).exception)


def test_from_a_set_with_faults_to_two_runs_compared(folder):
    FORMS["coco"][1](folder / "boxes", faults=True)
    train = (*RECIPE, "--data", "coco:boxes", *SMALL)
    told = json.loads(nexus("data", "check", "coco:boxes", "--json", "--sheet", "boxes.png", code=1).stdout)
    assert [fault["file"] for fault in told["faults"]] == [
        "boxes/annotations/instances_train.json",
        "boxes/train/05.png",
    ]
    assert "instances_train.json: annotations[5] (id 6): the box (60, 40, 90, 70) leaves" in mistake(
        *train, "-o", "first"
    )
    assert not (folder / "first").exists()
    shutil.rmtree(folder / "boxes")
    FORMS["coco"][1](folder / "boxes")
    counts = json.loads(nexus("data", "check", "coco:boxes", "--json").stdout)["counts"]

    trained = nexus(*train, "epochs=6", "lr=3e-3", "validate_every=3", "-o", "first")
    said = ", ".join(f"{row['class']} {row['train']}" for row in counts)
    assert f"classes   2: {said}" in trained.stderr
    assert "model/ holds the best weights" in trained.stderr
    page = (folder / "first" / "report.html").read_text(encoding="utf-8")
    for title in ("Training", "Precision and recall of each class", "Missed, false, confused", "Predictions"):
        assert f"<h2>{title}</h2>" in page
    assert "<figcaption>has disc 1, square 1</figcaption>" in page, "each image stands with its own objects"

    figures = json.loads(nexus("eval", "first", "--draw", "worst", "--json").stdout)
    assert (figures["data"], figures["num_images"]) == ("coco:boxes", 6)
    drawn = sorted((folder / "worst").glob("*.png"))
    assert drawn[0].name.startswith("0001-")
    with Image.open(drawn[0]) as picture:
        assert picture.width >= 512
    assert (
        "--draw shows the errors of the model itself"
        in nexus("eval", "first", "--draw", "worst", "--probe", "knn", code=2).output
    )

    nexus("predict", "boxes/val", "--model", "first", "-o", "found.csv", "--draw", "pictures")
    assert len(list((folder / "pictures").glob("*.png"))) == 6
    with (folder / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "label", "score", "x1", "y1", "x2", "y2"]
    assert {row["label"] for row in rows} <= {"disc", "square"}
    nexus("predict", "boxes/val", "--model", "first", "-o", "found.json")
    assert len(json.loads((folder / "found.json").read_text())) == 6
    assert "Object 0 of" in nexus("explain", rows[0]["path"], "--model", "first", "-o", "why.png").output

    nexus("train", "--resume", "first", "epochs=7", "lr=1e-3")
    assert '"epoch": 7' in (folder / "first" / "metrics.jsonl").read_text()
    nexus(*train, "epochs=1", "-o", "second")
    tables = json.loads(nexus("compare", "first", "second", "--json").stdout)
    differ = {row["setting"]: (row["first"], row["second"]) for row in tables["settings"]}
    assert differ["training.epochs"] == (7, 1)
    assert {"AP", "AP50"} <= {row["figure"] for row in tables["figures"]}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "coco"])
def test_each_form_is_checked_trained_on_and_measured(folder, form):
    kind, write, labels, broken = FORMS[form]
    source = f"{kind}:boxes"
    write(folder / "boxes", faults=True)
    told = json.loads(nexus("data", "check", source, "--json", code=1).stdout)
    assert {fault["file"] for fault in told["faults"]} == {f"boxes/{labels}", f"boxes/{broken}"}
    assert f"boxes/{labels}: " in mistake(*RECIPE, "--data", source, "-o", "run")
    assert not (folder / "run").exists()
    shutil.rmtree(folder / "boxes")
    write(folder / "boxes")
    nexus(*RECIPE, "--data", source, *SMALL, "epochs=1", "-o", "run")
    assert json.loads(nexus("eval", "run", "--json").stdout)["num_images"] == 6
