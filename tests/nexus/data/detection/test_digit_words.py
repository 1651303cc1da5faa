"""Digits whose classes are a colour and a digit."""

import numpy as np
import pytest

from nexus.data.datasets import load_dataset
from nexus.data.detection.digit_words import COLOURS, DIGITS, DigitWords, is_apart

APART = {colour * 10 + digit for colour in range(6) for digit in range(10) if is_apart(colour, digit)}


def labels_of(data):
    return {one.label for scene in data.annotations.scenes for one in scene.objects}


def test_colours_are_those_of_the_words(needed):
    needed("skimage")
    data = DigitWords("val", 12)
    assert data.class_names[27] == "blue seven"
    for sample in data:
        pixels = np.asarray(sample.image)
        for one in sample.scene.objects:
            inside = pixels[one.mask.decode().astype(bool)]
            colour = list(COLOURS.values())[one.label // len(DIGITS)]
            assert (np.abs(inside - np.array(colour)).max(axis=1) <= 1).mean() > 0.9
            assert one.mask.box == one.box


def test_pairs_are_held_apart(needed):
    needed("skimage")
    assert sorted(label % 10 for label in APART) == list(range(10)), "one pair of each digit"
    train, held = load_dataset("digit-words-apart:300"), load_dataset("digit-words-apart:300", "val")
    assert labels_of(train) == set(range(60)) - APART
    assert labels_of(held) == APART
    assert train.class_names == held.class_names == load_dataset("digit-words:1").class_names
    assert (len(train), len(held), held.path(3)) == (300, 100, "digit-words-apart/val[3]")


def test_all_pairs_are_in_the_whole_set(needed):
    needed("skimage")
    assert labels_of(load_dataset("digit-words")) == set(range(60))


def test_errors(needed):
    needed("skimage")
    with pytest.raises(ValueError, match="digit-words has no split 'test'; use 'train' or 'val'"):
        load_dataset("digit-words", "test")
    with pytest.raises(ValueError, match="'digit-words-apart:many' asks for 'many' items; write a number above 0"):
        load_dataset("digit-words-apart:many")
