"""Parts of real photos: where they come from, and that they are always the same."""

import numpy as np
import pytest

from nexus.data import load_dataset

pytestmark = pytest.mark.needs("skimage")


def test_samples_are_the_parts_that_their_paths_tell(needed):
    photos = load_dataset("photos", "train")
    sample = photos[1]
    name, _, place = sample.path.partition("[")
    (top, bottom), (left, right) = (map(int, span.split(":")) for span in place.rstrip("]").split(", "))
    assert name == photos.class_names[sample.label] == "coffee"
    assert np.array_equal(np.asarray(sample.image), needed("skimage.data").coffee()[top:bottom, left:right])
    assert 64 <= bottom - top == right - left <= 192


def test_parts_are_drawn_once_and_for_all():
    first, second = load_dataset("photos", "train"), load_dataset("photos", "train")
    assert [first.path(i) for i in range(8)] == [second.path(i) for i in range(8)]
    assert len({first.path(i) for i in range(len(first))}) > 2000
    assert first.path(-1) == first.path(2047)
    with pytest.raises(IndexError):
        first[2048]


def test_the_held_out_photo_is_never_trained_on():
    train, val = load_dataset("photos", "train"), load_dataset("photos", "val")
    assert (len(train), len(val)) == (2048, 256)
    assert not {*train.labels.tolist()} & {*val.labels.tolist()}
    assert train.class_names == val.class_names
    with pytest.raises(ValueError, match=r"The photos have no split 'test'; use 'train' or 'val'"):
        load_dataset("photos", "test")
