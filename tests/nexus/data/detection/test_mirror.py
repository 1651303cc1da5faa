"""Which keypoint another becomes in a mirror."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nexus.data import DataError
from nexus.data.detection import Annotations, Object, Scene, convert, read_coco, read_yolo, write_coco, write_yolo
from nexus.data.detection.mirror import mirror_of, mirrored_names

PAIRS = [
    ("left_eye", "right_eye"),
    ("LeftEye", "RightEye"),
    ("LEFT-EYE", "RIGHT-EYE"),
    ("eye_left", "eye_right"),
    ("eyeLeft", "eyeRight"),
    ("lefteye", "righteye"),
    ("eyeleft", "eyeright"),
    ("l_eye", "r_eye"),
    ("L_Eye", "R_Eye"),
    ("LEye", "REye"),
    ("eye_l", "eye_r"),
    ("eye.L", "eye.R"),
    ("left eye", "right eye"),
    ("lEye", "rEye"),
    ("leye", "reye"),
    ("LShoulder", "RShoulder"),
    ("LAnkle", "RAnkle"),
    ("left ear tip 1", "right ear tip 1"),
    ("front_left_paw", "front_right_paw"),
    ("top-left", "top-right"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_spellings_of_pairs(pair):
    assert mirrored_names(("nose", *pair, "tail")) == (0, 2, 1, 3)


def test_names_that_only_look_sided():
    names = ("nose", "upper_lip", "bright_spot", "relay", "tail", "collar")
    assert mirrored_names(names) == tuple(range(6))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("point0", "point1"), "differs from others by its number"),
        (("1", "2", "3"), "differs from others by its number"),
        (("corner1", "corner2", "nose"), "differs from others by its number"),
        (("nose", "left_eye"), "no partner called 'right_eye'"),
        (("nose", "lefteye"), "no partner on the other side"),
        (("left_eye", "right_eye", "LEFT_EYE"), "no clear mirror image"),
    ],
)
def test_unknown_pairs_are_refused_with_a_remedy(names, words):
    with pytest.raises(DataError, match=f"{words}.*flip_idx.*augment.flip=0"):
        mirrored_names(names)


def body(tmp_path, names, mirror=()):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    points = np.array([[3.0, 4, 2], [9, 4, 1], [6, 8, 2]])
    one = Object(0, (1.0, 2, 12, 12), keypoints=points)
    skeleton = ((0, 2), (1, 2))
    scene = Scene(str(tmp_path / "a.png"), 24, 32, (one,))
    return Annotations((scene,), ("cat",), (1,), names, skeleton, mirror)


@pytest.mark.parametrize(("names", "mirror"), [(("l_eye", "r_eye", "nose"), ()), (("p1", "p2", "p3"), (1, 0, 2))])
def test_names_skeleton_and_pairs_go_around(tmp_path, names, mirror):
    given = body(tmp_path, names, mirror)
    yolo = read_yolo(write_yolo(given, tmp_path / "yolo"))
    assert "flip_idx:\n- 1\n- 0\n- 2\n" in (tmp_path / "yolo" / "data.yaml").read_text()
    coco = read_coco(write_coco(given, tmp_path / "a.json"))
    again = read_coco(convert(tmp_path / "yolo", tmp_path / "b.json", "coco"))
    for one in (yolo, coco, again):
        assert (one.keypoint_names, one.skeleton, mirror_of(one)) == (names, given.skeleton, (1, 0, 2))


def test_pairs_that_nobody_knows_are_not_written(tmp_path):
    given = replace(body(tmp_path, ("p1", "p2", "p3")), skeleton=())
    read = read_yolo(write_yolo(given, tmp_path / "yolo"))
    assert mirror_of(read) is None
    assert "flip_idx" not in (tmp_path / "yolo" / "data.yaml").read_text()
