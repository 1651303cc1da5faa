"""Fields that say nothing, or not enough: read as if they were absent, or named; in every format alike."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from nexus.core.preprocessing import Preprocessing
from nexus.data import DataError, Loader, load_dataset
from nexus.data.check import check_source
from nexus.data.detection import Annotations, Object, Scene, check_annotations, convert, sources
from nexus.data.detection.batches import DetectionTransform
from nexus.data.detection.scene import AnnotatedFiles
from nexus.data.detection.values import is_number, number_of
from nexus.data.transforms import AugmentConfig

OUTLINE = [[5, 5, 25, 5, 25, 25, 5, 25]]
PAGE = (
    "<annotation><filename>{0}.png</filename><size><width>64</width><height>48</height></size><object><name>{1}</name>"
    "<bndbox><xmin>{2}</xmin><ymin>5</ymin><xmax>25</xmax><ymax>25</ymax></bndbox></object></annotation>"
)


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(path)
    return path


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def coco(root, count=3):
    """COCO's content for so many images with one object each."""
    images, rows = [], []
    for number in range(1, count + 1):
        photo(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
        rows.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [5, 5, 20, 20]})
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}


def every(key, **fields):
    return lambda content: [row.update(fields) for row in content[key]]


def both(*changes):
    return lambda content: [change(content) for change in changes]


@pytest.mark.parametrize(
    ("change", "to"),
    [
        (every("categories", keypoints=["n", "e"], skeleton=None), None),
        (lambda content: [row.pop("id") for row in content["annotations"]], None),
        (every("annotations", keypoints=[], num_keypoints=0, segmentation=OUTLINE), "yolo"),
        (both(every("annotations", keypoints=[]), every("categories", keypoints=["n", "e"], skeleton=[])), None),
        (every("annotations", segmentation=[[]]), "voc"),
        (every("annotations", segmentation=None, area=None, iscrowd=None), "voc"),
        (every("images", width=64.0, height=48.0), "voc"),
    ],
)
def test_fields_of_coco_that_say_nothing(tmp_path, change, to):
    content = coco(tmp_path / "d")
    change(content)
    file = put(tmp_path / "d" / "train.json", content)
    annotations, faults = check_annotations(file)
    assert faults == []
    assert [len(scene.objects) for scene in annotations.scenes] == [1, 1, 1]
    if to:
        convert(file, tmp_path / "out", to)
        assert check_annotations(f"{to}:{tmp_path / 'out'}")[1] == []


