"""Mistakes of a first day with boxes: each is answered in one line that names the file and what to write instead."""

import json
import re
import shutil

import pytest

from nexus.data import DataError, load_dataset
from nexus.data.check import check_source
from tests.drawn_sets import FORMS

TRAIN = "annotations/instances_train.json"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for form, (_, write, _, _) in FORMS.items():
        write(root / form)
    return root


@pytest.fixture
def work(sets, tmp_path, monkeypatch):
    """Copies a form of the set to `set`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return lambda form: shutil.copytree(sets / form, tmp_path / "set")


def said(source):
    return "\n".join(map(str, check_source(source).faults))


@pytest.mark.parametrize("form", FORMS)
def test_a_set_without_mistakes_has_no_fault(work, form):
    work(form)
    checked = check_source(f"{FORMS[form][0]}:set")
    assert (checked.images, checked.objects, checked.classes, checked.faults) == (22, 28, 2, [])


@pytest.mark.parametrize(
    ("form", "source", "answer"),
    [
        ("yolo-folders", "coco:set", "set looks like yolo: write yolo:set."),
        ("coco", "yolo:set", "set looks like coco: write coco:set."),
        ("voc", "yolo:set", "set looks like voc: write voc:set."),
        ("yolo-siblings", "voc:set", "set looks like yolo: write yolo:set."),
        ("voc", "coco:set", "set looks like voc: write voc:set."),
        ("yolo-siblings", "yolo:set/labels", "set looks like yolo: write yolo:set."),
        ("yolo-siblings", "yolo:set/images", "set looks like yolo: write yolo:set."),
        ("voc", "voc:set/Annotations", "holds annotations without their images. set looks like voc: write voc:set."),
        ("yolo-folders", "folder:set", "set looks like yolo: write yolo:set."),
        ("coco", "coco:set/none", "set/none does not exist"),
    ],
)
def test_another_folder_or_format(work, form, source, answer):
    work(form)
    assert answer in said(source)


@pytest.mark.parametrize(
    ("form", "old", "new", "answer"),
    [
        ("yolo-folders", "names:", "classes:", "data.yaml: names is missing; it must list the classes"),
        ("yolo-folders", "train:", "trian:", "data.yaml: there is no key 'trian'; did you mean 'train'?"),
        ("yolo-folders", "nc: 2", "nc: 3", "data.yaml: nc is 3; names has 2 classes"),
        ("yolo-folders", "nc: 2", "\tnc: 2", "data.yaml is not YAML (line 3"),
        ("yolo-folders", "[disc, square]", "2", "names is 2; it must list the classes, or number them from 0 on."),
        ("yolo-folders", "[disc, square]", "[disc, disc]", "names has 'disc' twice"),
        ("yolo-lists", "{0: disc, 1: square}", "{1: disc, 2: square}", "or number them from 0 on."),
        ("yolo-folders", "../train", "/home/ann/set/train", "Write 'train/images', which is there."),
        ("yolo-folders", "../train/images", r"D:\ann\set\train\images", "Write 'train/images', which is there."),
        ("yolo-folders", "../val/images", "../valid/images", "val is '../valid/images'; there is no such folder"),
    ],
)
def test_settings_of_yolo(work, form, old, new, answer):
    file = work(form) / "data.yaml"
    file.write_text(file.read_text().replace(old, new))
    assert answer in said("yolo:set")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("2 .5 .5 .2 .2", "line 1: the class is 2; data.yaml names 2, from 0 to 1."),
        ("disc .5 .5 .2 .2", "is not a class (a whole number) and numbers, with spaces between"),
        ("0,.5,.5,.2,.2", "with spaces between"),
        ('{"a": 1}', "is not a class (a whole number) and numbers"),
        ("0 32 24 10 12", "divide pixels by the image's width or height"),
        ("0 1.2 .5 .2 .2", "1.2 lies outside of the image (0 to 1); correct it, or remove the line"),
        ("0 .7 .7 .9 .9", "As corners it would fit; YOLO wants centre x, centre y, width, height."),
        ("0 .5 .5 .2", "has 3 numbers; a box has 4"),
        ("0 .5 .5 .2 .2 .9", "Remove a score at the end."),
        ("0 .5 .5 0 0", "its width and height must be above 0"),
    ],
)
def test_lines_of_yolo(work, line, answer):
    file = work("yolo-siblings") / "labels" / "train" / "00.txt"
    file.write_text(f"{line}\n")
    [told] = said("yolo:set").splitlines()
    assert told.startswith("set/labels/train/00.txt: line 1: ")
    assert answer in told


def test_labels_that_lie_elsewhere_or_are_of_another_kind(work):
    root = work("yolo-siblings")
    (root / "labels" / "train" / "00.txt").rename(root / "labels" / "train" / "00.xml")
    assert "labels/train/00.xml: these are no labels of YOLO; write 00.txt" in said("yolo:set")
    (root / "labels").rename(root / "label")
    assert "set/images/train/00.png are looked for in set/labels/train/00.txt." in said("yolo:set")


def test_an_empty_label_file_is_an_image_without_objects(work):
    (work("yolo-siblings") / "labels" / "train" / "00.txt").write_text("")
    assert said("yolo:set") == ""


def test_lists_of_another_machine(work):
    file = work("yolo-lists") / "train.txt"
    file.write_text(file.read_text().replace("./", "/home/ann/set/"))
    assert "set/train.txt, line 1: there is no image" in said("yolo:set")
    assert "Write 'images/train_00.png', which is there." in said("yolo:set")


def corners(content):
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]


def swapped(content):
    for row in content["images"]:
        row["width"], row["height"] = row["height"], row["width"]


def shares(content):
    for row in content["annotations"]:
        row["bbox"] = [side / 64 for side in row["bbox"]]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (corners, "As corners x1, y1, x2, y2 it would fit; COCO wants left, top, width, height."),
        (swapped, "its annotations say 48 x 64. Width and height are swapped."),
        (shares, "no box reaches beyond 1 pixel: they seem to be shares of the sides; write pixels."),
        (lambda content: content.pop("categories"), "categories is missing or no list"),
        (lambda content: content["annotations"][0].update(category_id=0), "category_id is 0, and no category has that"),
        (lambda content: content["annotations"][0].update(image_id=99), "image_id is 99, and no image has that id"),
        (lambda content: content["images"][0].update(file_name="/home/ann/0.png"), "write it relative to"),
        (lambda content: content["images"][0].update(file_name="zz.png"), "zz.png: does not exist"),
        (lambda content: content.update(annotations=[]), "train: there is not one object in 16 images."),
    ],
)
def test_files_of_coco(work, change, answer):
    file = work("coco") / TRAIN
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    assert answer in said("coco:set")


@pytest.mark.parametrize(
    ("pattern", "new", "answer"),
    [
        (r"<xmax>\d+", "<xmax>1", "has no area; its width and height must be above 0"),
        (r"<xmin>\d+", "<xmin>left", "is not made of numbers"),
        (r"<bndbox>.*?</bndbox>", "", "its bndbox lacks xmin, ymin, xmax, ymax"),
        (r"<name>.*?</name>", "<name></name>", "An object needs a name"),
        (r"</annotation>", "", "train_00.xml: is not XML"),
        (r"<width>64", "<width>46", "leaves the image of 46 x 48 pixels"),
    ],
)
def test_pages_of_voc(work, pattern, new, answer):
    file = work("voc") / "Annotations" / "train_00.xml"
    file.write_text(re.sub(pattern, new, file.read_text()))
    told = said("voc:set")
    assert answer in told
    assert len(set(told.splitlines())) == len(told.splitlines()), "each once"


def test_a_class_that_is_mistyped_where_it_is_held_out(work):
    file = work("voc") / "Annotations" / "val_00.xml"
    file.write_text(re.sub(r"<name>.*?</name>", "<name>dics</name>", file.read_text()))
    assert "val_00.png: class 'dics': no image of train has an object of this class" in said("voc:set")


def test_training_refuses_what_check_names(work):
    file = work("yolo-folders") / "data.yaml"
    file.write_text(file.read_text().replace("../train", "/home/ann/set/train"))
    with pytest.raises(DataError, match="Write 'train/images', which is there"):
        load_dataset("yolo:set", "train")
