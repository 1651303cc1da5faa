"""Transforms carry boxes, masks and keypoints along with the pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from nexus.core.preprocessing import Preprocessing
from nexus.data import AugmentConfig, Loader
from nexus.data.detection import AnnotatedFiles, Annotations, DetectionSample, Object, Scene
from nexus.data.detection.batches import DetectionTransform, stack_images
from nexus.data.detection.mirror import mirrored_names
from nexus.data.detection.rle import encode
from nexus.data.detection.views import (
    Crop,
    DropFlat,
    Flip,
    ResizeTo,
    ScaleJitter,
    copy_paste,
    mosaic,
    view_of,
    windowed,
)
from nexus.data.geometry import Resize
from nexus.data.images import as_array

NAMES = ("nose", "left_eye", "right_eye")


def sample(seed=0, size=(40, 60), count=3):
    """Bright rectangles on black: a pixel is bright where it belongs to an object, and keypoints are its corners."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.uint8)
    objects = []
    for label in range(count):
        x, y = int(rng.integers(size[1] - 14)), int(rng.integers(size[0] - 14))
        w, h = (int(side) for side in rng.integers(6, 14, 2))
        mask = np.zeros(size, bool)
        mask[y : y + h, x : x + w] = True
        image[mask] = 255
        points = np.array([[x, y, 2], [x + w, y, 2], [x, y + h, 1]], float)
        objects.append(Object(label, (x, y, x + w, y + h), encode(mask), points))
    scene = Scene(f"scene[{seed}]", *size, tuple(objects), seed + 1)
    return DetectionSample(Image.fromarray(image), scene, scene.path)


def assert_consistent(view, slack=1.0):
    """Masks are where the image is bright, boxes around masks, keypoints on corners of boxes."""
    bright = as_array(view.image)[..., 0] > 127
    covered = view.masks.any(axis=0)
    assert (bright & ~covered).sum() <= 0.06 * max(1, covered.sum()) + 8 * slack
    for box, mask, points in zip(view.boxes, view.masks, view.keypoints):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        np.testing.assert_allclose(box, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), atol=slack)
        for x, y, seen in points:
            if seen:
                assert min(abs(x - box[0]), abs(x - box[2])) < slack
                assert min(abs(y - box[1]), abs(y - box[3])) < slack


def views():
    return [view_of(sample(seed), 3) for seed in range(8)]


def test_flip_mirrors_everything():
    swap = mirrored_names(NAMES)
    assert swap == (0, 2, 1)
    rng = np.random.default_rng(0)
    view = views()[0]
    flipped = Flip(1.0, swap)(view, rng)
    assert_consistent(flipped)
    x1, y1, x2, y2 = view.boxes[0]
    np.testing.assert_array_equal(flipped.boxes[0], (60 - x2, y1, 60 - x1, y2))
    np.testing.assert_array_equal(flipped.keypoints[0, 1], (60 - x1, y2, 1))  # the right eye became the left
    back = Flip(1.0, swap)(flipped, rng)
    for one, other in zip(vars(back).values(), vars(view).values()):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert Flip(0.0)(view, rng) is view


@pytest.mark.parametrize(
    "step",
    [ResizeTo(Resize((80, 90), "bilinear")), Crop((0.3, 0.8)), ScaleJitter((48, 48), (0.5, 2.0)), Flip(0.5, (0, 2, 1))],
)
def test_everything_moves_together(step):
    rng, total = np.random.default_rng(0), 0
    for view in views():
        moved = step(view, rng)
        assert_consistent(moved, slack=2.5)
        total += len(moved.labels)
    assert total > 5


