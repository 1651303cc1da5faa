"""COCO, YOLO and VOC files: conversions without loss."""

import json

import numpy as np
import pytest
from PIL import Image

from nexus.data import DataError, load_dataset
from nexus.data.detection import (
    RLE,
    Annotations,
    DigitScenes,
    Object,
    Polygons,
    Scene,
    convert,
    read_coco,
    read_voc,
    read_yolo,
    write_coco,
    write_voc,
    write_yolo,
)
from nexus.data.detection.rle import encode

RNG = np.random.default_rng(0)


def holed(height, width):
    """A mask of two parts, one with a hole."""
    mask = np.zeros((height, width), bool)
    mask[2:12, 3:14] = True
    mask[5:9, 6:10] = False
    mask[15:18, 20:23] = True
    return encode(mask)


def images(folder, sizes=((24, 32), (30, 20))):
    folder.mkdir(parents=True, exist_ok=True)
    for place, (height, width) in enumerate(sizes):
        pixels = RNG.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{place}.png")


def masks_only(folder):
    """What every format can hold: boxes that are the extent of their masks."""
    images(folder)
    rle = holed(24, 32)
    ring = np.array([[1.25, 2.5], [17.125, 3.0], [9.0, 21.5]])
    objects = (Object(1, rle.box, rle), Object(0, (1.25, 2.5, 17.125, 21.5), Polygons((ring,))))
    scenes = (
        Scene(str(folder / "photo0.png"), 24, 32, objects),
        Scene(str(folder / "photo1.png"), 30, 20, (Object(0, (0.5, 1.0, 4.25, 30.0)),)),
    )
    return Annotations(scenes, ("cat", "dog"))


