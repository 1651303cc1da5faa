"""Asking about images: by points, boxes and masks in their own pixels, from Python and from the shell."""

import csv
import json

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data.transforms import eval_transform
from nexus.models.cv import SAM, SAMConfig
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL
from nexus.tasks.promptable import Everything
from nexus.tasks.promptable.asking import read_texts

PIXELS = Preprocessing(image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam")
SIZE = (45, 90)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sam = SAM(SAMConfig(**SMALL)).eval()
    randomize(sam)
    sam.preprocessing = PIXELS
    return sam


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def saved(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def by_hand(model, image, prompt, multimask):
    """The same in five lines of the model's own functions."""
    images = torch.zeros(1, 3, 64, 64)
    pixels = eval_transform(PIXELS)(image)
    images[0, :, : pixels.shape[1], : pixels.shape[2]] = pixels
    scale = torch.tensor([64 / 90, 32 / 45])
    prompt = {key: torch.tensor(value) * scale.repeat(len(value[-1:][0]) // 2 if key == "points" else 2)
              if key in ("points", "boxes") else value for key, value in prompt.items()}  # fmt: skip
    with torch.no_grad():
        answer = model.predict(image_embedding=model.image_encoder(images), prompt=prompt, multimask=multimask)
    masks = torch.nn.functional.interpolate(answer["masks"][0, 0][None, :, :32], SIZE, mode="bilinear")[0] > 0
    return masks.numpy(), answer["iou_scores"][0, 0]


def test_places_are_pixels_of_the_image_as_given(model, image):
    found = nexus.Predictor(model)(image, prompts={"boxes": [10.0, 5.0, 60.0, 40.0]})[0]
    masks, scores = by_hand(model, image, {"boxes": [10.0, 5.0, 60.0, 40.0]}, multimask=False)
    assert np.array_equal(found.masks(), masks)
    assert found.segments[0].score == pytest.approx(scores[0].item(), abs=1e-5)


def test_of_an_ambiguous_prompt_the_best_mask_is_returned_or_all(model, image):
    point = {"points": [[30.0, 20.0]]}
    masks, scores = by_hand(model, image, point, multimask=True)
    best = nexus.Predictor(model)(image, prompts=point)[0]
    assert len(best) == 1
    assert np.array_equal(best.masks()[0], masks[scores.argmax()])
    every = nexus.Predictor(model)(image, prompts={**point, "multimask": True})[0]
    assert np.array_equal(every.masks(), masks)
    two = {"points": [[30.0, 20.0], [50.0, 30.0]]}
    one = nexus.Predictor(model)(image, prompts=two)[0]
    assert np.array_equal(one.masks(), by_hand(model, image, two, multimask=False)[0])


def test_one_prompt_for_each_image_or_one_for_all(model, image):
    predictor, images = nexus.Predictor(model), [image, image[:, ::-1].copy()]
    boxes = [{"boxes": [5, 5, 30, 30]}, {"boxes": [40, 10, 80, 40]}]
    both = predictor(images, prompts=boxes)
    for one, picture, box in zip(both, images, boxes):
        assert np.array_equal(one.masks(), predictor(picture, prompts=box)[0].masks())
    assert np.array_equal(
        predictor(images, prompts=boxes[0])[1].masks(), predictor(images[1], prompts=boxes[0])[0].masks()
    )


def test_several_prompts_of_an_image_are_answered_in_order(model, image):
    boxes = [[5, 5, 30, 30], [40, 10, 80, 40]]
    found = nexus.Predictor(model)(image, prompts={"boxes": boxes})[0]
    assert [one.prompt for one in found.segments] == [0, 1]
    for place, box in enumerate(boxes):
        alone = nexus.Predictor(model)(image, prompts={"boxes": box})[0]
        assert (found.masks()[place] != alone.masks()[0]).sum() <= 2


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, r"answers prompts: give a point \(--point 500,375\)"),
        ([], "the list of prompts is empty"),
        ({}, "There is no prompt: give points, boxes or masks"),
        ({"box": [1, 2, 3, 4]}, "There is no prompt 'box'. Did you mean 'boxes'"),
        ("all", "A prompt is 'all'; it is a mapping such as"),
        ({"points": [[91, 3]]}, r"The point \(91, 3\) is outside of the image, which is 90 x 45 pixels"),
        ({"boxes": [60, 5, 10, 40]}, "is turned round or empty"),
        ({"points": [[3, 3]], "multimask": "yes"}, "multimask is 'yes'; it is true, false or left out"),
        ({"points": [[[[3, 3]]], [[[5, 5]]]]}, "are those of several; give a list with a mapping for each image"),
    ],
)
def test_wrong_prompts_are_named(model, image, prompts, message):
    with pytest.raises(ValueError, match=message):
        nexus.Predictor(model)(image, prompts=prompts)


def test_a_prompt_too_few_is_named(model, image):
    with pytest.raises(ValueError, match="There are prompts for 1 images, and this is image 2"):
        nexus.Predictor(model)([image, image], prompts=[{"points": [[3, 3]]}])


def test_texts_of_a_command_line():
    assert read_texts(["500,375", "not:20,30.5", "4,5,6,7"]) == {
        "points": [[500, 375], [20, 30.5]],
        "labels": [1, 0],
        "boxes": [4, 5, 6, 7],
    }
    assert read_texts(["everything"]) == Everything()
    for texts, message in (
        (["everything", "3,4"], "asked about the whole image; leave the other prompts out"),
        (["a cat"], r"The prompt 'a cat' is no point \(500,375\)"),
        (["not:1,2,3,4"], "is no point"),
        (["1,2,3,4", "5,6,7,8"], "There are 2 boxes, and a prompt is about one object"),
    ):
        with pytest.raises(ValueError, match=message):
            read_texts(texts)


def test_the_command_asks_and_writes(saved, image, tmp_path):
    PIL.Image.fromarray(image).save(tmp_path / "a.png")

    def run(*words):
        result = CliRunner().invoke(app, ["predict", str(tmp_path / "a.png"), "--model", str(saved), *words])
        assert result.exit_code == 0, result.output
        return result.output

    said = json.loads(run("--point", "30,20", "--box", "10,5,60,40", "--json"))
    assert said[0]["segments"][0]["mask"]["size"] == list(SIZE)
    run("--point", "30,20", "--draw", str(tmp_path / "drawn"), "--output", str(tmp_path / "a.csv"))
    assert [row["prompt"] for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())] == ["0"]
    with PIL.Image.open(next((tmp_path / "drawn").iterdir())) as drawn:
        assert drawn.size[0] >= 90
    run("--box", "10,5,60,40", "--output", str(tmp_path / "a.coco.json"))
    row = json.loads((tmp_path / "a.coco.json").read_text())[0]
    assert row["category_id"] == row["image_id"] == 1
    assert row["segmentation"]["size"] == list(SIZE)
