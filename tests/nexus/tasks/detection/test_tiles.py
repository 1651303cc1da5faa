"""Large images in tiles: nothing is lost, nothing is found twice, and what a border cut is whole again."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data.detection.rle import encode
from nexus.predict import Predictor
from nexus.tasks import Detections, ImageInfo, Tiling
from nexus.tasks.detection.coco_figures import Found
from nexus.tasks.detection.merging import merge_tiles
from nexus.tasks.tiles import Window

SIDE = 32


class Blobs(NexusModule):
    """Finds each connected bright patch of an image, brighter means surer, and calls bluish ones class 1."""

    task = "detection"

    def __init__(self, masks=False):
        super().__init__({})
        self.scale = nn.Parameter(torch.ones(()))
        self.masks, self.class_names = masks, ("warm", "cold")
        self.preprocessing = Preprocessing(
            image_size=(SIDE, SIDE),
            resize="within",
            resize_size=SIDE,
            interpolation="nearest",
            mean=(0,) * 3,
            std=(1,) * 3,
        )

    def forward(self, images, targets=None, *, image_sizes=None):
        outputs = {"boxes": [], "scores": [], "labels": [], "masks": []}
        for image in images:
            patches, count = ndimage.label(image.amax(0).numpy() > 0.2)
            found = [(ys.start, xs.start, ys.stop, xs.stop) for ys, xs in ndimage.find_objects(patches)]
            boxes = torch.tensor([[x1, y1, x2, y2] for y1, x1, y2, x2 in found], dtype=torch.float)
            outputs["boxes"].append(boxes.view(-1, 4) * self.scale)
            masks = torch.from_numpy(patches)[None] == torch.arange(1, count + 1)[:, None, None]
            outputs["masks"].append(masks.float())
            inside = [image[:, mask].mean(1) for mask in masks]
            outputs["scores"].append(torch.tensor([float(colour.max()) for colour in inside]))
            outputs["labels"].append(torch.tensor([int(colour[2] > colour[0]) for colour in inside], dtype=torch.long))
        return {key: value for key, value in outputs.items() if key != "masks" or self.masks}


def scene(boxes, height=100, width=141, colours=None):
    pixels = np.zeros((height, width, 3), np.uint8)
    for place, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = (255, 0, 0) if colours is None else colours[place]
    return Image.fromarray(pixels)


def sorted_boxes(result):
    return sorted(tuple(map(round, one.box)) for one in result.top())


def test_tiles_cover_the_image_evenly_and_stay_inside():
    for height, width, size, overlap in [
        (100, 141, 32, 0.2),
        (33, 500, 32, 0.0),
        (64, 64, 32, 0.9),
        (640, 31, 32, 0.5),
    ]:
        windows = Tiling(size=size, overlap=overlap, whole=False).windows(height, width)
        seen = np.zeros((height, width), int)
        for x, y, w, h in windows:
            assert min(x, y, width - x - w, height - y - h) >= 0
            assert (h, w) == (min(size, height), min(size, width))
            seen[y : y + h, x : x + w] += 1
        assert seen.min() >= 1
        starts = sorted({window.left for window in windows})
        assert all(after - before <= max(1, int(size * (1 - overlap))) + 1 for before, after in pairwise(starts))


def test_a_small_image_is_one_view():
    assert Tiling(size=32).windows(32, 20) == [Window(0, 0, 20, 32)]
    assert Tiling(size=32).windows(33, 20)[0] == Window(0, 0, 20, 33)


def test_small_objects_are_found_once_each_at_their_places():
    rng = np.random.default_rng(0)
    corners = [(x + int(rng.integers(2)), y + int(rng.integers(2))) for y in range(2, 92, 8) for x in range(2, 132, 8)]
    boxes = sorted((x, y, x + 4, y + 5) for x, y in corners)
    image = scene(boxes)
    assert len(Predictor(Blobs())(image)[0]) < len(boxes)  # scaled down, neighbours melt together or vanish
    result = Predictor(Blobs(), tiles=Tiling(size=SIDE, overlap=0.3, whole=False), batch_size=5)(image)[0]
    assert sorted_boxes(result) == boxes
    assert (result.height, result.width) == (100, 141)


def test_an_object_that_every_tile_cuts_is_whole_again_with_its_mask():
    box = (10, 40, 130, 52)
    result = Predictor(Blobs(masks=True), tiles=Tiling(size=SIDE, overlap=0.5, match=0.4, whole=False))(scene([box]))[0]
    assert sorted_boxes(result) == [box]
    expected = np.zeros((100, 141), bool)
    expected[40:52, 10:130] = True
    np.testing.assert_array_equal(result.found.masks[0].decode(), expected)


def test_classes_stay_apart_and_results_come_in_the_order_of_the_images():
    boxes = [(20, 20, 30, 30), (34, 20, 44, 30)]
    image = scene(boxes, colours=[(255, 0, 0), (0, 0, 204)])
    first, second = Predictor(Blobs(), tiles=SIDE, batch_size=3)([image, scene([boxes[0]], 40, 50)])
    assert [(one.label, round(one.score, 2)) for one in first.top(2)] == [("warm", 1.0), ("cold", 0.8)]
    assert (second.height, second.width, len(second)) == (40, 50, 1)


def parts(*rows, masks=False):
    """What was found in two windows, 20 pixels wide, that share 5 columns; a row is (window, box, score, label)."""
    found = []
    for window in (0, 1):
        mine = [row[1:] for row in rows if row[0] == window]
        boxes = np.array([box for box, _, _ in mine], float).reshape(-1, 4)
        scores, labels = np.array([row[1] for row in mine], float), np.array([row[2] for row in mine], int)
        shapes = tuple(encode(np.ones((20, 20), bool)) for _ in mine) if masks else None
        found.append(Detections("a", 20, 20, Found(boxes, scores, labels, shapes), ("x", "y")))
    windows = [Window(0, 0, 20, 20), Window(15, 0, 20, 20)]
    merged = merge_tiles(found, ImageInfo("a", 20, 35), windows, 0.5)
    return [(tuple(one.box), one.score, one.label) for one in merged.top()]


def test_two_finds_of_one_tile_are_never_merged():
    rows = [(0, (1, 1, 10, 10), 0.9, 0), (0, (2, 2, 9, 9), 0.8, 0)]
    assert [row[1] for row in parts(*rows)] == [0.9, 0.8]


def test_the_same_object_in_two_tiles_keeps_the_surer_box():
    assert parts((0, (15, 4, 19, 9), 0.7, 0), (1, (1, 4, 5, 9), 0.9, 0)) == [((15, 4, 20, 9), 0.9, "x")]


def test_a_part_takes_over_the_extent_of_a_sure_find_but_not_of_a_doubtful_one():
    cut = (0, (12, 4, 20, 9), 0.9, 0)
    assert parts(cut, (1, (0, 4, 12, 9), 0.8, 0)) == [((12, 4, 27, 9), 0.9, "x")]
    assert parts(cut, (1, (0, 4, 12, 9), 0.2, 0)) == [((12, 4, 20, 9), 0.9, "x")]
    assert len(parts(cut, (1, (0, 4, 12, 9), 0.8, 1))) == 2


def test_nothing_found_anywhere_is_no_object():
    assert parts(masks=True) == []


def test_wrong_settings_say_what_to_change():
    with pytest.raises(ValueError, match="size is 4 pixels; it must be at least 8"):
        Tiling(size=4)
    with pytest.raises(ValueError, match=r"overlap is 1\.0; it must be from 0 to 0.9"):
        Tiling(overlap=1.0)
    with pytest.raises(ValueError, match=r"match is 0\.0"):
        Tiling(match=0.0)
    classifier = Blobs()
    classifier.task = "classification"
    with pytest.raises(ValueError, match="tiles are for detectors; this model's task is classification"):
        Predictor(classifier, tiles=32, class_names=("a", "b"))