def test_a_window_drops_what_it_hardly_shows():
    view = view_of(sample(0), 3)
    x1, y1, x2, y2 = view.boxes[0].astype(int).tolist()
    half = windowed(view, 0, 0, (40, (x1 + x2) // 2), 0.3)
    assert 0 in half.labels
    gone = windowed(view, 0, 0, (40, x1 + 1), 0.3)
    assert 0 not in gone.labels
    assert (half.boxes[list(half.labels).index(0)] == (x1, y1, (x1 + x2) // 2, y2)).all()
    wider = windowed(view, -5, -7, (60, 80), 0.3)
    np.testing.assert_array_equal(wider.boxes, view.boxes + [7, 5, 7, 5])
    assert as_array(wider.image)[0, 0, 0] == 0


def test_mosaic_and_copy_paste():
    rng = np.random.default_rng(3)
    joined = mosaic(views()[:4], (64, 64), rng)
    assert as_array(joined.image).shape == (64, 64, 3)
    assert_consistent(joined, slack=2.5)
    below, above = views()[4:6]
    pasted = copy_paste(below, above, rng)
    assert len(pasted.labels) > len(below.labels) - 3
    assert not (pasted.masks[:-2].any(axis=0) & pasted.masks[-2:].any(axis=0)).any(), "what is covered is cut out"
    assert (as_array(pasted.image)[..., 0] > 127).sum() >= (as_array(below.image)[..., 0] > 127).sum()
    empty = below.keep(np.zeros(3, bool))
    assert copy_paste(below, empty, rng) is below


def test_crowds_are_left_out_and_flat_boxes_dropped():
    whole = sample(0)
    crowd = Object(0, (1.0, 1, 9, 9), crowd=True)
    flat = Object(1, (1.0, 1, 1.01, 9))
    scene = Scene("x", 40, 60, (*whole.scene.objects, crowd, flat))
    view = view_of(whole._replace(scene=scene))
    assert len(view.labels) == 4
    assert view.masks is None, "one object has no mask"
    assert len(DropFlat()(view, np.random.default_rng(0)).labels) == 3


class Scenes:
    name, class_names, in_channels = "scenes", ("a", "b", "c"), 3

    def __init__(self, count=12):
        self.samples = [sample(seed, size=(40 + seed, 60), count=seed % 4) for seed in range(count)]
        self.annotations = Annotations(tuple(one.scene for one in self.samples), self.class_names, (), NAMES)
        self.labels = np.array([one.label for s in self.samples for one in s.scene.objects])

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_batches_hold_images_of_different_sizes():
    settings = Preprocessing(image_size=(64, 96), resize="within", resize_size=64, interpolation="bilinear")
    (batch, *_) = Loader(Scenes(), DetectionTransform(settings), batch_size=4)
    assert batch["images"].shape[:2] == (4, 3)
    assert batch["image_sizes"][0] == (64, 96)
    assert len(set(batch["image_sizes"])) > 1
    assert [scene.path for scene in batch["scenes"]] == [f"scene[{i}]" for i in range(4)]
    height, width = batch["image_sizes"][3]
    assert (batch["images"][3, :, height:] == 0).all()
    assert (batch["images"][3, :, :, width:] == 0).all()


def test_training_batches_do_not_depend_on_ranks_or_workers():
    settings = Preprocessing(image_size=(48, 48), resize="squash")
    augment = AugmentConfig(
        flip=0.5, scale_jitter=(0.5, 1.5), mosaic=0.5, copy_paste=0.5, color_jitter=(0.2, 0.2, 0.2, 0.0)
    )
    transform = DetectionTransform(settings, augment)
    whole = list(Loader(Scenes(), transform, batch_size=4, shuffle=True, seed=3))
    shares = [
        list(Loader(Scenes(), transform, batch_size=4, shuffle=True, seed=3, rank=r, world_size=2)) for r in (0, 1)
    ]
    workers = list(Loader(Scenes(), transform, batch_size=4, shuffle=True, seed=3, num_workers=1))
    for batch, first, second, read in zip(whole, *shares, workers, strict=True):
        assert torch.equal(batch["images"], torch.cat([first["images"], second["images"]]))
        assert torch.equal(batch["images"], read["images"])
        for target, other in zip(batch["targets"], first["targets"] + second["targets"], strict=True):
            assert {key: value.tolist() for key, value in target.items()} == {
                key: value.tolist() for key, value in other.items()
            }
            count = len(target["labels"])
            assert target["boxes"].shape == (count, 4)
            assert target["masks"].shape == (count, 48, 48)
            assert target["keypoints"].shape == (count, 3, 3)


def test_what_does_not_fit_is_named(tmp_path):
    shorter = DetectionTransform(Preprocessing(image_size=(48, 48)))
    with pytest.raises(ValueError, match='"shorter"; a detector needs "within", "squash" or "none"'):
        next(iter(Loader(Scenes(), shorter, batch_size=4)))
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    wrong = AnnotatedFiles("set", Annotations((Scene(str(tmp_path / "a.png"), 20, 31),), ("cat",)))
    with pytest.raises(ValueError, match=r"a\.png has 30 x 20 pixels and its annotations say 31 x 20"):
        wrong[0]
    assert stack_images([torch.ones(1, 2, 3), torch.ones(1, 4, 1)])[0].shape == (2, 1, 4, 3)


def test_resizing_scales_keypoints_and_boxes_alike():
    view = views()[0]
    h, w = as_array(view.image).shape[:2]
    moved = ResizeTo(Resize((3 * h, 2 * w), "bilinear"))(view, np.random.default_rng(0))
    np.testing.assert_array_equal(moved.boxes, view.boxes * [2, 3, 2, 3])
    np.testing.assert_array_equal(moved.keypoints, view.keypoints * [2, 3, 1])
    np.testing.assert_array_equal(moved.masks, view.masks.repeat(3, axis=1).repeat(2, axis=2))
