"""`Predictor`: what it takes, what it says, what it refuses."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nexus import create_model, evaluate
from nexus.core.config import Config
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data import ImageError, load_dataset
from nexus.predict import Predictor, SkippedImageWarning, write_predictions

NAMES = ("red", "green", "blue")


class Brightest(NexusModule):
    """Logits are ten times the channels' means (of the original 0 to 1)."""

    config: Config

    def __init__(self):
        super().__init__(Config())
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.preprocessing = Preprocessing(image_size=(8, 8), resize="squash", mean=(0.5,) * 3, std=(0.25,) * 3)
        self.class_names = NAMES
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return {"logits": self.scale * (images.mean((2, 3)) * 0.25 + 0.5)}


def picture(channel: int, size: tuple[int, int] = (20, 10)) -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., channel] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    picture(0).save(tmp_path / "a.png")
    picture(2).save(tmp_path / "below" / "b.PNG")
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves behind")
    return tmp_path


def test_one_file(folder):
    (prediction,) = Predictor(Brightest())(folder / "a.png")
    assert (prediction.path, prediction.label) == (str(folder / "a.png"), "red")
    expected = torch.tensor([10.0, 0.0, 0.0]).softmax(0)
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5)


def test_folder_and_patterns(folder):
    predictor = Predictor(Brightest())
    assert [prediction.label for prediction in predictor(folder)] == ["red", "blue"]
    assert [prediction.label for prediction in predictor(str(folder / "*.png"))] == ["red"]
    assert [prediction.label for prediction in predictor([str(folder / "**/*.PNG"), folder / "a.png"])] == [
        "blue",
        "red",
    ]


def test_images_in_memory():
    green = np.asarray(picture(1))
    predictor = Predictor(Brightest())
    as_tensor = torch.from_numpy(green.copy()).permute(2, 0, 1)
    kinds = [picture(1), green, green / 255.0, as_tensor, as_tensor / 255]
    predictions = predictor(kinds)
    assert [prediction.label for prediction in predictions] == ["green"] * 5
    assert [prediction.path for prediction in predictions] == [f"images[{i}]" for i in range(5)]
    for prediction in predictions[1:]:
        np.testing.assert_allclose(prediction.probabilities, predictions[0].probabilities, rtol=1e-5)
    assert [prediction.path for prediction in predictor(torch.stack([as_tensor] * 2))] == ["images[0]", "images[1]"]
    assert [prediction.path for prediction in predictor([np.stack([green] * 2)])] == ["images[0][0]", "images[0][1]"]


def test_batches_change_nothing():
    model = Brightest()
    images = [picture(i % 3, (6 + i, 9)) for i in range(7)]
    one = Predictor(model, batch_size=1)(images)
    model.batches.clear()
    three = Predictor(model, batch_size=3)(images)
    assert model.batches == [3, 3, 1]
    assert [prediction.path for prediction in three] == [f"images[{i}]" for i in range(7)]
    np.testing.assert_array_equal([p.probabilities for p in one], [p.probabilities for p in three])


def test_a_prediction_shows_itself(folder):
    from_file, from_memory = Predictor(Brightest())([folder / "a.png", picture(2)])
    assert from_file.top(2)[0] == ("red", pytest.approx(0.9999, abs=1e-4))
    assert str(from_memory).startswith("images[1]: blue 100")
    assert from_memory.load_image().getpixel((0, 0)) == (0, 0, 255)
    drawn = from_file.draw()
    assert drawn.getpixel((0, 0)) == (255, 0, 0)
    assert drawn.height > drawn.width / 2, "the caption stands under the image"
    assert len(from_memory.plot(2).axes) == 2


