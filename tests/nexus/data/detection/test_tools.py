"""Files as annotation tools describe them: read, checked, converted, and refused by name where nothing exact fits."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from nexus.data import DataError, load_dataset
from nexus.data.check import check_source
from nexus.data.detection import check_annotations, convert, read_coco
from nexus.data.detection.check import read_annotations


def photo(path, size=(40, 30), colour=(90, 80, 70)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def objects(source):
    annotations, faults = check_annotations(source)
    assert faults == [], [str(fault) for fault in faults]
    return [(annotations.class_names[one.label], one) for scene in annotations.scenes for one in scene.objects]


def only_fault(source):
    _, faults = check_annotations(source)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return str(faults[0])


# LabelMe


def labelme(path, *shapes, image="a.png", **more):
    head = {"version": "5.4.1", "flags": {}, "imagePath": image, "imageData": None, "imageHeight": 30, "imageWidth": 40}
    return put(path, {**head, "shapes": list(shapes), **more})


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def test_labelme(tmp_path):
    photo(tmp_path / "a.png")
    drawn = np.zeros((4, 5), np.uint8)
    drawn[1:3, 1:4] = 255
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    labelme(
        tmp_path / "a.json",
        shape("cat", [[20, 25], [5, 5]], "rectangle"),
        shape("dog", [[1, 1], [9, 1], [9, 9]]),
        shape("sun", [[20, 15], [24, 15]], "circle"),
        shape("ink", [[10, 20], [14, 23]], "mask", mask=base64.b64encode(buffer.getvalue()).decode()),
        shape("sea", [[0, 20], [4, 20], [4, 24]], group_id=1),
        shape("sea", [[30, 20], [34, 20], [34, 24]], group_id=1),
    )
    found = dict(objects(tmp_path))
    assert found["cat"].box == (5, 5, 20, 25)
    assert found["dog"].box == (1, 1, 9, 9)
    assert found["sun"].box == (16, 11, 24, 19)
    assert abs(found["sun"].mask.area - np.pi * 16) < 4
    np.testing.assert_array_equal(found["ink"].mask.decode()[20:24, 10:15], drawn > 0)
    assert found["sea"].box == (0, 20, 34, 24)
    assert len(found["sea"].mask.rings) == 2


def test_labelme_in_folders_of_splits_and_from_windows(tmp_path):
    for split, name in (("train", "cat"), ("val", "dog")):
        photo(tmp_path / split / "images" / f"{split}.png")
        file = tmp_path / split / "json" / f"{split}.json"
        labelme(file, shape(name, [[1, 1], [9, 9]], "rectangle"), image=f"..\\images\\{split}.png")
    data = [load_dataset(f"labelme:{tmp_path}", split) for split in ("train", "val")]
    assert [one.class_names for one in data] == [("cat", "dog")] * 2
    assert [one.labels.tolist() for one in data] == [[0], [1]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (shape("a", [[1, 1], [2, 2]], "line"), "a line of 2 points is not read"),
        (shape("a", [[1, 1]], "point"), "a point of 1 points is not read"),
        (shape("a", [[1, 1], [99, 1], [9, 9]]), "outside of the image"),
        (shape("a", "x"), "they must be a list of pairs"),
        (shape("", [[1, 1], [9, 9]], "rectangle"), "a class needs a name"),
        (shape("a", [[1, 1], [9, 9]], "mask", mask="?"), "no image in base64"),
    ],
)
def test_what_labelme_cannot_be(tmp_path, given, words):
    photo(tmp_path / "a.png")
    labelme(tmp_path / "a.json", given)
    assert words in only_fault(f"labelme:{tmp_path}")


# CVAT

META = "<version>1.1</version><meta><task><labels><label><name>cat</name></label></labels></task></meta>"


def cvat(path, inner):
    return put(path, f'<?xml version="1.0" encoding="utf-8"?><annotations>{META}{inner}</annotations>')


def test_cvat_for_images(tmp_path):
    photo(tmp_path / "images" / "a.png")
    cvat(
        tmp_path / "annotations.xml",
        """<image id="0" name="a.png" width="40" height="30">
        <box label="cat" source="manual" occluded="0" xtl="1.5" ytl="2" xbr="11.5" ybr="12" z_order="0"/>
        <box label="turned" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90.0"/>
        <polygon label="dog" points="1.0,1.0;9.0,1.0;9.0,9.0"/>
        <ellipse label="sun" cx="20" cy="15" rx="8" ry="4"/>
        <mask label="ink" rle="5, 3, 4" left="3" top="2" width="4" height="3"/>
        <tag label="outdoor"/></image>""",
    )
    found = dict(objects(tmp_path))
    assert found["cat"].box == (1.5, 2, 11.5, 12)
    np.testing.assert_allclose(found["turned"].box, (13, 7, 17, 17))
    assert found["dog"].mask.rings[0].shape == (3, 2)
    assert found["sun"].box == (12, 11, 28, 19)
    ink = np.zeros((30, 40), bool)
    ink[3, 4:7] = True
    np.testing.assert_array_equal(found["ink"].mask.decode(), ink)


def test_cvat_for_video(tmp_path):
    for frame in range(6):
        photo(tmp_path / "images" / f"frame_{frame:06d}.PNG")
    rows = [(0, 0, 0), (4, 0, 8), (5, 1, 8)]
    boxes = "".join(
        f'<box frame="{frame}" outside="{out}" occluded="0" keyframe="1" xtl="{x}" ytl="1" xbr="{x + 9}" ybr="9"/>'
        for frame, out, x in rows
    )
    cvat(tmp_path / "annotations.xml", f'<track id="0" label="cat">{boxes}</track>')
    found = objects(f"cvat:{tmp_path}")
    assert [one.box for _, one in found] == [(x, 1, x + 9, 9) for x in (0, 2, 4, 6, 8)]


def test_subsets_of_cvat_are_splits(tmp_path):
    images = ""
    for place, subset in enumerate(("Train", "Train", "Validation")):
        photo(tmp_path / "images" / subset / f"{place}.png")
        images += f'<image id="{place}" name="{subset}/{place}.png" subset="{subset}" width="40" height="30">'
        images += '<box label="cat" xtl="1" ytl="2" xbr="11" ybr="12"/></image>'
    cvat(tmp_path / "annotations.xml", images)
    assert [len(load_dataset(f"cvat:{tmp_path}", split)) for split in ("train", "val")] == [2, 1]


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ('<polyline label="a" points="1,1;2,2"/>', "a polyline is not read"),
        ('<skeleton label="a"/>', "a skeleton is not read"),
        ('<cuboid label="a"/>', "a cuboid is not read"),
        ('<box label="a" xtl="1" ytl="nan" xbr="2" ybr="3"/>', "not a finite number"),
        ('<mask label="a" rle="999999999999" left="1" top="1" width="2" height="2"/>', "runs add up to"),
    ],
)
def test_what_cvat_cannot_be(tmp_path, inner, words):
    photo(tmp_path / "a.png")
    cvat(tmp_path / "annotations.xml", f'<image id="0" name="a.png" width="40" height="30">{inner}</image>')
    assert words in only_fault(f"cvat:{tmp_path}")


# Label Studio


def studio(path, *results, image="/data/upload/1/0123abcd-a.png", **more):
    rows = [{"original_width": 40, "original_height": 30, "image_rotation": 0, **one} for one in results]
    return put(
        path, [{"id": 1, "data": {"image": image}, "annotations": [{"result": rows, "was_cancelled": False}], **more}]
    )


def test_label_studio(tmp_path):
    photo(tmp_path / "images" / "a.png")
    value = {"x": 25, "y": 20, "width": 50, "height": 10, "rotation": 0, "rectanglelabels": ["cat"]}
    studio(
        tmp_path / "project.json",
        {"type": "rectanglelabels", "value": value},
        {"type": "rectanglelabels", "value": {**value, "rotation": 90, "width": 10, "rectanglelabels": ["turned"]}},
        {"type": "polygonlabels", "value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}},
        {"type": "choices", "value": {"choices": ["outdoor"]}},
    )
    found = dict(objects(tmp_path))
    assert found["cat"].box == (10, 6, 30, 9)
    np.testing.assert_allclose(found["turned"].box, (7, 6, 10, 10), atol=1e-9)
    assert found["dog"].box == (0, 0, 20, 15)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("brushlabels", {"format": "rle", "rle": [1], "brushlabels": ["a"]}, "'brushlabels' is not read"),
        (
            "ellipselabels",
            {"x": 1, "y": 1, "radiusX": 1, "radiusY": 1, "ellipselabels": ["a"]},
            "'ellipselabels' is not",
        ),
        (
            "rectanglelabels",
            {"x": 1, "y": 1, "width": 1, "height": 1, "rectanglelabels": ["a", "b"]},
            "there must be one",
        ),
        ("rectanglelabels", {"x": 1, "y": 1, "width": "1", "height": 1, "rectanglelabels": ["a"]}, "are no numbers"),
    ],
)
def test_what_label_studio_cannot_be(tmp_path, kind, value, words):
    photo(tmp_path / "a.png")
    studio(tmp_path / "project.json", {"type": kind, "value": value})
    assert words in only_fault(f"label-studio:{tmp_path}")


# VIA

RECT = {"name": "rect", "x": 5, "y": 6, "width": 10, "height": 8}
POLYGON = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}
CIRCLE = {"name": "circle", "cx": 20, "cy": 15, "r": 4}


def test_via_in_its_three_forms(tmp_path):
    regions = [
        {"shape_attributes": RECT, "region_attributes": {"name": "cat"}},
        {"shape_attributes": POLYGON, "region_attributes": {"kind": "dog"}},
        {"shape_attributes": CIRCLE, "region_attributes": {"type": {"sun": True, "moon": False}}},
    ]
    entry = {"filename": "a.png", "size": 99, "file_attributes": {}}
    for name in ("two", "one", "table"):
        photo(tmp_path / name / "a.png")
    put(
        tmp_path / "two" / "p.json",
        {"_via_settings": {}, "_via_img_metadata": {"a.png99": {**entry, "regions": regions}}},
    )
    numbered = {str(place): region for place, region in enumerate(regions)}
    put(tmp_path / "one" / "p.json", {"a.png99": {"fileref": "", **entry, "regions": numbered}})
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for place, region in enumerate(regions):
        cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
        lines.append(f'a.png,99,{{}},3,{place},"{cells[0]}","{cells[1]}"')
    put(tmp_path / "table" / "p.csv", "\n".join(lines) + "\n")
    for name in ("two", "one", "table"):
        found = dict(objects(tmp_path / name))
        assert found["cat"].box == (5, 6, 15, 14)
        assert found["dog"].box == (1, 1, 9, 9)
        assert found["sun"].box == (16, 11, 24, 19)


@pytest.mark.parametrize(
    ("region", "attributes", "words"),
    [
        ({"name": "polyline"}, {"name": "a"}, "a shape 'polyline' is not read"),
        (RECT, {"colour": "red", "age": "3"}, "its attributes are colour, age; one must say the class"),
        (RECT, {}, "its attributes are none"),
        ({**CIRCLE, "name": "ellipse", "rx": 3, "ry": 2, "theta": 0.5}, {"name": "a"}, "a turned ellipse"),
    ],
)
def test_what_via_cannot_be(tmp_path, region, attributes, words):
    photo(tmp_path / "a.png")
    rows = [{"shape_attributes": region, "region_attributes": attributes}]
    put(tmp_path / "p.json", {"_via_img_metadata": {"a": {"filename": "a.png", "size": 1, "regions": rows}}})
    assert words in only_fault(f"via:{tmp_path}")


@pytest.mark.parametrize("regions", [3, "text", True])
def test_regions_of_via_are_a_list(tmp_path, regions):
    photo(tmp_path / "a.png")
    put(tmp_path / "p.json", {"_via_img_metadata": {"a": {"filename": "a.png", "size": 1, "regions": regions}}})
    assert "its regions are a" in only_fault(f"via:{tmp_path}")


# Tables


def test_open_images(tmp_path):
    photo(tmp_path / "train" / "0001eeaf4aed83f9.jpg")
    put(tmp_path / "class-descriptions-boxable.csv", "/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    rows = (
        "0001eeaf4aed83f9,x,/m/01yrx,1,0.25,0.75,0.5,1.0,0,0,0,0,0\n0001eeaf4aed83f9,x,/m/0bt9lr,1,0,1,0,1,0,0,1,0,0\n"
    )
    put(tmp_path / "train-annotations-bbox.csv", head + rows)
    found = dict(objects(f"open-images:{tmp_path}"))
    assert (found["Cat"].box, found["Cat"].crowd) == ((10, 15, 30, 30), False)
    assert found["Dog"].crowd
    assert len(load_dataset(f"open-images:{tmp_path}", "train")) == 1


def test_kaggles_boxes(tmp_path):
    photo(tmp_path / "wheat" / "train" / "b6ab77fd7.jpg")
    put(
        tmp_path / "wheat" / "train.csv",
        'image_id,width,height,bbox,source\nb6ab77fd7,40,30,"[5.0, 6.0, 10.0, 8.0]",u\n',
    )
    assert [(name, one.box) for name, one in objects(f"kaggle:{tmp_path / 'wheat'}")] == [("object", (5, 6, 15, 14))]
    photo(tmp_path / "raccoon" / "images" / "r.jpg")
    put(
        tmp_path / "raccoon" / "l.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\nr.jpg,40,30,raccoon,1,2,11,12\n",
    )
    assert [(name, one.box) for name, one in objects(tmp_path / "raccoon")] == [("raccoon", (1, 2, 11, 12))]


def test_kaggles_masks(tmp_path):
    photo(tmp_path / "train_images" / "a.png", (4, 3))
    photo(tmp_path / "train_images" / "b.png", (4, 3))
    put(tmp_path / "train.csv", "ImageId,EncodedPixels,ClassId\na.png,2 2 4 1 11 2,3\nb.png,,1\n")
    annotations = read_annotations(f"kaggle:{tmp_path}")
    mask = annotations.scenes[0].objects[0].mask.decode()
    np.testing.assert_array_equal(np.flatnonzero(mask.T.reshape(-1)), [1, 2, 3, 10, 11])
    assert [len(scene.objects) for scene in annotations.scenes] == [1, 0]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ("0 5", "do not count from 1"),
        ("1 3 2 1", "overlap"),
        ("5 999999999999", "the image has 12"),
        ("1", "not pairs"),
        ("1 x", "not pairs"),
    ],
)
def test_what_runs_cannot_be(tmp_path, runs, words):
    photo(tmp_path / "a.png", (4, 3))
    put(tmp_path / "m.csv", f"ImageId,EncodedPixels\na.png,{runs}\n")
    assert words in only_fault(f"kaggle:{tmp_path}")


# All of them


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
def test_tools_are_converted_and_trained_on(tmp_path, to):
    for place in range(4):
        photo(tmp_path / "set" / f"{place}.png", colour=(place, 80, 70))
        labelme(tmp_path / "set" / f"{place}.json", shape("cat", [[1, 1], [9, 1], [9, 9]]), image=f"{place}.png")
    convert(tmp_path / "set", tmp_path / "new", to)
    assert check_source(f"{to}:{tmp_path / 'new'}").faults == []
    sizes = [len(load_dataset(f"{to}:{tmp_path / 'new'}", split)) for split in ("train", "val")]
    assert sum(sizes) == 4
    assert min(sizes) > 0
    convert(tmp_path / "set", tmp_path / "one.json", "coco")
    assert len(read_coco(tmp_path / "one.json").scenes) == 4


@pytest.mark.parametrize("kind", ["labelme", "cvat", "label-studio", "via", "open-images", "kaggle"])
def test_folders_without_such_files_and_images_that_are_gone(tmp_path, kind):
    with pytest.raises(DataError, match=r"holds no .*; name its file"):
        load_dataset(f"{kind}:{tmp_path}", "train")


def test_images_outside_are_refused(tmp_path):
    photo(tmp_path / "secret.png")
    labelme(tmp_path / "set" / "a.json", shape("a", [[1, 1], [9, 9]], "rectangle"), image="../secret.png")
    assert "leads outside of" in only_fault(f"labelme:{tmp_path / 'set'}")
