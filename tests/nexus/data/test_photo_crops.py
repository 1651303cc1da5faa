"""The small classification problem of photo parts: what may be learned from is not what is measured on."""

import re

import numpy as np
import pytest

from nexus.data import load_dataset
from nexus.data.datasets.photos import read_photo

pytestmark = pytest.mark.needs("skimage")


@pytest.mark.parametrize(("split", "side"), [("train", "left"), ("val", "right")])
def test_parts_lie_in_their_half_of_the_photo(split, side):
    crops = load_dataset("photo-crops", split)
    assert len(crops) == 10 * len(crops.class_names) == 80
    assert np.bincount(crops.labels).tolist() == [10] * 8
    for index in range(len(crops)):
        sample = crops[index]
        name, *edges = re.fullmatch(r"(\w+)\[(\d+):(\d+), (\d+):(\d+)\]", sample.path).groups()
        top, bottom, left, right = map(int, edges)
        photo, half = read_photo(name), read_photo(name).shape[1] // 2
        assert (right <= half) if side == "left" else (left >= half)
        assert name == crops.class_names[sample.label]
        part = photo[top:bottom, left:right]
        np.testing.assert_array_equal(np.asarray(sample.image)[..., 0], part if part.ndim == 2 else part[..., 0])


def test_parts_are_drawn_once_and_for_all():
    first, second = load_dataset("photo-crops"), load_dataset("photo-crops")
    assert [first[i].path for i in range(80)] == [second[i].path for i in range(80)]
    assert first[-1].path == first[79].path
    with pytest.raises(IndexError):
        first[80]
    with pytest.raises(ValueError, match=r"The photo crops have no split 'test'; use 'train' or 'val'"):
        load_dataset("photo-crops", "test")