def test_results_are_written(folder, tmp_path):
    predictions = Predictor(Brightest())(folder)
    rows = json.loads(write_predictions(predictions, tmp_path / "out.json", top=2).read_text())
    assert [(row["label"], len(row["top"])) for row in rows] == [("red", 2), ("blue", 2)]
    with write_predictions(predictions, tmp_path / "out.csv", top=2).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["rank"], line["label"]) for line in lines[::2]] == [("1", "red"), ("1", "blue")]
    assert float(lines[0]["score"]) == pytest.approx(predictions[0].score)
    with write_predictions(predictions, tmp_path / "wide.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["red", "blue"]
    for row, one in zip(rows, predictions, strict=True):
        assert [float(row[name]) for name in one.class_names] == pytest.approx(one.probabilities.tolist())
    long = write_predictions(predictions, tmp_path / "long.csv", long=True).read_text().splitlines()
    assert (long[0], len(long)) == ("path,rank,label,score", 1 + sum(len(one.class_names) for one in predictions))
    with pytest.raises(ValueError, match=r"ends in '\.txt'; predictions are written to \.json or \.csv"):
        write_predictions(predictions, tmp_path / "out.txt")


def test_a_broken_image_in_a_folder_is_left_out_with_a_warning(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    with pytest.warns(SkippedImageWarning, match=r"broken\.png"):
        predictions = Predictor(Brightest())(folder)
    assert [prediction.label for prediction in predictions] == ["red", "blue"]
    with pytest.raises(ImageError, match=r"broken\.png"):
        Predictor(Brightest(), strict=True)(folder)
    with pytest.raises(ImageError, match=r"broken\.png"):
        Predictor(Brightest())(folder / "broken.png")


def test_a_folder_of_broken_images_is_an_error(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.warns(SkippedImageWarning), pytest.raises(ImageError, match=r"Not one of 1 images.*x\.png"):
        Predictor(Brightest())(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    predictor = Predictor(Brightest())
    with pytest.raises(ValueError, match=r"no\.png does not exist"):
        predictor(tmp_path / "no.png")
    with pytest.raises(ValueError, match="no image in the folder"):
        predictor(tmp_path)
    with pytest.raises(ValueError, match="No file matches"):
        predictor(str(tmp_path / "*.png"))


def test_what_does_not_fit_is_named():
    model = Brightest()
    with pytest.raises(ImageError, match=r"images\[1\]: the image has 5 channels and the model takes 3"):
        Predictor(model)([picture(0), np.zeros((8, 8, 5), np.uint8)])
    model.preprocessing = model.preprocessing.replace(resize="none")
    with pytest.raises(ImageError, match=r"10 x 20 pixels.*exactly 8 x 8"):
        Predictor(model)(picture(0))
    with pytest.raises(ValueError, match=r"holds values from -2 to 2.*normalized already"):
        Predictor(model)(torch.linspace(-2, 2, 192).view(3, 8, 8))
    with pytest.raises(ValueError, match=r"image has shape \(8,\)"):
        Predictor(model)(np.zeros(8))
    with pytest.raises(ValueError, match="image is a int"):
        Predictor(model)(3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_is_given_images_as_exact_as_its_weights(dtype):
    torch.manual_seed(0)
    model = create_model("resnet18", num_layers=(1, 1, 1, 1), hidden_dim=8, num_classes=10, in_channels=1)
    model.preprocessing = Preprocessing(image_size=(32, 32), mean=(0.5,), std=(0.5,))
    digits = load_dataset("digits", "val")
    photos = [np.asarray(digits[i].image) for i in range(3)]
    (wanted, figures), (found, other) = (
        (Predictor(one)(photos), evaluate(one, digits).metrics) for one in (model, copy.deepcopy(model).to(dtype))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-2)
    assert abs(other["loss"] - figures["loss"]) < 1e-2


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_floats_above_one_are_refused(kind):
    shape = (3, 20, 20) if kind is torch.from_numpy else (20, 20, 3)
    with pytest.raises(
        ValueError, match=r"image holds floats up to 200; floats are 0 to 1: divide by 255, or give uint8"
    ):
        Predictor(Brightest())(kind(np.full(shape, 200.0, np.float32)))


def test_nan_names_the_image():
    model = Brightest()
    model.scale.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="gives NaN or infinity for image"):
        Predictor(model)(picture(0))


def test_models_without_names_or_preprocessing():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ValueError, match="Sequential does not say how an image becomes its input"):
        Predictor(plain)
    settings = Preprocessing(image_size=(8, 8), resize="squash")
    (prediction,) = Predictor(plain, preprocessing=settings)(picture(0))
    assert sorted(prediction.labels) == ["0", "1", "2", "3"]
    (prediction,) = Predictor(plain, preprocessing=settings, class_names="abcd")(picture(0))
    assert sorted(prediction.labels) == list("abcd")


def test_saved_models_are_opened(tmp_path):
    from nexus.models.cv.vit import VisionTransformer

    model = VisionTransformer(
        {
            "image_size": 8,
            "patch_size": 4,
            "in_channels": 3,
            "num_classes": 3,
            "embed_dim": 8,
            "num_layers": 1,
            "num_heads": 2,
        }
    )
    model.preprocessing, model.class_names = Brightest().preprocessing, NAMES
    model.save_pretrained(tmp_path / "run" / "model")
    expected = Predictor(model)(picture(0))[0].probabilities
    for source in (tmp_path / "run" / "model", str(tmp_path / "run")):
        predictor = Predictor(source)
        np.testing.assert_array_equal(predictor(picture(0))[0].probabilities, expected)
        assert predictor.task.class_names == NAMES
    with pytest.raises(ValueError, match="vit_base_patch16_224"):
        Predictor("vit_base_patch16_24")


def test_one_odd_file_does_not_lose_a_folder(folder, tmp_path):
    import os

    os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff[b].png")
    (folder / ".ipynb_checkpoints").mkdir()
    picture(1).save(folder / ".ipynb_checkpoints" / "a.png")
    Image.fromarray(np.full((8, 8), 3e38, np.float32)).save(folder / "huge.tif")
    with pytest.warns(SkippedImageWarning, match=r"huge\.tif"):
        predictions = Predictor(Brightest())(folder)
    assert [one.label for one in predictions] == ["blue", "red"]
    rows = json.loads(write_predictions(predictions, tmp_path / "out" / "x.json").read_text("utf-8"))
    assert [row["path"] for row in rows] == [one.path for one in predictions]
    assert r"\udcff[b].png" in write_predictions(predictions, tmp_path / "out" / "x.csv").read_text("utf-8")


def test_tables_show_names_as_they_are(capsys):
    from nexus.cli.output import show_json, show_table

    show_table([{"path": "a[/red].png \x1b[31m\udcff", "label": "[b]"}])
    show_json([{"path": "\udcff"}])
    shown = capsys.readouterr().out
    assert r"a[/red].png \x1b[31m\udcff" in shown
    assert "[b]" in shown
