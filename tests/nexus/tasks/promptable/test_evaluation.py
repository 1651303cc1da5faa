"""Measuring click by click: against a loop over the model's own functions, from Python and from the shell."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.digit_scenes import DigitScenes
from nexus.data.transforms import eval_transform
from nexus.models.cv import SAM, MedSAM, SAMConfig
from nexus.ops.clicks import central_click
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL

PIXELS = Preprocessing(image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sam = SAM(SAMConfig(**SMALL)).eval()
    randomize(sam)
    sam.preprocessing = PIXELS
    return sam


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes("val", 3)


def changed(data, change):
    """The scenes with each object as `change` returns it."""
    other = DigitScenes("val", len(data))
    scenes = [replace(one, objects=tuple(map(change, one.objects))) for one in data.annotations.scenes]
    other.annotations = data.annotations.of(scenes)
    return other


@torch.no_grad()
def by_hand(model, sample, truth, rounds):
    """IoU after each click on one object, by `SAM.predict` alone; images of 96 pixels are seen as 64."""
    embedding = model.image_encoder(eval_transform(PIXELS)(sample.image)[None])
    found, points, labels, low, ious = np.zeros_like(truth), [], [], None, []
    for number in range(rounds):
        x, y, label = central_click(truth, found)
        points.append([x * 64 / 96, y * 64 / 96])
        labels.append(label)
        prompt = {"points": points, "labels": labels} | ({} if low is None else {"masks": low})
        answer = model.predict(image_embedding=embedding, prompt=prompt, multimask=number == 0)
        best = answer["iou_scores"][0, 0].argmax()
        low = answer["low_res_masks"][0, 0, best]
        large = torch.nn.functional.interpolate(answer["masks"][:, 0, best][None], (96, 96), mode="bilinear")[0, 0]
        found = (large > 0).numpy()
        ious.append((found & truth).sum() / (found | truth).sum())
    return ious


def test_figures_are_those_of_a_loop_over_the_model(model, scenes):
    report = nexus.evaluate(model, scenes)
    expected = []
    for sample in (scenes[0], scenes[1], scenes[2]):
        expected += [by_hand(model, sample, one.mask.decode(), 5) for one in sample.scene.objects]
    means = np.mean(expected, axis=0)
    assert [report.metrics[f"mIoU_{count}"] for count in (1, 3, 5)] == pytest.approx(means[[0, 2, 4]], abs=1e-3)
    assert report.curves()["mean IoU"] == pytest.approx(means, abs=1e-3)
    rows = [row for row in report.per_class if row["objects"]]
    assert sum(row["objects"] for row in rows) == len(expected)
    total = sum(row["objects"] * row["mIoU_3"] for row in rows)
    assert total / len(expected) == pytest.approx(report.metrics["mIoU_3"])


def test_the_box_alone_is_measured_too(model, scenes):
    report = nexus.evaluate(model, scenes)
    ious = []
    for sample in (scenes[0], scenes[1], scenes[2]):
        for one in sample.scene.objects:
            mask = nexus.Predictor(model)(sample.image, prompts={"boxes": list(one.box)})[0].masks()[0]
            truth = one.mask.decode()
            ious.append((mask & truth).sum() / (mask | truth).sum())
    assert report.metrics["mIoU_box"] == pytest.approx(np.mean(ious), abs=1e-3)


class Knowing(SAM):
    """A model that paints the objects that it is asked about, `truth` (p, h, w), from the second click on."""

    def decode(self, embeddings, prompts, *, multimask=True):
        answer = super().decode(embeddings, prompts, multimask=multimask)
        low = answer["low_res_masks"]
        if prompts.masks is not None:
            low = self.truth[None, :, None].expand_as(low)
        return {**answer, "low_res_masks": low}


def test_a_mask_without_error_is_not_clicked_again():
    first = DigitScenes("val", 1)
    model = Knowing(SAMConfig(**{**SMALL, "image_size": 96, "patch_size": 4})).eval()
    model.preprocessing = PIXELS.replace(image_size=(96, 96), resize="none", resize_size=None)
    truth = np.stack([one.mask.decode() for one in first[0].scene.objects])
    model.truth = torch.from_numpy(truth).float() * 20 - 10
    report = nexus.evaluate(model, first)
    for one in report.clicked[0]:
        assert one.ious[1:] == (1.0,) * 4
        assert len(one.clicks) == 2


def test_medsam_is_measured_by_boxes_alone(scenes):
    torch.manual_seed(0)
    model = MedSAM(SAMConfig(**SMALL)).eval()
    randomize(model)
    model.preprocessing = PIXELS
    report = nexus.evaluate(model, scenes)
    assert set(report.metrics) == {"mIoU_box"}
    mask = nexus.Predictor(model)(scenes[0].image, prompts={"boxes": list(scenes[0].scene.objects[0].box)})[0].masks()
    assert np.array_equal(report.results[0].masks()[0], mask[0])
    assert len(report.sections(scenes)) == 4


def test_crowds_and_empty_masks_are_left_out(model, scenes):
    first = scenes[0].scene.objects[0]
    marked = changed(scenes, lambda one: replace(one, crowd=one is not first))
    report = nexus.evaluate(model, marked)
    assert [len(clicked) for clicked in report.clicked] == [1, 0, 0]
    empty = nexus.data.detection.rle.encode(np.zeros((96, 96), dtype=bool))
    nothing = changed(scenes, lambda one: replace(one, mask=empty))
    with pytest.raises(ValueError, match="not one object with a mask was seen"):
        nexus.evaluate(model, nothing)


def test_data_without_masks_is_refused_by_name(model, scenes):
    boxes = changed(scenes, lambda one: replace(one, mask=None))
    with pytest.raises(ValueError, match="'digit-scenes' has boxes and no masks; a model for promptable-segmentation"):
        nexus.evaluate(model, boxes)
    first = scenes[0].scene.objects[0]
    count = sum(len(one.objects) for one in scenes.annotations.scenes)
    some = changed(scenes, lambda one: replace(one, mask=None) if one is first else one)
    message = (
        rf"1 of the {count} objects of the data set 'digit-scenes' have no mask, the first of them in digit-sc.*0\]"
    )
    with pytest.raises(ValueError, match=message):
        nexus.evaluate(model, some)
    with pytest.raises(ValueError, match="'digits' has no objects in its images"):
        nexus.evaluate(model, "digits")


def test_pictures_and_files(model, scenes, tmp_path):
    report = nexus.evaluate(model, scenes)
    worst = report.worst_pictures(scenes)
    ious = [one.ious[0] for clicked in report.clicked for one in clicked]
    assert len(worst) == min(8, len(ious))
    assert worst[0][1].width > 4 * 240
    assert len({picture.tobytes() for _, picture in worst}) == len(worst)
    report.write(tmp_path / "masks.coco.json")
    rows = json.loads((tmp_path / "masks.coco.json").read_text())
    assert len(rows) == len(ious)
    titles = [section.title for section in report.sections(scenes)]
    assert titles == ["Held-out metrics", "Click by click", "Masks and clicks", "The worst"]


def test_the_command_measures_and_draws(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    words = ["eval", str(tmp_path / "model"), "--data", "digit-scenes:2", "--split", "train", "--json"]
    result = CliRunner().invoke(app, [*words, "--draw", str(tmp_path / "drawn")])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.output)["metrics"]) == {"mIoU_1", "mIoU_3", "mIoU_5", "mIoU_box"}
    assert list((tmp_path / "drawn").glob("0001-*.png"))
