"""`nexus data`, as a user calls it."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app
from tests.drawn_sets import write_coco


def content(**changes):
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 6], **changes}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row],
    }


def run(*words):
    return CliRunner().invoke(app, ["data", *map(str, words)])


def test_check_names_faults_and_convert_writes(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(content()))
    bad.write_text(json.dumps(content(bbox=[1, 2, 50, 6])))
    result = run("check", good)
    assert result.exit_code == 0, result.output
    result = run("check", bad)
    assert result.exit_code == 1
    assert f"{bad}: annotations[0] (id 1): the box (1, 2, 51, 8) leaves the image of 30 x 20" in result.output
    faults = json.loads(run("check", bad, "--json").stdout)["faults"]
    assert faults[0]["place"] == "annotations[0] (id 1)"
    result = run("convert", good, tmp_path / "voc", "--to", "voc")
    assert result.exit_code == 0, result.output
    assert run("check", tmp_path / "voc").exit_code == 0
    result = run("convert", good, tmp_path / "x", "--to", "png")
    assert isinstance(result.exception, ValueError)
    with pytest.raises(ValueError, match="--to is 'png'"):
        raise result.exception


def test_check_counts_compares_and_draws(tmp_path):
    write_coco(tmp_path / "boxes")
    shutil.copy(tmp_path / "boxes" / "train" / "00.png", tmp_path / "boxes" / "val" / "00.png")
    checked = run("check", f"coco:{tmp_path / 'boxes'}", "--sheet", tmp_path / "sheet.png", "--json")
    told = json.loads(checked.stdout)
    assert [fault["problem"].partition(" ")[2] for fault in told["faults"]] == [
        f"is a copy of {tmp_path / 'boxes' / 'train' / '00.png'}, which is in train; keep one of them."
    ]
    assert told["sizes"] == "48 x 64"
    assert [row["class"] for row in told["counts"]] == ["disc", "square"]
    assert sum(row["train"] + row["val"] for row in told["counts"]) == told["objects"] == 28
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (37, 99, 235) in {colour for _, colour in sheet.getcolors(1 << 24)}, "boxes are drawn"


def test_check_draws_what_can_be_read_of_folders(tmp_path):
    for number, name in enumerate(("red", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(6):
            Image.new("RGB", (8, 8 + k), (40 * k, 0, 250 * number)).save(tmp_path / "photos" / name / f"{k}.png")
    (tmp_path / "photos" / "red" / "0.png").write_bytes(b"no picture")
    checked = run("check", f"folder:{tmp_path / 'photos'}", "--sheet", tmp_path / "sheet.png")
    assert checked.exit_code == 1
    assert "8 x 8 to 13 x 8" in checked.output
    assert (tmp_path / "sheet.png").is_file()
    assert isinstance(run("check", "digits", "--sheet", tmp_path / "a.jpg").exception, ValueError)
    assert "There is no image that can be drawn" in run("check", f"coco:{tmp_path}", "--sheet", "s.png").output
