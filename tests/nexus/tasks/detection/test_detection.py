"""Detectors through the task: losses, figures, results in the units of the image as given, pictures, files."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data import load_dataset
from nexus.data.detection import Annotations, DigitScenes, Object, Scene, write_coco
from nexus.data.detection.rle import encode
from nexus.evaluation import evaluate, evaluate_coco
from nexus.predict import Predictor, draw_predictions, write_predictions
from nexus.tasks import DetectionTask, ImageInfo, get_task, task_name
from nexus.tasks.detection.coco_figures import Found
from nexus.tasks.detection.detections import Detections
from nexus.tasks.detection.outputs import found_in
from nexus.training import Trainer
from nexus.training.recipe import Recipe
from nexus.visualization.objects import PALETTE, draw_objects

TINY = {
    "backbone": "resnet18",
    "pyramid_dim": 8,
    "rpn": {"anchor_sizes": [[12], [24], [36], [64], [96]], "num_candidates": (40, 20), "num_proposals": (20, 10)},
    "box_head": {"hidden_dim": 8},
    "sampler": {"num_samples": 16},
}
SETTINGS = Preprocessing(image_size=(48, 64), resize="within", resize_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)


class Bright(NexusModule):
    """Finds the bright pixels of an image: the box around them, its mask, and its corners as keypoints."""

    task = "detection"

    def __init__(self, what=("masks", "keypoints")):
        super().__init__({})
        self.scale = nn.Parameter(torch.ones(()))
        self.preprocessing, self.class_names, self.what = SETTINGS, ("dark", "bright"), what

    def forward(self, images, targets=None, *, image_sizes=None):
        outputs = {"boxes": [], "scores": [], "labels": [], "masks": [], "keypoints": []}
        for image, (height, width) in zip(images, image_sizes):
            mask = image[0, :height, :width] > 0.5
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else []
            box = torch.tensor(found, dtype=torch.float).view(-1, 4)
            count = len(box)
            outputs["boxes"].append(box * self.scale)
            outputs["scores"].append(torch.full((count,), 0.75))
            outputs["labels"].append(torch.ones(count, dtype=torch.long))
            outputs["masks"].append(mask[None].float().expand(count, -1, -1))
            corner = torch.cat([box[:, :2], torch.ones(count, 1)], 1)
            outputs["keypoints"].append(corner[:, None])
        return {key: value for key, value in outputs.items() if key in ("boxes", "scores", "labels", *self.what)}


def photo(height, width, box):
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo(64, 96, (16, 20, 48, 60)).save(folder / "000017.png")
    photo(128, 64, (8, 8, 40, 72)).save(folder / "000004.png")
    photo(64, 64, (0, 0, 0, 0)).save(folder / "000030.png")
    return folder


def truth(folder):
    boxes = {"000017": (64, 96, (16, 20, 48, 60)), "000004": (128, 64, (8, 8, 40, 72)), "000030": (64, 64, None)}
    scenes = []
    for name, (height, width, box) in boxes.items():
        objects = ()
        if box is not None:
            mask = np.zeros((height, width), bool)
            mask[box[1] : box[3], box[0] : box[2]] = True
            objects = (Object(1, box, encode(mask)),)
        scenes.append(Scene(str(folder / f"{name}.png"), height, width, objects, int(name)))
    return Annotations(tuple(scenes), ("dark", "bright"))


def test_results_are_in_units_of_the_image_as_given(folder):
    predictor = Predictor(Bright())
    assert isinstance(predictor.task, DetectionTask)
    by_name = {one.path[-10:-4]: one for one in predictor(folder)}
    np.testing.assert_allclose(by_name["000017"].found.boxes, [(16, 20, 48, 60)], atol=2)
    np.testing.assert_allclose(by_name["000004"].found.boxes, [(8, 8, 40, 72)], atol=1)
    np.testing.assert_allclose(by_name["000004"].found.keypoints, [[(8, 8, 1)]], atol=1)
    np.testing.assert_allclose(by_name["000004"].found.masks[0].box, (8, 8, 40, 72), atol=1)
    assert by_name["000004"].found.masks[0].size == (128, 64)
    assert len(by_name["000030"]) == 0
    assert str(by_name["000030"]).endswith("nothing found")
    assert by_name["000017"].top()[0][:2] == ("bright", 0.75)
    assert len(by_name["000017"].above(0.8)) == 0


def test_small_masks_are_pasted_at_the_size_of_the_image():
    outputs = {
        "boxes": [torch.tensor([[4.0, 2.0, 12.0, 10.0]])],
        "scores": [torch.ones(1)],
        "labels": [torch.zeros(1, dtype=torch.long)],
        "mask_crops": [torch.ones(1, 28, 28)],
        "image_sizes": [(16, 16)],
    }
    found = found_in(outputs, 0, (32, 48))
    np.testing.assert_allclose(found.boxes, [(12, 4, 36, 20)])
    np.testing.assert_allclose(found.masks[0].box, (12, 4, 36, 20), atol=1)


def test_keypoints_and_masks_follow_the_size_of_the_image():
    """Scaled by 3 across and 2 down, exactly; masks between pixels as Pillow interpolates."""
    rows, columns = np.mgrid[:16, :16]
    soft = np.clip(7 - np.hypot(rows - 6.2, columns - 8.7), 0, 1).astype(np.float32)
    outputs = {
        "boxes": [torch.tensor([[1.5, 2.25, 9.0, 10.0]])],
        "scores": [torch.ones(1)],
        "labels": [torch.zeros(1, dtype=torch.long)],
        "masks": [torch.from_numpy(soft)[None]],
        "keypoints": [torch.tensor([[[1.5, 2.25, 1.0], [9.0, 10.0, 0.5]]])],
        "image_sizes": [(16, 16)],
    }
    found = found_in(outputs, 0, (32, 48))
    np.testing.assert_array_equal(found.boxes, [(4.5, 4.5, 27, 20)])
    np.testing.assert_array_equal(found.keypoints, [[(4.5, 4.5, 1), (27, 20, 0.5)]])
    for size in ((32, 48), (40, 56), (11, 9)):
        (mask,) = found_in(outputs, 0, size).masks
        resized = np.asarray(Image.fromarray(soft).resize(size[::-1], Image.Resampling.BILINEAR))
        assert np.array_equal(mask.decode(), resized >= 0.5), size


def test_figures_files_and_coco_agree(needed, folder, tmp_path):
    needed("faster_coco_eval")
    annotations = truth(folder)
    file = write_coco(annotations, tmp_path / "truth.json", folder)
    predictions = Predictor(Bright())([scene.path for scene in annotations.scenes])
    rows = json.loads(write_predictions(predictions, tmp_path / "found.coco.json").read_text())
    assert [row["image_id"] for row in rows] == [17, 4]
    assert rows[0]["category_id"] == 2
    for kind in ("bbox", "segm"):
        figures = evaluate_coco(file, tmp_path / "found.coco.json", kind).figures
        assert figures["AP50"] == pytest.approx(1)
        assert 0.3 < figures["AP"] <= 1
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    write_coco(annotations, tmp_path / "set/annotations/val.json", tmp_path)
    (tmp_path / "set" / "val").symlink_to(tmp_path)
    whole = evaluate(Bright(), f"coco:{tmp_path / 'set'}", batch_size=2)
    assert whole.metrics["AP"] == pytest.approx(evaluate_coco(file, rows).figures["AP"], abs=1e-6)
    assert whole.metrics["mask_AP50"] == pytest.approx(1)
    assert whole.metrics["AP_small"] is None
    assert whole.per_class[0] == {"name": "dark", "AP": None, "mask_AP": None}
    assert json.loads(json.dumps(whole.to_json()))["num_images"] == 3


def test_files_of_results(folder, tmp_path):
    predictions = Predictor(Bright())(folder)
    with write_predictions(predictions, tmp_path / "found.csv").open(newline="") as table:
        lines = list(csv.DictReader(table))
    assert [line["label"] for line in lines] == ["bright", "bright"]
    assert float(lines[1]["x2"]) == pytest.approx(48, abs=2)
    content = json.loads(write_predictions(predictions, tmp_path / "found.json").read_text())
    assert [len(one["objects"]) for one in content] == [1, 1, 0]
    assert content[0]["objects"][0]["mask"]["size"] == [128, 64]
    labels = write_predictions(predictions, tmp_path / "labels")
    label, *numbers = (labels / "000017.txt").read_text().split()
    assert label == "1"
    np.testing.assert_allclose([float(v) for v in numbers], [32 / 96, 40 / 64, 32 / 96, 40 / 64, 0.75], atol=0.03)
    assert (labels / "000030.txt").read_text() == ""
    pictures = draw_predictions(predictions, tmp_path / "drawn")
    assert [path.name for path in pictures] == ["0000-000004.png", "0001-000017.png", "0002-000030.png"]
    with pytest.raises(ValueError, match="those of detectors also to"):
        write_predictions(predictions, tmp_path / "found.txt")
    with pytest.raises(ValueError, match=r"would share 000017\.txt"):
        write_predictions([predictions[1]] * 2, tmp_path / "labels")


def test_captions_cover_no_other_and_grow_with_the_picture():
    boxes = np.array([[40.0, 60, 150, 150], [44, 62, 146, 146], [48, 64, 142, 142]])
    names = ["a long name", "another name", "the third name"]

    def areas(side, places):
        white = Image.new("RGB", (side, side), "white")
        chosen = [names[place] for place in places]
        drawn = np.asarray(draw_objects(white, boxes[places] * side / 200, chosen, places, side=side))
        colours = [tuple(int(PALETTE[place][i : i + 2], 16) for i in (1, 3, 5)) for place in places]
        return [int((drawn == colour).all(-1).sum()) for colour in colours]

    together, alone = areas(400, [0, 1, 2]), [areas(400, [place])[0] for place in range(3)]
    assert all(shown > 0.8 * whole for shown, whole in zip(together, alone)), (together, alone)
    assert areas(4000, [0])[0] > 50 * alone[0], "letters are read on a large picture too"


def test_drawing_shows_boxes_masks_and_keypoints():
    black = Image.new("RGB", (100, 80))
    mask = np.zeros((80, 100), bool)
    mask[30:50, 40:70] = True
    points = np.array([[[45.0, 35, 1], [65, 45, 1]]])
    box = np.array([[40.0, 30, 70, 50]])
    drawn = np.asarray(
        draw_objects(black, box, ["seven 90%"], [2], masks=[mask], keypoints=points, skeleton=[(0, 1)], side=100)
    )
    colour = tuple(int(PALETTE[2][i : i + 2], 16) for i in (1, 3, 5))
    assert tuple(drawn[30, 55]) == colour, "the box"
    assert tuple(drawn[40, 55]) == colour, "the line between keypoints"
    np.testing.assert_allclose(drawn[33, 60], np.array(colour) * 115 / 255, atol=2)
    assert (drawn[10:28, 40:80] == 255).all(-1).any(), "white letters above the box"
    assert not drawn[60:, :].any()
    with pytest.raises(ValueError, match="1 boxes, 0 captions"):
        draw_objects(black, box, [], [2])
    with pytest.raises(ValueError, match=r"A mask is \(3, 3\)"):
        draw_objects(black, box, [""], [2], masks=[np.ones((3, 3), bool)])
    found = Found(box, np.array([0.9]), np.array([0]))
    result = Detections("x", 80, 100, found, ("cat",), black)
    assert DetectionTask(("cat",)).draw(black, result).size == result.draw().size
    assert len(result.plot().axes) == 1


def test_a_small_detector_trains_by_the_ordinary_trainer(needed, tmp_path):
    needed("skimage")
    needed("faster_coco_eval")
    recipe = Recipe.from_mapping(
        {
            "model": {"name": "fasterrcnn_resnet50_fpn", "config": TINY},
            "data": {
                "source": "digit-scenes",
                "preprocessing": {"image_size": [64, 64], "resize": "squash", "interpolation": "bilinear"},
            },
            "augment": {"flip": 0.5, "crop_scale": [0.5, 1.0]},
            "optimizer": {"lr": 1e-3},
            "training": {"epochs": 1, "batch_size": 4, "accumulate": 2, "num_threads": 1, "log_every": 1},
        }
    )
    train, val = DigitScenes("train", 8), DigitScenes("val", 3)
    result = Trainer(recipe, tmp_path / "run", train_data=train, val_data=val, progress="off").fit()
    steps = [line for line in result.history if line["kind"] == "train"]
    assert {"rpn_objectness", "rpn_box", "classification", "box"} <= steps[0].keys()
    assert 0 <= result.metrics["AP"] <= 1
    again = evaluate(tmp_path / "run", val)
    assert again.metrics["AP"] == pytest.approx(result.metrics["AP"], abs=1e-9)
    predictor = Predictor(tmp_path / "run")
    (prediction,) = predictor(val[0].image)
    assert (prediction.height, prediction.width) == (96, 96)
    assert predictor.task.class_names == train.class_names
    with pytest.raises(ValueError, match="'digits' has no objects in its images; a detector needs boxes"):
        evaluate(tmp_path / "run", "digits")


def test_what_does_not_fit_is_named(needed):
    task = get_task("detection", class_names=("a",))
    assert task_name(Bright()) == "detection"
    with pytest.raises(ValueError, match="'digits' has no objects in its images"):
        task.check_data(load_dataset("digits", "val"))
    needed("skimage")
    scenes = DigitScenes("val", 4)
    with pytest.raises(ValueError, match=r"has labels from \d to \d, and the model has 1 classes"):
        task.check_data(scenes)
    with pytest.raises(ValueError, match="has objects, not a class per image"):
        get_task("classification").check_data(scenes)
    with pytest.raises(ValueError, match="There is nothing to measure"):
        task.metrics().compute()
    with pytest.raises(ValueError, match="gives no boxes, labels, scores"):
        task.predict(lambda images, image_sizes: {"logits": images}, {"images": torch.zeros(1, 3, 8, 8)})
    model = Bright()
    outputs = {**model(torch.ones(1, 3, 8, 8), image_sizes=[(8, 8)]), "image_sizes": [(8, 8)]}
    outputs["scores"][0].fill_(float("nan"))
    with pytest.raises(ValueError, match=r"gives NaN or infinity for photo\.png"):
        task.results(outputs, [ImageInfo("photo.png", 8, 8)])
    from nexus.data import AugmentConfig, train_transform
    from nexus.data.detection.batches import DetectionTransform

    with pytest.raises(ValueError, match="augment sets rotate, mixup, which moves no boxes"):
        DetectionTransform(SETTINGS, AugmentConfig(rotate=3, mixup=0.2))
    with pytest.raises(ValueError, match="which are for detectors"):
        train_transform(SETTINGS, AugmentConfig(mosaic=0.5))
