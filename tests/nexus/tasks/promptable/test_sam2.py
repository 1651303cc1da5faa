"""SAM 2 in the task of SAM: pictures are stretched, masks enlarged in one step, and all else is as there."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.digit_scenes import DigitScenes
from nexus.data.transforms import eval_transform
from nexus.models.registry import model_info
from nexus.tasks import task_of
from nexus.tasks.clicks import Clicks
from nexus.tasks.promptable import Everything
from nexus.tasks.promptable.asking import Asked
from nexus.tasks.promptable.encoded import Frame, answers, masks_of, prompts_in
from tests.nexus.models.sam2_golden import authors_model, golden

TENSORS, NOTES = golden("sam2_image")
PIXELS = Preprocessing(image_size=(128, 128), resize="squash", interpolation="bilinear")


@pytest.fixture(scope="module")
def model():
    model = authors_model(TENSORS)
    model.preprocessing = PIXELS
    return model


@pytest.fixture(scope="module")
def picture():
    return TENSORS["inputs/image"].numpy()


def test_the_card_stretches_pictures_as_the_authors_do(picture):
    assert model_info("sam2.1_hiera_tiny").preprocessing.replace(image_size=(128, 128)) == PIXELS
    found = eval_transform(PIXELS)(picture)
    step = 1 / 255 / 0.224  # they resize floats, Pillow bytes
    torch.testing.assert_close(found, TENSORS["outputs/model_image"], rtol=0, atol=step)


@pytest.mark.parametrize(("case", "multimask"), [("points_box", False), ("one_point", True)])
def test_masks_are_those_of_the_authors_predictor(model, picture, case, multimask):
    known = NOTES["cases"][case]
    given = {"points": known["points_xy"], "labels": known["labels"], "boxes": known["box_xyxy"]}
    prompts = {key: value for key, value in given.items() if value is not None} | {"multimask": multimask}
    found = nexus.Predictor(model)(picture, prompts=prompts)[0]
    key = f"outputs/{case}/{'multi' if multimask else 'single'}"
    masks = TENSORS[f"{key}/masks"].numpy()
    assert found.masks().shape == masks.shape
    assert (found.masks() == masks).mean() > 0.99
    scores = [one.score for one in found.segments]
    assert scores == pytest.approx(TENSORS[f"{key}/iou"].tolist(), abs=2e-2)


@pytest.mark.parametrize("key", [key for key in TENSORS if key.endswith("/masks")])
def test_masks_are_enlarged_in_one_step(model, key):
    _, case, kind, _ = key.split("/")
    frame, known = Frame((128, 128), (128, 128), (80, 110)), NOTES["cases"][case]
    asked = {"points": known["points_xy"], "labels": known["labels"], "boxes": known["box_xyxy"]}
    if known["mask_prompt"]:
        asked["masks"] = TENSORS["inputs/mask_logits"]
    prompts = prompts_in(frame, model, Asked({name: value for name, value in asked.items() if value is not None}, None))
    with torch.no_grad():
        embedding = model.encode(TENSORS["outputs/model_image"][None])
        low, _ = answers(model, embedding, prompts, kind == "multi")
        found = masks_of(model, frame, low[0])
    assert (found == TENSORS[key].numpy()).all()


def test_clicks_are_answered_and_go_on_from_the_mask_before(model, picture):
    clicker = task_of(model).for_model(model).clicker(model)
    encoded = clicker.encode(picture)
    assert clicker.size_of(encoded) == 4 * sum(part.numel() for part in encoded.embedding)
    first = clicker.ask(encoded, Clicks(((30.0, 22.5, 1),)))
    assert len(first) == 3
    assert first[0].score == max(one.score for one in first)
    (second,) = clicker.ask(encoded, Clicks(((30.0, 22.5, 1), (100.0, 60.0, 0))), first[0].memory)
    assert clicker.mask(encoded, second).shape == (80, 110)


def test_everything_keeps_what_is_surer_than_sam2s_threshold(model, picture):
    settings = {"points_per_side": 3, "min_stability": 0.0, "max_overlap": 1.0}
    predictor = nexus.Predictor(model)
    everything = predictor(picture, prompts=Everything(min_score=0.0, **settings))[0].segments
    scores = sorted(one.score for one in everything)
    middle = scores[len(scores) // 2]
    assert scores[0] < middle, "the threshold between them must matter"
    model.sure_score = middle
    by_default = predictor(picture, prompts=Everything(**settings))[0].segments
    del model.sure_score
    assert model.sure_score == 0.8
    assert sorted(one.score for one in by_default) == [score for score in scores if score > middle]


def test_it_is_measured_click_by_click(model):
    report = nexus.evaluate(model, DigitScenes("val", 2))
    assert {"mIoU_1", "mIoU_3", "mIoU_5", "mIoU_box"} <= set(report.metrics)
    assert all(0 <= value <= 1 for value in report.metrics.values())


def test_training_is_refused(model):
    with pytest.raises(
        ValueError, match="Clicks on still images train a SAM; a SAM2 learns from clips, such as digit-videos"
    ):
        nexus.fit(model, DigitScenes("train", 2), epochs=1)


def test_the_command_line_asks_it(model, picture, tmp_path):
    model.save_pretrained(tmp_path / "sam2")
    Image.fromarray(picture).save(tmp_path / "photo.png")
    shell = ["predict", str(tmp_path / "photo.png"), "--model", str(tmp_path / "sam2"), "--point", "30,22.5", "--json"]
    said = CliRunner().invoke(app, shell)
    assert said.exit_code == 0, said.output
    (segment,) = json.loads(said.stdout)[0]["segments"]
    known = nexus.Predictor(model)(picture, prompts={"points": [[30, 22.5]]})[0].segments[0]
    assert segment["area"] == known.mask.area
    assert np.isclose(segment["score"], known.score)
