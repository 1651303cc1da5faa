"""The digits: real images, split once and for all."""

import hashlib
import sys

import numpy as np
import pytest

from nexus.data import load_dataset
from nexus.data.datasets.digits import stratified_split

pytestmark = pytest.mark.needs("sklearn")


def test_split_is_fixed_and_stratified():
    from sklearn.datasets import load_digits

    train, val = load_dataset("digits", "train"), load_dataset("digits", "val")
    assert (len(train), len(val)) == (1437, 360)
    paths = [sample.path for data in (train, val) for sample in (data[i] for i in range(len(data)))]
    assert len(set(paths)) == 1797
    held_out = ",".join(val[i].path for i in range(len(val)))
    assert hashlib.sha256(held_out.encode()).hexdigest()[:16] == "5496554eec3882eb"
    share = np.bincount(val.labels, minlength=10) / np.bincount(load_digits().target, minlength=10)
    assert np.abs(share - 360 / 1797).max() < 0.005


def test_samples_are_the_images_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch, data = load_digits(), load_dataset("digits", "val")
    for i in (0, 100, 359):
        sample = data[i]
        place = int(sample.path.removeprefix("digits[").removesuffix("]"))
        assert sample.label == bunch.target[place] == data.labels[i]
        assert sample.image.mode == "L"
        np.testing.assert_allclose(
            np.asarray(sample.image) * (16 / 255), bunch.images[place], atol=0.5 * 16 / 255 + 1e-9
        )
    assert data.class_names[3] == "3"
    assert data.in_channels == 1


def test_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no split 'test'; use 'train' or 'val'"):
        load_dataset("digits", "test")


def test_unknown_source_names_the_nearest():
    with pytest.raises(ValueError, match=r"no data set 'digit'\. Did you mean 'digits'\?"):
        load_dataset("digit")


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_dataset("digits")


def test_stratified_split_gives_odd_seats_to_the_largest_remainders():
    labels = np.array([0] * 7 + [1] * 2 + [2] * 1)
    kept, held_out = stratified_split(labels, 3, seed=0)
    assert np.bincount(labels[held_out], minlength=3).tolist() == [2, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(10))
