"""What is kept of an image: written and read back, and every fault named."""

import numpy as np
import pytest

from nexus.app.annotate.marks import Mark, Marks, coco_runs, read_clicks, read_marks, runs_of
from nexus.data.detection.rle import encode
from nexus.tasks.clicks import Clicks

MARKS = Marks(
    4,
    5,
    (Mark(2, (3, 4, 13), Clicks(((1.5, 2.0, 1), (3.0, 3.0, 0)), (0.0, 0.0, 4.0, 3.0)), 1, (0, 1, 19), (19, 1)),),
    done=True,
    revision=7,
)


def test_marks_come_back():
    assert read_marks(MARKS.to_json(), "a.json") == MARKS
    plain = Marks(4, 5, (Mark(1, (0, 20)),))
    assert read_marks(plain.to_json(), "a.json") == plain
    assert set(plain.to_json()["objects"][0]) == {"class", "counts"}


def test_runs_are_those_of_the_mask_and_of_coco():
    rng = np.random.default_rng(0)
    for mask in (rng.random((7, 9)) > 0.5, np.ones((3, 4), bool), np.eye(5, dtype=bool), np.zeros((2, 2), bool)):
        counts = runs_of(mask)
        assert sum(counts) == mask.size
        assert all(count > 0 for count in counts[1:])
        assert coco_runs(counts, *mask.shape) == encode(mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "a.json: version is 2; 1 is read here"),
        ({"height": 0}, "a.json: height is 0; it is a whole number, at least 1"),
        ({"width": True}, "a.json: width is True; it is a whole number"),
        ({"done": 1}, "a.json: done is 1; it is true or false"),
        ({"revision": -1}, "a.json: revision is -1"),
        ({"objects": {}}, "a.json: objects must be a list of at most 2,000"),
        ({"objects": [[]]}, "a.json, object 0 is a list; it must be a mapping"),
        ({"title": "a"}, "a.json: the key 'title' is unknown; there are version,"),
    ],
)
def test_faults_of_a_document_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        read_marks(MARKS.to_json() | change, "a.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": 0}, "object 0: class is 0; it is a whole number, at least 1"),
        ({"counts": []}, "object 0: counts must be a list of whole numbers"),
        ({"counts": [1.0, 19]}, "object 0: counts must be a list of whole numbers"),
        ({"counts": [1, 18]}, "object 0: counts must be lengths of runs that fill the 20 pixels"),
        ({"counts": [1, 0, 19]}, "object 0: counts must be lengths of runs that fill"),
        ({"counts": [-1, 21]}, "object 0: counts must be lengths of runs that fill"),
        ({"counts": [10**30, 1]}, "object 0: counts must be lengths of runs that fill"),
        ({"counts": [20]}, "object 0: its mask covers no pixel"),
        ({"added": [1]}, "object 0: added must be lengths of runs"),
        ({"removed": "all"}, "object 0: removed must be a list"),
        ({"points": [[1, 2]]}, r"object 0: a point is \[1, 2\]; it is \[x, y, 1\] or \[x, y, 0\]"),
        ({"points": [[1, 2, 2]]}, r"object 0: a point is \[1, 2, 2\]"),
        ({"points": [[1, float("nan"), 1]]}, r"object 0: a point is \[1, nan, 1\]"),
        ({"points": [[1, 2, 1]] * 201}, "object 0: points must be a list of at most 200"),
        ({"box": [1, 2, 3]}, r"object 0: box is \[1, 2, 3\]; it is \[x1, y1, x2, y2\]"),
        ({"choice": -1}, "object 0: choice is -1"),
        ({"labels": []}, "object 0: the key 'labels' is unknown"),
    ],
)
def test_faults_of_an_object_are_named(change, message):
    content = MARKS.to_json()
    content["objects"][0] |= change
    with pytest.raises(ValueError, match=message):
        read_marks(content, "a.json")


def test_clicks_alone():
    assert read_clicks({}, "the request") == (Clicks(), 0)
    assert read_clicks({"box": [0, 1, 2, 3], "choice": 2}, "the request") == (Clicks((), (0, 1, 2, 3)), 2)