def everything(folder):
    """What COCO and VOC can hold."""
    plain = masks_only(folder)
    rle = encode(RNG.random((24, 32)) < 0.5)
    points = np.array([[3.5, 4.0, 2], [0, 0, 0], [7.25, 9.0, 1]])
    rings = Polygons((np.array([[1.0, 1], [9, 1], [9, 9]]), np.array([[12.0, 12], [20, 12], [20, 20.5]])))
    more = (
        Object(0, (1.0, 2.0, 20.0, 22.5), rle, crowd=True, area=123.5),
        Object(1, (2.0, 2.0, 11.0, 12.0), keypoints=points, difficult=True),
        Object(1, (1.0, 1.0, 20.0, 20.5), rings, area=70.25),
    )
    first = plain.scenes[0]
    scenes = (Scene(first.path, 24, 32, (*first.objects, *more), 7), Scene(plain.scenes[1].path, 30, 20, (), 3))
    return Annotations(scenes, plain.class_names, (4, 17), ("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)))


def assert_same(one, other, *, runs=False):
    """Equal in everything but where the images lie; `runs` compares masks by their pixels."""
    assert one.class_names == other.class_names
    assert len(one.scenes) == len(other.scenes)
    for a, b in zip(one.scenes, other.scenes):
        assert a.size == b.size
        assert len(a.objects) == len(b.objects)
        for x, y in zip(a.objects, b.objects):
            assert (x.label, x.crowd, x.difficult) == (y.label, y.crowd, y.difficult)
            np.testing.assert_allclose(x.box, y.box, atol=1e-9)
            assert a.area(x) == pytest.approx(b.area(y), abs=1e-9)
            if runs:
                assert a.rle(x) == b.rle(y)
            else:
                assert x.mask == y.mask
            assert (x.keypoints is None) == (y.keypoints is None)
            if x.keypoints is not None:
                np.testing.assert_allclose(x.keypoints, y.keypoints, atol=1e-9)


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_coco_and_voc_hold_everything(tmp_path, kind):
    given = everything(tmp_path / "images")
    if kind == "coco":
        back = read_coco(write_coco(given, tmp_path / "all.json"))
        assert [scene.path for scene in back.scenes] == [scene.path for scene in given.scenes]
        assert sorted(json.loads((tmp_path / "all.json").read_text())["annotations"][0])[:3] == [
            "area",
            "bbox",
            "category_id",
        ]
    else:
        back = read_voc(write_voc(given, tmp_path / "voc"))
    assert_same(given, back)
    assert (back.class_ids, back.keypoint_names, back.skeleton) == (
        given.class_ids,
        given.keypoint_names,
        given.skeleton,
    )
    assert [scene.id for scene in back.scenes] == [7, 3]


def test_voc_boxes_are_pixels_counted_from_one(tmp_path):
    images(tmp_path / "images")
    scene = Scene(str(tmp_path / "images/photo0.png"), 24, 32, (Object(0, (0.0, 0.0, 32.0, 24.0)),))
    write_voc(Annotations((scene,), ("cat",)), tmp_path / "voc")
    text = (tmp_path / "voc/Annotations/photo0.xml").read_text()
    for side in ("<xmin>1</xmin>", "<ymin>1</ymin>", "<xmax>32</xmax>", "<ymax>24</ymax>"):
        assert side in text


def test_yolo_holds_masks_with_parts_and_holes(tmp_path):
    given = masks_only(tmp_path / "images")
    back = read_yolo(write_yolo(given, tmp_path / "yolo"))
    assert_same(given, back, runs=True)
    assert back.scenes[0].objects[0].mask != given.scenes[0].objects[0].mask, "one outline stands for the runs"


def test_yolo_holds_keypoints(tmp_path):
    images(tmp_path / "images")
    points = np.array([[3.5, 4.0, 2], [0, 0, 0]])
    scene = Scene(str(tmp_path / "images/photo0.png"), 24, 32, (Object(0, (1.0, 2.0, 9.0, 8.0), keypoints=points),))
    given = Annotations((scene,), ("cat",), keypoint_names=("point0", "point1"))
    back = read_yolo(write_yolo(given, tmp_path / "yolo"))
    assert_same(given, back)
    assert back.keypoint_names == given.keypoint_names


def test_yolo_refuses_what_it_cannot_hold(tmp_path):
    images(tmp_path / "images")
    path = str(tmp_path / "images/photo0.png")
    rle = holed(24, 32)
    cases = [
        (Object(0, (1.0, 2, 9, 8), crowd=True), "the mark of a crowd"),
        (Object(0, (1.0, 2, 9, 8), area=5.0), "an area that is not"),
        (Object(0, (0.0, 0, 30, 20), rle), "a box that is not the extent"),
        (Object(0, rle.box, rle, keypoints=np.zeros((1, 3))), "a mask and keypoints at once"),
    ]
    for one, what in cases:
        given = Annotations((Scene(path, 24, 32, (one,)),), ("cat",))
        with pytest.raises(DataError, match=f"object 0 has {what}.*lossy=True"):
            write_yolo(given, tmp_path / "yolo")
    write_yolo(given, tmp_path / "yolo", lossy=True)


def test_around_all_formats(tmp_path):
    given = masks_only(tmp_path / "images")
    coco = write_coco(given, tmp_path / "a.json")
    voc = convert(coco, tmp_path / "voc", "voc")
    assert_same(read_coco(coco), read_voc(voc))
    yolo = convert(convert(voc, tmp_path / "again.json", "coco", lossy=True), tmp_path / "yolo", "yolo", lossy=True)
    last = read_coco(convert(yolo, tmp_path / "last.json", "coco"))
    assert_same(given, last, runs=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_pycocotools_reads_what_is_written(needed, tmp_path):
    coco = needed("pycocotools.coco")
    given = everything(tmp_path / "images")
    theirs = coco.COCO(str(write_coco(given, tmp_path / "all.json")))
    annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=[7]))
    for one, row in zip(given.scenes[0].objects, annotations, strict=True):
        if one.mask is not None:
            np.testing.assert_array_equal(theirs.annToMask(row), given.scenes[0].rle(one).decode())


def test_uncompressed_runs_and_missing_fields_are_read(tmp_path):
    rle = holed(24, 32)
    row = {"image_id": 1, "category_id": 1, "segmentation": {"size": [24, 32], "counts": rle.counts.tolist()}}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (one,) = read_coco(tmp_path / "a.json").scenes[0].objects
    assert (one.mask, one.box, one.crowd) == (RLE(24, 32, rle.counts), rle.box, False)


def test_sources_by_name(tmp_path):
    for split in ("train", "val"):
        given = masks_only(tmp_path / "set" / split)
        write_coco(given, tmp_path / "set" / "annotations" / f"instances_{split}.json", tmp_path / "set" / split)
    data = load_dataset(f"coco:{tmp_path / 'set'}", "val")
    assert (len(data), data.class_names, data.labels.tolist()) == (2, ("cat", "dog"), [1, 0, 0])
    assert data[0].image.size == (32, 24)
    with pytest.raises(DataError, match="no annotations of 'test'"):
        load_dataset(f"coco:{tmp_path / 'set'}", "test")


def test_digit_scenes_are_the_same_everywhere(needed):
    needed("skimage")
    few, more = DigitScenes("val", 3), DigitScenes("val", 5)
    for place in range(3):
        np.testing.assert_array_equal(np.asarray(few[place].image), np.asarray(more[place].image))
        for one in few[place].scene.objects:
            assert one.mask.box == one.box
            assert one.mask.area > 5
    masks = np.sum([one.mask.decode() for one in more[1].scene.objects], axis=0)
    assert masks.max() == 1, "no pixel belongs to two digits"
    assert [(one.label, one.box) for one in few[0].scene.objects] == [(4, (68.0, 16.0, 88.0, 48.0))]
    with pytest.raises(ValueError, match="no split 'test'"):
        load_dataset("digit-scenes", "test")
    assert len(load_dataset("digit-scenes:3", "train")) == 3
    assert len(load_dataset("digit-scenes:3", "val")) == 100, "the held-out scenes stay the same"
    with pytest.raises(ValueError, match="'digit-scenes:many' asks for 'many' items; write a number above 0"):
        load_dataset("digit-scenes:many", "train")
