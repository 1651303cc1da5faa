"""`nexus data`, as a user calls it."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli.commands import app


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
