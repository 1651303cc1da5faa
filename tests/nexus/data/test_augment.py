"""Colour jitter and RandAugment against torchvision, arrays against PIL; random erasing's rules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PIL

from nexus.data import ImageError
from nexus.data import augment as ours
from nexus.data.augment import ColorJitter, RandAugment, RandomErasing, rand_augment_operation

CHANGES = {
    "adjust_brightness": [0.0, 0.4, 1.0, 1.7],
    "adjust_contrast": [0.0, 0.4, 1.0, 1.7],
    "adjust_saturation": [0.0, 0.4, 1.0, 1.7],
    "adjust_sharpness": [0.0, 0.4, 1.0, 1.7],
    "adjust_hue": [-0.5, -0.1, 0.0, 0.3],
    "posterize": [1, 4, 7, 8],
    "solarize": [0.0, 0.3, 0.9, 1.0],
    "autocontrast": [None],
    "equalize": [None],
}
CASES = [(name, value) for name, values in CHANGES.items() for value in values]


def apply(name, image, value):
    function = getattr(ours, name)
    return function(image) if value is None else function(image, value)


@pytest.fixture(scope="module")
def photo(needed):
    """A part of a cat's photograph, with a limited range so that autocontrast has something to do."""
    data = needed("skimage.data")
    return PIL.fromarray((data.cat()[50:170, 100:240] * 0.7 + 20).astype(np.uint8))


@pytest.mark.parametrize(("name", "value"), CASES)
def test_pil_equals_torchvision(torchvision, photo, name, value):
    function = getattr(torchvision.transforms.functional, name)
    arguments = () if value is None else (math.ceil(value * 255),) if name == "solarize" else (value,)
    expected = np.asarray(function(photo, *arguments), float)
    assert np.array_equal(np.asarray(apply(name, photo, value)), expected)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_arrays_equal_pil(photo, name, value):
    expected = np.asarray(apply(name, photo, value), float)
    array = np.asarray(photo)
    as_bytes = apply(name, array, value)
    # Pillow rounds grey, hue and saturation to 8 bits on the way.
    tolerance = 8 if name == "adjust_hue" else 2
    assert as_bytes.dtype == np.uint8
    assert np.abs(as_bytes - expected).max() <= tolerance
    floats = apply(name, array.astype(np.float32) / np.float32(255), value)
    assert floats.dtype == np.float32
    assert np.abs(np.clip(floats * 255, 0, 255) - expected).max() <= tolerance
    tensor = apply(name, torch.from_numpy(array.copy()).permute(2, 0, 1), value)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), as_bytes)


@pytest.mark.parametrize(("name", "value"), [case for case in CASES if case[0] != "adjust_hue"])
def test_other_numbers_of_channels(photo, name, value):
    array = np.asarray(photo)
    grey = apply(name, array[:, :, :1], value)
    assert (
        np.abs(grey[:, :, 0].astype(float) - np.asarray(apply(name, PIL.fromarray(array[:, :, 0]), value))).max() <= 2
    )
    eight = apply(name, np.concatenate([array] * 3, axis=2)[:, :, :8], value)
    assert eight.shape == (*array.shape[:2], 8)
    if name not in ("adjust_contrast", "adjust_saturation"):  # those look at all channels together
        assert np.array_equal(eight[:, :, :3], apply(name, array, value))
        assert np.array_equal(eight[:, :, 3:6], eight[:, :, :3])


def test_hue_needs_colour():
    with pytest.raises(
        ImageError, match="hue needs RGB and the image has 5 channels; set the hue of color_jitter to 0"
    ):
        ours.adjust_hue(np.zeros((4, 4, 5), np.uint8), 0.1)


def test_hue_turns_red_to_green_to_blue():
    red = np.array([[[200, 0, 0]]], np.uint8)
    assert ours.adjust_hue(red, 1 / 3).tolist() == [[[0, 200, 0]]]
    assert ours.adjust_hue(red, -1 / 3).tolist() == [[[0, 0, 200]]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**30), shift=st.floats(-0.5, 0.5))
def test_turning_the_hue_back_restores_the_colours(seed, shift):
    image = np.random.default_rng(seed).random((4, 5, 3)).astype(np.float32)
    back = ours.adjust_hue(ours.adjust_hue(image, shift), -shift)
    np.testing.assert_allclose(back, image, atol=1e-4)
    assert np.allclose(back.max(2), image.max(2), atol=1e-5)


def test_color_jitter_draws_from_its_ranges(photo):
    grey = PIL.new("L", (1, 1), 100)
    values = [ColorJitter(brightness=0.3)(grey, np.random.default_rng(i)).getpixel((0, 0)) for i in range(300)]
    assert 69 <= min(values) < 73
    assert 127 < max(values) <= 130
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    first, again, other = (np.asarray(jitter(photo, np.random.default_rng(i))) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert ColorJitter()(photo, np.random.default_rng(0)) is photo


GEOMETRIC = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]


