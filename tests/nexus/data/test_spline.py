"""Resizing by a cubic spline is scikit-image's at order 3, and the levels of an image are stretched by its own."""

import numpy as np
import PIL.Image
import pytest
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.data.geometry import resize
from nexus.data.spline import resize_by_spline
from nexus.data.transforms import Normalize, eval_transform

SIZES = [
    ((12, 17), (64, 64)),
    ((90, 60), (20, 47)),
    ((5, 300), (64, 64)),
    ((2, 3), (7, 9)),
    ((1, 4), (5, 5)),
    ((1000, 33), (20, 20)),
    ((50, 2), (3, 64)),
    ((9, 9), (9, 9)),
]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_values_are_those_of_scikit_image(needed, before, after):
    image = np.random.default_rng(0).uniform(-300, 255, (*before, 3))
    wanted = needed("skimage.transform").resize(image, after, order=3, preserve_range=True, anti_aliasing=True)
    np.testing.assert_allclose(resize_by_spline(image, after), wanted, rtol=0, atol=1e-10)


def test_the_fraction_of_a_grey_level_is_dropped():
    levels = np.arange(40, dtype=np.uint8).reshape(5, 8, 1)
    exact = resize_by_spline(levels.astype(np.float64), (9, 9))
    assert np.array_equal(resize_by_spline(levels, (9, 9)), np.floor(exact).astype(np.uint8))
    assert (exact % 1 > 0.5).any()


def test_a_picture_an_array_and_a_tensor_are_resized_alike():
    image = np.random.default_rng(0).integers(0, 255, (11, 7, 3), dtype=np.uint8)
    wanted = resize_by_spline(image, (16, 20))
    assert np.array_equal(resize(PIL.Image.fromarray(image), (16, 20), "spline"), wanted)
    assert np.array_equal(resize(image, (16, 20), "spline"), wanted)
    as_tensor = resize(torch.from_numpy(image).permute(2, 0, 1), (16, 20), "spline")
    assert np.array_equal(as_tensor.permute(1, 2, 0).numpy(), wanted)
    part = resize(image, (16, 20), "spline", (1.0, 2.0, 6.0, 9.0))
    assert np.array_equal(part, resize_by_spline(image[2:9, 1:6], (16, 20)))
    floats = resize(image.astype(np.float32) / 255, (16, 20), "spline")
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, resize_by_spline(image / 255, (16, 20)), atol=1e-6)


def test_levels_of_an_image_are_its_own():
    images = np.random.default_rng(0).integers(40, 90, (2, 6, 5, 3), dtype=np.uint8)
    images[1] //= 2
    found = Normalize((0.0,) * 3, (1.0,) * 3, "image").batch(images)
    for one, image in zip(found, images):
        low, high = image.min(), image.max()
        wanted = (image.astype(np.float64) - low) / (high - low)
        assert torch.equal(one, torch.from_numpy(wanted.transpose(2, 0, 1)).float())
    half = Normalize((0.5,) * 3, (0.5,) * 3, "image").batch(images.astype(np.float32) * 7)
    torch.testing.assert_close(half, found * 2 - 1)
    assert not Normalize((0.0,), (1.0,), "image").batch(np.full((1, 4, 4, 1), 77, np.uint8)).any()


def test_the_words_of_a_preprocessing():
    fields = {"interpolation": "spline", "levels": "image", "resize": "squash", "image_size": [8, 8]}
    read = Preprocessing.from_mapping(fields)
    assert Preprocessing.from_mapping(read.to_dict()) == read
    assert "levels='image'" in repr(eval_transform(read))
    with pytest.raises(ValueError, match=r"levels is 'own'; it must be one of 'type', 'image'"):
        Preprocessing.from_mapping({"levels": "own"})
