"""The usual faults of annotation files: each is named with its file and annotation."""

import copy
import json
import re

import pytest
from PIL import Image

from nexus.data import DataError
from nexus.data.detection import check_annotations, read_annotations

RUNS = {"size": [20, 30], "counts": [100, 50, 450]}
GOOD = {
    "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}],
    "annotations": [
        {
            "id": 5,
            "image_id": 1,
            "category_id": 1,
            "bbox": [2, 3, 10, 12],
            "area": 60,
            "iscrowd": 0,
            "segmentation": [[2, 3, 12, 3, 12, 15]],
            "keypoints": [3, 4, 2, 0, 0, 0],
            "num_keypoints": 1,
        }
    ],
}


def photo(path, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def coco(tmp_path, change):
    content = copy.deepcopy(GOOD)
    content = change(content) or content
    photo(tmp_path / "a.png")
    file = tmp_path / "set.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def annotation(**changes):
    def change(content):
        content["annotations"][0].update(changes)

    return change


def image(**changes):
    def change(content):
        content["images"][0].update(changes)

    return change


def twice(key, **changes):
    def change(content):
        content[key].append({**content[key][0], **changes})

    return change


def without(key):
    def change(content):
        del content[key]

    return change


COCO_FAULTS = [
    (lambda content: "{", "", "is not (valid )?JSON"),
    (lambda content: "[1]", "", "holds a list; a COCO file is an object"),
    (without("images"), "", "images is missing"),
    (without("annotations"), "", "annotations is missing"),
    (without("categories"), "", "categories is missing"),
    (twice("images", id=None, file_name="b.png"), r"images\[1\]", "id is None; it must be a whole number"),
    (image(file_name=""), r"images\[0\] \(id 1\)", "it must name the image file"),
    (image(height=0), r"images\[0\] \(id 1\)", "must be pixels above 0"),
    (image(file_name="gone.png"), "", r"gone\.png does not exist|does not exist"),
    (image(width=31), "", "has 30 x 20 pixels and its annotations say 31 x 20"),
    (twice("images", file_name="b.png"), r"images\[1\] \(id 1\)", "ids must differ"),
    (twice("images", id=2), r"images\[1\] \(id 2\)", "list each image once"),
    (twice("categories", name="dog"), r"categories\[1\]", "is that of 'cat' too"),
    (twice("categories", id=2), r"categories\[1\]", "'cat' occurs twice"),
    (twice("categories", id="2", name="dog"), r"categories\[1\]", "must be a whole number"),
    (twice("categories", id=2, name=None), r"categories\[1\]", "a class needs a name"),
    (twice("annotations", bbox=[2, 3, 10, 11]), r"annotations\[1\] \(id 5\)", "id 5 occurs twice"),
    (twice("annotations", id=6), "object 1", "a copy of object 0"),
    (lambda content: content["annotations"].append(3), r"annotations\[1\]", "an annotation is an object"),
    (annotation(id="5"), r"annotations\[0\]", "must be a whole number"),
    (annotation(image_id=9), r"annotations\[0\] \(id 5\)", "no image has that id"),
    (annotation(category_id=9), r"annotations\[0\] \(id 5\)", r"no category has that id \(there are 1 to 1\)"),
    (annotation(bbox=[1, 2, 3]), r"annotations\[0\] \(id 5\)", "must be four numbers"),
    (annotation(bbox=[1, 2, "3", 4]), r"annotations\[0\] \(id 5\)", "must be four numbers"),
    (annotation(bbox=[1, 2, float("nan"), 4]), r"annotations\[0\] \(id 5\)", "must be four numbers"),
    (annotation(bbox=[1, 2, 0, 4]), r"annotations\[0\] \(id 5\)", "has no area"),
    (annotation(bbox=[12, 3, 25, 15]), r"annotations\[0\] \(id 5\)", "COCO wants left, top, width, height"),
    (annotation(bbox=[25, 3, 10, 12]), r"annotations\[0\] \(id 5\)", "leaves the image of 30 x 20"),
    (annotation(bbox=[20, 5, 8, 8]), "object 0", "its mask reaches over"),
    (annotation(area=-1), r"annotations\[0\] \(id 5\)", "area is -1"),
    (annotation(iscrowd=2), r"annotations\[0\] \(id 5\)", "must be 0 or 1"),
    (annotation(segmentation="x"), r"annotations\[0\] \(id 5\)", "must be polygons"),
    (annotation(segmentation=[[2, 3, 4]]), r"annotations\[0\] \(id 5\)", "come in pairs"),
    (annotation(segmentation=[[2, 3, 12, 15]]), r"annotations\[0\] \(id 5\)", "at least 3"),
    (
        annotation(segmentation=[[2, 3, 40, 3, 12, 15]]),
        r"annotations\[0\] \(id 5\)",
        r"the point \[40.0, 3.0\] outside",
    ),
    (annotation(segmentation=[[2, 3, None, 3, 12, 15]]), r"annotations\[0\] \(id 5\)", "list of numbers x, y"),
    (annotation(segmentation=[[2, 3, 2, 3, 2, 3]]), "object 0", "covers no pixel"),
    (annotation(segmentation={**RUNS, "size": [30, 20]}), r"annotations\[0\] \(id 5\)", r"the image is \[20, 30\]"),
    (annotation(segmentation={**RUNS, "counts": [9]}), r"annotations\[0\] \(id 5\)", "add up to 9"),
    (annotation(segmentation={**RUNS, "counts": [-1, 601]}), r"annotations\[0\] \(id 5\)", "cannot be below 0"),
    (annotation(segmentation={**RUNS, "counts": "0~"}), r"annotations\[0\] \(id 5\)", "no run length"),
    (annotation(segmentation={**RUNS, "counts": None}), r"annotations\[0\] \(id 5\)", "whole numbers, or text"),
    (annotation(keypoints=[1, 2]), r"annotations\[0\] \(id 5\)", "x, y, v"),
    (annotation(keypoints=[1, 2, 2]), r"annotations\[0\] \(id 5\)", "there are 1 keypoints; the class 'cat' has 2"),
    (annotation(keypoints=[1, 2, 3, 0, 0, 0]), r"annotations\[0\] \(id 5\)", "neither 0"),
    (annotation(num_keypoints=2), r"annotations\[0\] \(id 5\)", "1 keypoints are labelled"),
    (annotation(keypoints=[31, 2, 2, 0, 0, 0]), "object 0", "keypoint 0 .* outside"),
]


def assert_one_fault(path, place, problem):
    _, faults = check_annotations(path)
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert faults[0].file
    assert re.search(place, faults[0].place), faults[0]
    assert re.search(problem, str(faults[0])), faults[0]
    return faults[0]


@pytest.mark.parametrize(("change", "place", "problem"), COCO_FAULTS)
def test_faults_of_coco_files(tmp_path, change, place, problem):
    fault = assert_one_fault(coco(tmp_path, change), place, problem)
    assert fault.file.startswith(str(tmp_path))


def test_a_good_file_has_no_fault(tmp_path):
    annotations, faults = check_annotations(coco(tmp_path, lambda content: None))
    assert faults == []
    assert len(annotations.scenes[0].objects) == 1


def test_readers_refuse_the_first_fault(tmp_path):
    file = coco(tmp_path, annotation(image_id=9))
    with pytest.raises(DataError, match=r"set\.json: annotations\[0\] \(id 5\): image_id is 9"):
        read_annotations(file)


YOLO_FAULTS = [
    ("0 0.5 0.5 0.2", "line 1", "has 3 numbers; a box has 4"),
    ("7 0.5 0.5 0.2 0.2", "line 1", "the class is 7; data.yaml names 2"),
    ("0.5 0.5 0.5 0.2 0.2", "line 1", "is not a class"),
    ("cat 0.5 0.5 0.2 0.2", "line 1", "is not a class"),
    ("0 15 10 5 4", "line 1", "divide pixels by the image's width or height"),
    ("0 0.5 0.5 nan 0.2", "line 1", "not a finite number"),
    ("0 0.5 0.5 0 0.2", "line 1", "no area"),
    ("0 0.9 0.5 0.6 0.2", "line 1", "leaves the image"),
    ("0 0.1 0.1 0.9 0.1 0.5", "line 1", "an even number"),
    ("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2", "line 2", "a copy of another line"),
]


def yolo(tmp_path, text, settings="names: [cat, dog]\n"):
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text(settings)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize(("text", "place", "problem"), YOLO_FAULTS)
def test_faults_of_yolo_files(tmp_path, text, place, problem):
    fault = assert_one_fault(yolo(tmp_path, text), place, problem)
    assert fault.file.endswith("a.txt")


def test_faults_of_yolo_folders(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "b.txt").write_text("")
    assert_one_fault(root, "", r"b\.txt: there is no image for these labels")
    (root / "labels" / "b.txt").unlink()
    (root / "images" / "broken.png").write_bytes(b"x")
    assert_one_fault(root, "", r"broken\.png: is not an image")
    (root / "images" / "broken.png").unlink()
    (root / "labels" / "a.txt").write_bytes(b"\xff\xfe0")
    assert_one_fault(root, "", "(not|no) text in UTF-8")
    (root / "data.yaml").write_text("nc: 3\n")
    assert_one_fault(root, "", "names is missing")
    (root / "data.yaml").write_text("names: [a]\nkpt_shape: 3\n")
    assert_one_fault(root, "", "kpt_shape is 3")
    (root / "data.yaml").write_text("names: [\n")
    assert_one_fault(root, "", "is not YAML")
    (root / "data.yaml").unlink()
    assert_one_fault(root, "", "data.yaml does not exist")


OBJECT = "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
HEAD = "<filename>a.png</filename><size><width>30</width><height>20</height></size>"
VOC_FAULTS = [
    ("<annotation>", "", "is not XML"),
    ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "", "remove the DOCTYPE"),
    (f"<annotation>{HEAD.replace('a.png', '')}</annotation>", "filename", "it is missing"),
    (f"<annotation>{HEAD.replace('30', 'x')}</annotation>", "size", "must be pixels above 0"),
    (f"<annotation>{HEAD.replace('30', '33')}</annotation>", "", "30 x 20 pixels and its annotations say 33 x 20"),
    (f"<annotation>{HEAD}{OBJECT.replace('<xmin>2</xmin>', '')}</annotation>", r"object 0 \(cat\)", "lacks xmin"),
    (f"<annotation>{HEAD}{OBJECT.replace('>2<', '>two<')}</annotation>", r"object 0 \(cat\)", "not made of numbers"),
    (f"<annotation>{HEAD}{OBJECT.replace('>2<', '>19<')}</annotation>", r"object 0 \(cat\)", "has no area"),
    (
        f"<annotation>{HEAD}{OBJECT.replace('<xmax>9', '<xmax>99')}</annotation>",
        r"object 0 \(cat\)",
        "leaves the image",
    ),
    (f"<annotation>{HEAD}{OBJECT.replace('<name>cat</name>', '')}</annotation>", "object 0", "there is no class None"),
]


@pytest.mark.parametrize(("text", "place", "problem"), VOC_FAULTS)
def test_faults_of_voc_files(tmp_path, text, place, problem):
    photo(tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    assert_one_fault(tmp_path, place, problem)


def test_what_is_no_annotation(tmp_path):
    for path in (tmp_path / "gone", tmp_path):
        assert_one_fault(path, "", "does not exist|no annotation of a known format")
