"""Preprocessing against torchvision and transformers on a real photograph, and the rules of the random transforms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PIL

from nexus.core.preprocessing import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from nexus.data import AugmentConfig, ImageError, eval_transform, load_image, train_transform
from nexus.data.geometry import (
    CentreCrop,
    PadCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotate,
    Resize,
    ResizeShorter,
    affine,
    around_centre,
    crop,
    flip,
    resize,
)
from nexus.data.transforms import Normalize

MODES = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def photo(needed):
    """A cat, 300 x 451 pixels."""
    data = needed("skimage.data")
    return PIL.fromarray(data.cat())


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(
    ("size", "resize_size"), [((224, 224), 256), ((224, 224), None), ((97, 130), 131), ((64, 96), 50)]
)
def test_eval_equals_torchvision_v1_and_v2(torchvision, photo, interpolation, size, resize_size):
    from torchvision.transforms import InterpolationMode, v2

    mode = InterpolationMode[MODES[interpolation]]
    preprocessing = Preprocessing(image_size=size, resize_size=resize_size, interpolation=interpolation)
    ours = eval_transform(preprocessing)(photo)
    for library in (torchvision.transforms, v2):
        to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        if library is torchvision.transforms:
            to_tensor = [library.ToTensor()]
        theirs = library.Compose(
            [
                library.Resize(resize_size or min(size), interpolation=mode),
                library.CenterCrop(size),
                *to_tensor,
                library.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )(photo)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_eval_equals_timm(timm, photo):
    from timm.data import create_transform

    theirs = create_transform((3, 224, 224), interpolation="bicubic", mean=HALF, std=HALF, crop_pct=0.9)
    ours = eval_transform(Preprocessing(resize_size=math.floor(224 / 0.9), mean=HALF, std=HALF))
    torch.testing.assert_close(ours(photo), theirs(photo), rtol=0, atol=1e-6)


def test_eval_equals_the_processors_of_transformers(transformers, photo):
    vit = transformers.ViTImageProcessorPil()
    ours = eval_transform(Preprocessing(resize="squash", interpolation="bilinear", mean=HALF, std=HALF))
    theirs = vit(photo, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours(photo), theirs, rtol=0, atol=1e-6)

    clip = transformers.CLIPImageProcessorPil()
    ours = eval_transform(Preprocessing(mean=CLIP_MEAN, std=CLIP_STD))
    theirs = clip(photo, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours(photo), theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resize_mode", ["shorter", "squash"])
def test_arrays_and_tensors_get_the_numbers_of_pil(photo, resize_mode):
    transform = eval_transform(Preprocessing(image_size=(60, 50), resize=resize_mode))
    expected, array = transform(photo), np.asarray(photo)
    assert torch.equal(transform(array), expected)
    assert torch.equal(transform(torch.from_numpy(array.copy()).permute(2, 0, 1)), expected)
    # Floats are not rounded between the steps: at most one level of 255 apart, with std 0.22.
    floats = transform(array.astype(np.float32) / 255)
    torch.testing.assert_close(floats, expected, rtol=0, atol=1 / 255 / 0.22)


def test_eight_channels_are_each_treated_as_one(photo):
    eight = np.concatenate([np.asarray(photo)] * 3, axis=2)[:, :, :8]
    mean, std = (*IMAGENET_MEAN, *IMAGENET_MEAN, 0.485, 0.456), (*IMAGENET_STD, *IMAGENET_STD, 0.229, 0.224)
    ours = eval_transform(Preprocessing(image_size=(60, 50), mean=mean, std=std))(eight)
    rgb = eval_transform(Preprocessing(image_size=(60, 50)))(photo)
    assert torch.equal(ours, torch.cat([rgb, rgb, rgb[:2]]))


def test_random_training_takes_any_number_of_channels():
    augment = AugmentConfig(
        crop_scale=(0.3, 1), pad_crop=2, rotate=9, flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0), rand_augment=3, erase=1
    )
    for channels in (1, 2, 3, 5, 8):
        transform = train_transform(
            Preprocessing(image_size=(20, 24), mean=(0.5,) * channels, std=(0.25,) * channels), augment
        )
        for dtype in (np.uint8, np.float32):
            image = generator(1).integers(256, size=(40, 33, channels)).astype(np.uint8)
            image = image if dtype is np.uint8 else image.astype(np.float32) / np.float32(255)
            first, second = (transform(image, generator(5)) for _ in range(2))
            assert first.shape == (channels, 20, 24)
            assert torch.isfinite(first).all()
            assert torch.equal(first, second)
            assert not torch.equal(first, transform(image, generator(6)))


def test_grey_files_and_colour_files_feed_one_model(photo):
    rgb, grey = Preprocessing(image_size=(32, 32)), Preprocessing(image_size=(32, 32), mean=(0.5,), std=(0.5,))
    assert eval_transform(rgb)(photo.convert("L")).shape == (3, 32, 32)
    ours = eval_transform(grey)(np.asarray(photo))
    torch.testing.assert_close(ours, eval_transform(grey)(photo), rtol=0, atol=2 / 255 / 0.5)


def test_other_channel_counts_are_refused_with_the_remedy():
    with pytest.raises(ImageError, match=r"has 8 channels and the model takes 3; create the model with in_channels=8"):
        eval_transform(Preprocessing())(np.zeros((30, 30, 8), np.uint8))


def test_resize_none_refuses_other_sizes():
    with pytest.raises(ImageError, match=r"30 x 31 pixels \(height x width\) .* exactly 32 x 32"):
        eval_transform(Preprocessing(image_size=(32, 32), resize="none"))(np.zeros((30, 31, 3), np.uint8))


def test_random_resized_crop_equals_torchvision_for_the_same_box(torchvision, photo):
    crop_224 = RandomResizedCrop((64, 64))
    left, top, right, bottom = crop_224.draw((photo.height, photo.width), generator(3))
    theirs = torchvision.transforms.functional.resized_crop(
        photo, top, left, bottom - top, right - left, (64, 64), torchvision.transforms.InterpolationMode.BICUBIC
    )
    difference = np.asarray(crop_224(photo, generator(3)), float) - np.asarray(theirs, float)
    # At the border of the box Pillow looks at pixels beyond it, which a crop first would have removed.
    assert np.abs(difference[2:-2, 2:-2]).max() <= 1
    assert np.abs(difference).mean() < 0.5


@settings(max_examples=60, deadline=None)
@given(h=st.integers(1, 400), w=st.integers(1, 400), seed=st.integers(0, 2**20), low=st.floats(0.01, 1))
def test_random_crops_lie_inside_and_keep_their_ranges(h, w, seed, low):
    transform = RandomResizedCrop((8, 8), scale=(low, 1.0))
    left, top, right, bottom = transform.draw((h, w), generator(seed))
    assert 0 <= left < right <= w
    assert 0 <= top < bottom <= h
    if h >= 50 and w >= 50 and h / w < 1.3 and w / h < 1.3:
        ratio, area = (right - left) / (bottom - top), (right - left) * (bottom - top) / (h * w)
        assert 0.7 <= ratio <= 1.4
        assert area >= low * 0.9 - 0.05


def test_a_jpeg_is_decoded_only_as_far_as_the_crop_needs(tmp_path, photo):
    from nexus.data.images import open_image

    big = photo.resize((2000, 1500), PIL.Resampling.BICUBIC)
    big.save(tmp_path / "big.jpg", quality=95)
    transform = RandomResizedCrop((112, 112), scale=(0.5, 1.0))
    lazy = open_image(tmp_path / "big.jpg")
    fast = np.asarray(transform(lazy, generator(2)), float)
    assert lazy.size == (250, 188)
    slow = np.asarray(transform(load_image(tmp_path / "big.jpg"), generator(2)), float)
    assert np.abs(fast - slow).mean() < 2.0


def test_flip_pad_and_rotate(photo):
    array = np.asarray(photo)
    assert np.array_equal(np.asarray(flip(photo)), array[:, ::-1])
    assert np.array_equal(flip(array), array[:, ::-1])
    flipped = [np.array_equal(RandomFlip(0.25)(array, generator(seed)), array[:, ::-1]) for seed in range(200)]
    assert 25 < sum(flipped) < 75

    shifted = PadCrop(4)(array, generator(1))
    top, left = generator(1).integers(-4, 5, size=2)
    assert np.array_equal(shifted, crop(array, top, left, array.shape[:2]))
    assert np.array_equal(np.asarray(PadCrop(4)(photo, generator(1))), shifted)

    quarter = around_centre((40, 40), angle_rad=math.pi / 2)
    square = resize(photo, (40, 40))
    turned = affine(square, quarter, interpolation="nearest")
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(square), -1))
    close = np.abs(
        np.asarray(RandomRotate(20)(photo, generator(0)), float) - RandomRotate(20)(array, generator(0)).astype(float)
    )
    assert close.max() <= 1


def test_single_steps_keep_the_kind_of_image(photo):
    tensor = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)
    for step in (Resize((20, 30)), ResizeShorter(33), CentreCrop((400, 200)), RandomFlip(1.0), PadCrop(3)):
        as_pil, as_tensor = step(photo, generator(4)), step(tensor, generator(4))
        assert isinstance(as_pil, PIL.Image)
        assert isinstance(as_tensor, torch.Tensor)
        assert np.array_equal(np.asarray(as_pil), as_tensor.permute(1, 2, 0).numpy())


def test_normalize_of_a_batch_is_that_of_each_image():
    images = generator().integers(256, size=(4, 6, 5, 3), dtype=np.uint8)
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    expected = (images / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    batch = normalize.batch(images)
    np.testing.assert_allclose(batch.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert batch.is_contiguous()
    for one, image in zip(batch, images):
        assert torch.equal(normalize(image), one)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip": 1.5}, "flip is 1.5; a probability is between 0 and 1"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale is"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio is"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.7)}, "the hue at most 0.5"),
        ({"rand_augment_magnitude": 31}, "between 0 and 30"),
        ({"pad_crop": -1}, "pad_crop is -1"),
    ],
)
def test_augment_config_states_its_rules(fields, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**fields)


@pytest.mark.parametrize("have", range(3, 12))
def test_the_centre_is_torchvisions_for_odd_and_even_rests(torchvision, have):
    """Cut and padded, in both directions, for every rest."""
    image = torch.arange(1, 3 * have * (have + 1) + 1, dtype=torch.float32).view(3, have, have + 1)
    for want in range(1, 14):
        size = (want, max(1, want - 2))
        theirs = torchvision.transforms.functional.center_crop(image, size)
        assert torch.equal(CentreCrop(size)(image), theirs), size
