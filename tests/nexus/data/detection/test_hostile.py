"""Annotation files that want too much: each ends in one line that names it, and soon."""

import json
import os
import resource
import time

import numpy as np
import pytest
from PIL import Image

from nexus.data import DataError
from nexus.data.detection import check_annotations, read_coco, read_yolo
from nexus.data.detection.rle import from_polygons, read_counts

SECONDS = 2.0
MEGABYTES = 500


@pytest.fixture(autouse=True)
def _bounded():
    """Every case here stays within the processor's time and the memory that are promised."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def coco(tmp_path, size=(20, 30), **changes):
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 6], **changes}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row],
    }
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


def only_fault(path):
    _, faults = check_annotations(path)
    assert len(faults) == 1, faults
    assert "\n" not in str(faults[0])
    return str(faults[0])


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([HUGE, HUGE, HUGE, HUGE, 600], "counts add up to"),
        ([10**30, 1], "counts add up to"),
        ([-(10**30), 600 + 10**30], "cannot be below 0"),
        ("o" * 400_000, "counts are longer than any image"),
        ("oooooooo0", "counts add up to|cannot be below 0"),
        ([True, 599], "whole numbers"),
    ],
)
def test_runs_are_bounded_by_the_image(tmp_path, counts, words):
    import re

    assert re.search(words, only_fault(coco(tmp_path, segmentation={"size": [20, 30], "counts": counts})))


def test_long_texts_of_runs_are_read_in_one_pass():
    assert len(read_counts("11" * 200_000)) == 400_000


def test_images_larger_than_any_are_a_fault_before_a_mask_is_drawn(tmp_path):
    ring = [0, 0, 10**6, 0, 10**6, 10**6]
    assert "are not read" in only_fault(coco(tmp_path, (10**6, 10**6), segmentation=[ring]))


def test_outlines_are_bounded(tmp_path):
    zigzag = [value for place in range(200) for value in (60_000 * (place % 2), place % 20)]
    file = coco(tmp_path, (20, 60_000), segmentation=[zigzag])
    _, faults = check_annotations(file, images=False)
    assert "Simplify it" in str(faults[0])


def test_unions_of_outlines_need_no_pixels():
    rings = [np.array([[x, 0.0], [x + 9.0, 0], [x + 9.0, 9.0]]) for x in range(0, 9000, 5)]
    assert from_polygons(rings, 9000, 9000).area > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"area": float("nan")}, "area is nan"),
        ({"area": 10**400}, "area is 1000"),
        ({"bbox": [1e308, 1, 1e308, 1]}, "finite|leaves|four numbers"),
        ({"bbox": [10**400, 1, 2, 3]}, "four numbers"),
        ({"image_id": 1 << 70}, "no image has that id"),
        ({"category_id": [1]}, "no category has that id"),
        ({"iscrowd": "yes"}, "must be 0 or 1"),
        ({"segmentation": {"size": 3, "counts": 4}}, "segmentation.size"),
        ({"segmentation": [{"x": 1}]}, "list of numbers"),
        ({"keypoints": [[1, 2, 2]]}, "x, y, v"),
    ],
)
def test_odd_values_are_faults(tmp_path, changes, words):
    import re

    assert re.search(words, only_fault(coco(tmp_path, **changes)))


@pytest.mark.parametrize("name", ["/etc/passwd", "../../outside.png", "a/../../b.png", "C:\\x.png", "a\0.png"])
def test_files_outside_of_the_data_set_are_refused(tmp_path, name):
    file = coco(tmp_path)
    file.write_text(file.read_text().replace('"a.png"', json.dumps(name)))
    assert "leads outside of" in only_fault(file) or "no name of a file" in only_fault(file)


YAML_FAULTS = [
    ("names: [a]\nkpt_shape: [1000000000, 3]\n", "kpt_shape is"),
    ("names: [a]\nkpt_shape: [!!python/object:x 1, 3]\n", "asks for an object"),
    ("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a]\n" for i in range(3)) + "names: &n [*n]\n", "alias"),
    ("names: " + "[" * 5000 + "]" * 5000, "nest"),
    ("names: !!timestamp 2001-01-01\n", "tag|names is"),
    ("? [a, b]\n: c\nnames: [a]\n", "must be"),
    ("names: [a]\nnames: [b]\n", "occurs twice"),
    ("names: {0: a, 00: b}\n", "number them"),
    ("names: [a, {b: c}]\n", "no name"),
    ("names: ['a\x1b[31m']\n", "not YAML|can be printed"),
    ("names: [a]\nkpt_shape: [2, 3]\nflip_idx: [1, 1]\n", "flip_idx"),
    ("names: [a]\ntrain: /\n", "no such folder or list"),
    ("names: [a]\ntrain: {a: b}\n", "train must name a folder"),
]


@pytest.mark.parametrize(("text", "words"), YAML_FAULTS)
def test_settings_of_yolo(tmp_path, text, words):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_yolo(tmp_path)
    assert str(tmp_path / "data.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi")
)
VOC_TEXTS = [
    (BOMB + "]><annotation>&i;</annotation>", "utf-8", "DOCTYPE"),
    (BOMB + "]><annotation>&i;</annotation>", "utf-16", "DOCTYPE"),
    ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "utf-16", "DOCTYPE"),
    ("<a>" * 1000 + "</a>" * 1000, "utf-8", "nested deeper"),
    ('<?xml version="1.0" encoding="nothing"?><annotation/>', "utf-8", "not XML"),
]


@pytest.mark.parametrize(("text", "encoding", "words"), VOC_TEXTS)
def test_pages_of_voc(tmp_path, text, encoding, words):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(text, encoding=encoding)
    assert words in only_fault(tmp_path)


def page(tmp_path, inner):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / "a.png")
    head = "<filename>a.png</filename><size><width>30</width><height>20</height></size>"
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation>{head}<object><name>cat</name>{box}{inner}</object></annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<polygon>1 1 1e9 1 1e9 1e9</polygon>", "outside of the image"),
        ("<polygon><x1>1</x1><y1>2</y1><x2>1</x2><y3>1</y3></polygon>", "in this order"),
        ("<area>nan</area>", "not a finite number"),
        ("<area>inf</area>", "not a finite number"),
        ("<rle>" + "o" * 100_000 + "</rle>", "longer than any image"),
        ("<keypoints>1 2 3</keypoints>", "its keypoints are 3 numbers"),
    ],
)
def test_values_of_voc(tmp_path, inner, words):
    assert words in only_fault(page(tmp_path, inner))


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="not a file"):
        read_coco(tmp_path / "pipe.json")
    root = page(tmp_path, "")
    os.mkfifo(root / "Annotations" / "b.xml")
    _, faults = check_annotations(root)
    assert ["b.xml: is not a file" in str(fault) for fault in faults] == [True]


def test_names_that_are_not_utf8_are_files_like_others(tmp_path):
    (tmp_path / "images").mkdir()
    odd = os.fsencode(tmp_path / "images") + b"/\xff.png"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", odd)
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    assert len(read_yolo(tmp_path).scenes) == 1
