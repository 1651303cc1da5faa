"""Results are written with the numbers of the data set that they are measured on."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from nexus import Predictor, create_model, evaluate
from nexus.cli.commands import app
from nexus.data import load_dataset
from nexus.data.detection import Annotations, write_coco
from nexus.evaluation import evaluate_coco
from nexus.predict import write_predictions

pytestmark = pytest.mark.needs("skimage")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A COCO set whose numbers follow from nothing: images 900, 893, ..., classes 7, 10, ..."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir()
    data, scenes = load_dataset("digit-scenes", "val"), []
    for place in range(4):
        path = root / "images" / f"scene{place}.png"
        data[place].image.save(path)
        scenes.append(replace(data[place].scene, path=str(path), id=900 - 7 * place))
    ids = tuple(7 + 3 * label for label in range(10))
    write_coco(Annotations(tuple(scenes), data.class_names, ids), root / "instances_val.json")
    return root


@pytest.fixture(scope="module")
def detector(scenes, tmp_path_factory):
    import torch

    torch.manual_seed(0)
    tiny = {"dims": [8, 16, 16, 24, 32], "depths": [1, 1, 1, 1], "num_bins": 4, "max_detections": 10}
    model = create_model("yolov10n", num_classes=10, **tiny)
    model.class_names = load_dataset("digit-scenes", "val").class_names
    return model.eval()


def test_predictions_are_measured_on_their_data(scenes, detector, tmp_path):
    predictions = Predictor(detector)([str(path) for path in sorted((scenes / "images").iterdir())])
    file = write_predictions(predictions, tmp_path / "x.coco.json", data=f"coco:{scenes}")
    rows = json.loads(file.read_text())
    assert {row["image_id"] for row in rows} == {900, 893, 886, 879}
    assert {row["category_id"] for row in rows} <= set(range(7, 35, 3))
    evaluate_coco(scenes / "instances_val.json", file)
    measured = evaluate(detector, f"coco:{scenes}")
    measured.write(tmp_path / "y.coco.json")
    assert {row["image_id"] for row in json.loads((tmp_path / "y.coco.json").read_text())} == {900, 893, 886, 879}
    figures = evaluate_coco(scenes / "instances_val.json", tmp_path / "y.coco.json").figures
    assert figures["AP"] == pytest.approx(measured.metrics["AP"], abs=1e-6)
    measured.write(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["metrics"]["AP"] == measured.metrics["AP"]


def test_images_and_classes_that_the_data_does_not_have(scenes, detector, tmp_path):
    image = scenes / "images" / "scene0.png"
    (tmp_path / "other.png").write_bytes(image.read_bytes())
    found = Predictor(detector)([str(tmp_path / "other.png")])
    with pytest.raises(ValueError, match=r"other\.png is no image of the data set"):
        write_predictions(found, tmp_path / "x.coco.json", data=f"coco:{scenes}")
    with pytest.raises(ValueError, match="leave it out"):
        write_predictions(found, tmp_path / "x.csv", data=f"coco:{scenes}")
    strange = [replace(one, class_names=tuple("abcdefghij"), path=str(image)) for one in found]
    with pytest.raises(ValueError, match="has none of the model's classes: a, b, c"):
        write_predictions(strange, tmp_path / "x.coco.json", data=f"coco:{scenes}")


def test_commands_write_them(scenes, detector, tmp_path):
    detector.save_pretrained(tmp_path / "model")
    words = ["eval", tmp_path / "model", "--data", f"coco:{scenes}", "-o", tmp_path / "e.coco.json"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    words = [
        "predict",
        scenes / "images",
        "-m",
        tmp_path / "model",
        "-d",
        f"coco:{scenes}",
        "-o",
        tmp_path / "p.coco.json",
    ]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    for name in ("e", "p"):
        evaluate_coco(scenes / "instances_val.json", tmp_path / f"{name}.coco.json")