def test_byte_order_marks(tmp_path):
    text = json.dumps(coco(tmp_path / "coco"))
    (tmp_path / "coco" / "train.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    photo(tmp_path / "yolo" / "images" / "train" / "0.png")
    put(tmp_path / "yolo" / "data.yaml", "\ufeffnames: [a]\n")
    put(tmp_path / "yolo" / "labels" / "train" / "0.txt", "\ufeff0 .5 .5 .2 .2\r\n")
    photo(tmp_path / "voc" / "JPEGImages" / "a.png")
    put(tmp_path / "voc" / "Annotations" / "a.xml", "\ufeff" + PAGE.format("a", "cat", 5))
    put(tmp_path / "voc" / "ImageSets" / "Main" / "train.txt", "\ufeffa\r\n")
    for kind in ("coco", "yolo", "voc"):
        annotations, faults = check_annotations(f"{kind}:{tmp_path / kind}")
        assert faults == []
        assert all(scene.objects for scene in annotations.scenes)


def test_spaces_in_voc(tmp_path):
    for stem, name in (("my cat", " cat "), ("b", "cat")):
        photo(tmp_path / "JPEGImages" / f"{stem}.png")
        put(tmp_path / "Annotations" / f"{stem}.xml", PAGE.format(stem, name, 5))
    put(tmp_path / "ImageSets" / "Main" / "train.txt", "my cat\nb.png 1\n")
    assert load_dataset(f"voc:{tmp_path}", "train").class_names == ("cat",)
    assert len(load_dataset(f"voc:{tmp_path}", "train")) == 2


@pytest.mark.parametrize(("written", "left"), [(1, 0.0), (0, 0.0), (5, 4.0)])
def test_voc_counts_from_1_and_a_0_is_the_border(tmp_path, written, left):
    photo(tmp_path / "JPEGImages" / "a.png")
    put(tmp_path / "Annotations" / "a.xml", PAGE.format("a", "cat", written))
    [scene] = check_annotations(f"voc:{tmp_path}")[0].scenes
    assert scene.objects[0].box == (left, 4.0, 25.0, 25.0)


# COCO: where images lie


def test_the_folder_of_cocos_images_is_the_one_that_has_most_of_them(tmp_path):
    content = coco(tmp_path, 9)
    for number in range(1, 10):
        (tmp_path / "images" / f"{number}.png").rename(photo(tmp_path / "train" / f"{number}.png"))
    photo(tmp_path / "images" / "1.png")  # left from an earlier try
    put(tmp_path / "train.json", content)
    assert check_annotations(f"coco:{tmp_path}")[1] == []


def test_the_first_of_cocos_images_may_be_gone(tmp_path):
    content = coco(tmp_path, 4)
    for number in range(2, 5):
        (tmp_path / "images" / f"{number}.png").rename(photo(tmp_path / "train" / f"{number}.png"))
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images").rmdir()
    put(tmp_path / "train.json", content)
    faults = check_annotations(f"coco:{tmp_path}")[1]
    assert [fault.file for fault in faults] == [str(tmp_path / "train" / "1.png")]


# YOLO: path, keypoints


def yolo(root, settings, line="0 .5 .5 .2 .2"):
    photo(root / "images" / "train" / "0.png")
    put(root / "labels" / "train" / "0.txt", line + "\n")
    return put(root / "data.yaml", "train: images/train\nnames: [a]\n" + settings)


def test_a_path_of_another_machine_is_said_and_passed_over(tmp_path, caplog):
    yolo(tmp_path, "path: ../datasets/coco8\n")
    with caplog.at_level(logging.WARNING, logger="nexus"):
        assert len(load_dataset(f"yolo:{tmp_path}", "train")) == 1
    assert "path is '../datasets/coco8', and there is no such folder; its own folder is read" in caplog.text
    caplog.clear()
    yolo(tmp_path, "path: .\n")
    assert len(load_dataset(f"yolo:{tmp_path}", "train")) == 1
    assert not caplog.text


def test_a_path_that_leads_outside_to_a_folder_is_refused_unless_its_file_is_named(tmp_path):
    yolo(tmp_path / "other", "")
    file = yolo(tmp_path / "mine", "path: ../other\n")
    with pytest.raises(DataError, match=r"data\.yaml: path is '\.\./other', which leads outside .* yolo:.*data\.yaml"):
        load_dataset(f"yolo:{tmp_path / 'mine'}", "train")
    [scene] = load_dataset(f"yolo:{file}", "train").annotations.scenes
    assert (tmp_path / "other").resolve() in type(file)(scene.path).resolve().parents


def test_keypoints_without_visibility_are_visible(tmp_path):
    yolo(tmp_path, "kpt_shape: [2, 2]\nflip_idx: [1, 0]\n", "0 .5 .5 .5 .5 .25 .5 .75 .25")
    annotations, faults = check_annotations(f"yolo:{tmp_path}")
    assert faults == []
    np.testing.assert_array_equal(annotations.scenes[0].objects[0].keypoints, [[16, 24, 2], [48, 12, 2]])
    convert(f"yolo:{tmp_path}", tmp_path / "out", "yolo")
    again = check_annotations(f"yolo:{tmp_path / 'out'}")[0].scenes[0].objects[0]
    np.testing.assert_array_equal(again.keypoints, [[16, 24, 2], [48, 12, 2]])
    yolo(tmp_path, "kpt_shape: [2, 2]\n", "0 .5 .5 .5 .5 .25 .5 2 .75 .25 2")
    assert "has 10 numbers; with 2 keypoints it must be 8" in str(check_annotations(f"yolo:{tmp_path}")[1][0])


# Before a run


def test_a_flip_without_pairs_is_refused_before_the_first_batch(tmp_path):
    path = str(photo(tmp_path / "a.png"))
    one = Object(0, (5, 5, 25, 25), keypoints=np.array([[6, 6, 2], [9, 9, 2.0]]))
    annotations = Annotations((Scene(path, 48, 64, (one,)),), ("cat",), keypoint_names=("point0", "point1"))
    preprocessing = Preprocessing(image_size=(48, 64), resize="squash")
    flipped = DetectionTransform(preprocessing, AugmentConfig(flip=0.5))
    with pytest.raises(DataError, match=r"'point0' differs from others by its number.*augment\.flip=0"):
        Loader(AnnotatedFiles("set", annotations), flipped, batch_size=1)
    Loader(AnnotatedFiles("set", annotations), DetectionTransform(preprocessing, AugmentConfig()), batch_size=1)


# Limits, and nothing at all


def test_all_outlines_together_are_bounded(tmp_path, monkeypatch):
    content = coco(tmp_path)
    every("annotations", segmentation=OUTLINE)(content)
    put(tmp_path / "train.json", content)
    monkeypatch.setattr(sources, "MAX_OUTLINES", 180)
    assert check_annotations(f"coco:{tmp_path}")[1] == []
    monkeypatch.setattr(sources, "MAX_OUTLINES", 179)
    [fault] = check_annotations(f"coco:{tmp_path}")[1]
    assert "its outlines are about 180 pixels long together; at most 179 are read" in str(fault)


EMPTY = {
    "coco": ("train.json", {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}),
    "yolo": ("data.yaml", "names: [a]\n"),
    "voc": ("Annotations/readme.txt", ""),
    "cvat": ("annotations.xml", "<annotations><meta><task></task></meta></annotations>"),
    "labelme": ("readme.txt", ""),
    "label-studio": ("project.json", []),
    "label-images": ("images/readme.txt", ""),
    "class-images": ("classes.txt", "cat"),
    "via": ("p.json", {"_via_settings": {}, "_via_img_metadata": {}}),
    "open-images": ("train-annotations-bbox.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\n"),
    "kaggle": ("train.csv", "image_id,bbox\n"),
    "folder": ("cat/readme.txt", ""),
    "captions": ("c.csv", "file,caption\n"),
}


def test_every_format_is_tried_empty():
    assert sources.FORMATS.keys() <= EMPTY.keys()


@pytest.mark.parametrize("kind", EMPTY)
def test_no_image_is_a_fault(tmp_path, kind):
    name, content = EMPTY[kind]
    put(tmp_path / name, content)
    source = f"{kind}:{tmp_path / name}" if kind == "captions" else f"{kind}:{tmp_path}"
    checked = check_source(source)
    assert checked.images == 0
    assert checked.faults
    assert all(str(tmp_path) in str(fault) for fault in checked.faults)


@pytest.mark.parametrize("far", [1e308, -1e308, 1e200, 2.0**63, float("inf"), float("nan"), 10**30, True])
def test_what_is_too_far_away_is_no_number(far):
    assert not is_number(far)
    with pytest.raises(ValueError, match="is not a"):
        number_of(str(far))


@pytest.mark.parametrize("kind", ["circle", "rectangle", "polygon"])
def test_shapes_that_are_too_far_away_are_faults(tmp_path, kind):
    photo(tmp_path / "a.png")
    shape = {"label": "a", "shape_type": kind, "points": [[8, 6], [1e200, 6], [1, 1]][: 3 if kind == "polygon" else 2]}
    head = {"version": "5", "imagePath": "a.png", "imageHeight": 48, "imageWidth": 64, "imageData": None}
    put(tmp_path / "a.json", {**head, "shapes": [shape]})
    [fault] = check_annotations(f"labelme:{tmp_path}")[1]
    assert "shapes[0]" in str(fault)