def test_rand_augment_has_the_operations_of_the_paper():
    names = {"identity", "auto_contrast", "equalize", "solarize", "color", "posterize", "contrast", "brightness"}
    assert set(ours.RAND_AUGMENT_OPERATIONS) == names | {"sharpness", *GEOMETRIC}
    assert len(ours.RAND_AUGMENT_OPERATIONS) == 14


@pytest.mark.parametrize("name", ours.RAND_AUGMENT_OPERATIONS)
def test_magnitude_zero_changes_nothing_and_more_changes_more(photo, name):
    def change(magnitude):
        return np.abs(np.asarray(rand_augment_operation(photo, name, magnitude), float) - np.asarray(photo)).mean()

    if name in ("auto_contrast", "equalize"):
        assert change(0) == change(9) > 0
        return
    white = PIL.new("RGB", (5, 5), "white")
    assert rand_augment_operation(white, name, 0).tobytes() == white.tobytes()
    assert change(0) == 0
    assert change(9) > change(4) > 0 or name == "identity"
    if name not in ("identity", "posterize", "solarize"):
        forth, back = (np.asarray(rand_augment_operation(photo, name, sign * 9)) for sign in (1, -1))
        assert not np.array_equal(forth, back)


@pytest.mark.parametrize("name", ours.RAND_AUGMENT_OPERATIONS)
@pytest.mark.parametrize("magnitude", [-9, 4, 30])
def test_rand_augment_of_arrays_equals_pil(photo, name, magnitude):
    magnitude = abs(magnitude) if name in ("solarize", "posterize") else magnitude
    expected = np.asarray(rand_augment_operation(photo, name, magnitude), float)
    array = rand_augment_operation(np.asarray(photo), name, magnitude)
    assert array.shape == expected.shape
    assert np.abs(array - expected).max() <= 2


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_of_rand_augment_is_that_of_autoaugment(photo, name):
    """Table 6 at full strength: 0.3 of shear, 30 degrees, 150 of 331 pixels."""
    h, w = photo.height, photo.width
    x, y, matrix = (
        w / 2,
        h / 2,
        {
            "rotate": (np.sqrt(3) / 2, 0.5, 0, -0.5, np.sqrt(3) / 2, 0),
            "shear_x": (1, 0.3, 0, 0, 1, 0),
            "shear_y": (1, 0, 0, 0.3, 1, 0),
            "translate_x": (1, 0, 150 / 331 * w, 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, 150 / 331 * h),
        }[name],
    )
    if "translate" not in name:
        a, b, _, d, e, _ = matrix
        matrix = (a, b, x - a * x - b * y, d, e, y - d * x - e * y)
    expected = photo.transform(
        photo.size, PIL.Transform.AFFINE, matrix, PIL.Resampling.BILINEAR, fillcolor=(128, 128, 128)
    )
    difference = np.asarray(rand_augment_operation(photo, name, 10), float) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


def test_rand_augment_draws_every_operation_equally(monkeypatch):
    drawn = []
    monkeypatch.setattr(ours, "rand_augment_operation", lambda image, name, magnitude: drawn.append((name, magnitude)))
    RandAugment(layers=2800, magnitude=7)(None, np.random.default_rng(0))
    names, counts = np.unique([name for name, _ in drawn], return_counts=True)
    assert len(names) == 14
    assert 150 < counts.min() < counts.max() < 250
    signs = [magnitude for name, magnitude in drawn if name == "rotate"]
    assert set(signs) == {-7, 7}
    assert {magnitude for name, magnitude in drawn if name in ("solarize", "posterize")} == {7}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**30), h=st.integers(8, 60), w=st.integers(8, 60), channels=st.sampled_from([1, 3, 5]))
def test_erasing_fills_one_rectangle_of_the_right_size(seed, h, w, channels):
    image = np.full((h, w, channels), 255, np.uint8)
    erased = RandomErasing(1.0, area=(0.1, 0.3))(image, np.random.default_rng(seed))
    assert (image == 255).all()
    changed = (erased != 255).any(axis=2)
    if not changed.any():
        return
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert box <= 0.3 * h * w * 1.1 + h + w
    # A random byte is white once in 256, so nearly the whole box has changed.
    assert changed.sum() >= 0.7 * box


def test_erasing_takes_every_kind_and_its_probability(photo):
    erased = [RandomErasing(0.3)(photo, np.random.default_rng(i)) is not photo for i in range(300)]
    assert 60 < sum(erased) < 120
    tensor = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)
    as_array, as_tensor = (RandomErasing(1.0)(image, np.random.default_rng(3)) for image in (photo, tensor))
    assert np.array_equal(as_array, as_tensor.permute(1, 2, 0).numpy())
    floats = RandomErasing(1.0)(np.full((30, 30, 2), 5, np.float32), np.random.default_rng(3))
    filled = floats[floats != 5]
    assert 0 <= filled.min() < filled.max() < 1
