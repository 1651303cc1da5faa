"""preprocessor_config.json: over the keys of each processor of transformers our pixels are its pixels, or it is refused."""

import itertools
import json
import random

import numpy as np
import PIL.Image
import pytest

from nexus.core.documents import FileError
from nexus.core.processors import PROCESSORS, preprocessing_from_hub
from nexus.data.transforms import eval_transform

SHAPES = [(53, 80), (61, 47)]
COMMON = {
    "do_resize": [True, False],
    "do_rescale": [True, False],
    "do_normalize": [True, False],
    "rescale_factor": [1 / 255, 1 / 127.5, 0.5],
    "resample": [0, 1, 2, 3, 4, 5],
    "image_mean": [[0.1, 0.2, 0.3], 0.4, (0.5, 0.5, 0.5)],
    "image_std": [[0.3, 0.2, 0.4], 0.25],
    "do_convert_rgb": [True, False],
}
SIZES = {
    "size": [
        32,
        [24, 36],
        {"height": 24, "width": 36},
        {"shortest_edge": 33},
        {"shortest_edge": 30, "longest_edge": 41},
        {"max_height": 30, "max_width": 35},
        {"longest_edge": 40},
    ],
    "do_center_crop": [True, False],
    "crop_size": [21, {"height": 24, "width": 31}, {"height": 70, "width": 33}],
    "do_pad": [True, False],
}
KEYS = {
    **dict.fromkeys(("ViT", "DeiT", "CLIP", "Bit", "Siglip"), COMMON | SIZES),
    "ConvNext": COMMON | {"size": [32, {"shortest_edge": 31}, {"shortest_edge": 384}], "crop_pct": [0.875, 0.9, 1.0]},
    "EfficientNet": COMMON | SIZES | {"rescale_offset": [True, False], "include_top": [True, False]},
    "Detr": COMMON | {"size": [*SIZES["size"], 50], "do_pad": [True, False], "max_size": [60]},
    "RTDetr": COMMON | {"size": SIZES["size"][1:], "do_pad": [True, False]},
}


def combinations(keys, count, chance):
    """Each value of each key alone, each pair of keys once, then draws over all of them."""
    for key, values in keys.items():
        yield from ({key: value} for value in values)
    for one, other in itertools.combinations(keys, 2):
        yield {one: chance.choice(keys[one]), other: chance.choice(keys[other])}
    for _ in range(count):
        chosen = [key for key in keys if chance.random() < 0.5]
        yield {key: chance.choice(keys[key]) for key in chosen}


def ours(settings):
    """Our transform, or None and what the refusal says."""
    try:
        return eval_transform(preprocessing_from_hub(settings)), ""
    except FileError as error:
        return None, str(error)


def theirs(processor, image):
    """What the processor of transformers makes of an image, or None where it fails itself."""
    try:
        return np.asarray(processor(image, return_tensors="np")["pixel_values"][0], dtype=np.float64)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


@pytest.mark.parametrize("name", KEYS)
def test_pixels_are_those_of_transformers(transformers, name):
    chance = random.Random(name)
    images = [
        PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in SHAPES
    ]
    followed = set()
    refused = 0
    for settings in combinations(KEYS[name], 40, chance):
        small = {"size": {"shortest_edge": 32, "longest_edge": 40}} if name == "Detr" else {}
        settings = json.loads(json.dumps({"image_processor_type": f"{name}ImageProcessor", **small, **settings}))
        transform, said = ours(settings)
        if transform is None:
            assert any(key in said for key in settings), said
            refused += 1
            continue
        try:
            processor = getattr(transformers, f"{name}ImageProcessorPil")(**settings)
        except (ValueError, TypeError, KeyError):
            continue  # it takes no such settings
        for image in images:
            expected = theirs(processor, image)
            if expected is None or (not settings.get("do_resize", True) and not settings.get("do_center_crop")):
                continue
            found = transform(image).numpy()
            assert found.shape == expected.shape, settings
            scale = max(1.0, abs(expected).max())
            assert abs(found - expected).max() <= 1e-3 * scale, settings
            followed |= {(key, repr(value)) for key, value in settings.items()}
    for key in ("do_rescale", "do_normalize", "rescale_factor", "resample", "image_mean", "image_std", "size"):
        assert any(one == key for one, _ in followed), f"{key} was followed in no combination"
    assert refused < len(list(combinations(KEYS[name], 40, chance))) / 1.5


def test_the_defaults_are_those_of_transformers(transformers):
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 420, 3), dtype=np.uint8))
    for name in PROCESSORS.keys() - {"Siglip2ImageProcessor", "SamImageProcessor"}:
        processor = getattr(transformers, f"{name}Pil")()
        for kind in (name, f"{name}Fast", name.replace("ImageProcessor", "FeatureExtractor")):
            found = eval_transform(preprocessing_from_hub({"image_processor_type": kind}))(image).numpy()
            assert abs(found - theirs(processor, image)).max() <= 1e-3, kind
        saved = json.loads(processor.to_json_string())
        assert abs(eval_transform(preprocessing_from_hub(saved))(image).numpy() - found).max() <= 1e-6, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "is a list; it must be a mapping"),
        ({"image_processor_type": "BeitImageProcessor"}, "names the processor 'BeitImageProcessor'"),
        ({"image_processor_type": 3}, "image_processor_type is 3; it must be text"),
        ({"do_flip_channel_order": True}, "has do_flip_channel_order, which is not known"),
        ({"size": {"height": 10**9, "width": 3}}, "size is .*whole number of pixels, at most 16384"),
        ({"size": "224"}, "size is '224'"),
        ({"size": True}, "size is True"),
        ({"resample": 7}, "resample is 7; it must be one of"),
        ({"resample": [3]}, "resample is"),
        ({"image_std": [0, 1, 1]}, "image_std is .* above 0"),
        ({"image_std": [1, 1]}, "image_std is"),
        ({"image_mean": "x"}, "image_mean is 'x'"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"do_resize": 1}, "do_resize is 1; it must be true or false"),
        ({"size": {"shortest_edge": 224}}, "size is .*height and width"),
        ({"do_pad": True, "pad_size": {"height": 300, "width": 300}}, "do_pad is True"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0}, "crop_pct is 0"),
        ({"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 200}, "max_num_patches is 200; .*square"),
        ({"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 2**40}, "max_num_patches is .*pixels"),
        ({"image_processor_type": "Siglip2ImageProcessor", "do_resize": False}, "do_resize is False"),
    ],
)
def test_what_is_not_followed_is_named(settings, message):
    with pytest.raises(FileError, match=rf"preprocessor_config\.json.*{message}"):
        preprocessing_from_hub(settings)


NAFLEX = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 36}


@pytest.mark.parametrize("shape", [(53, 80), (61, 47), (12, 300), (48, 48), (7, 9), (400, 401)])
@pytest.mark.parametrize("more", [{}, {"resample": 3, "image_mean": [0.1, 0.2, 0.3]}, {"max_num_patches": 9}])
def test_images_in_patches_are_those_of_transformers(transformers, shape, more):
    """NaFlex: whole patches in nearly the image's proportions, whose pixels and grid are the library's."""
    settings = NAFLEX | more
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    given = transformers.Siglip2ImageProcessorPil(**settings)(image, return_tensors="np")
    rows, columns = np.asarray(given["spatial_shapes"])[0].tolist()
    found = eval_transform(preprocessing_from_hub(settings))(image)
    assert tuple(found.shape) == (3, rows * 8, columns * 8)
    patches = found.reshape(3, rows, 8, columns, 8).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
    assert abs(patches.numpy() - np.asarray(given["pixel_values"])[0, : rows * columns]).max() <= 1e-3


def test_images_in_patches_keep_the_patch_when_their_size_changes():
    larger = preprocessing_from_hub(NAFLEX).fitted({"image_size": 96})
    assert (larger.image_size, larger.resize, larger.resize_size) == ((96, 96), "patches", 8)


SQUARE = {"height": 40, "width": 40}
SMALL_SAM = {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 40}, "pad_size": SQUARE}


@pytest.mark.parametrize("shape", [(53, 80), (61, 47), (12, 300), (40, 40), (7, 9), (31, 33)])
@pytest.mark.parametrize(
    "more", [{}, {"resample": 3, "image_mean": [0.1, 0.2, 0.3]}, {"do_normalize": False}, {"do_rescale": False}]
)
def test_images_in_a_square_are_those_of_transformers(transformers, shape, more):
    """SAM: the longest side is fixed, the square is filled up with zeros of the normalized image."""
    settings = SMALL_SAM | more
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    expected = theirs(transformers.SamImageProcessorPil(**settings), image)
    found = eval_transform(preprocessing_from_hub(settings))(image).numpy()
    padded = np.zeros_like(expected)
    padded[:, : found.shape[1], : found.shape[2]] = found
    assert max(found.shape[1:]) == 40
    assert abs(padded - expected).max() <= 1e-3 * max(1.0, abs(expected).max())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"longest_edge": 50}}, "pad_size is .*50 pixels"),
        ({"size": {"height": 40, "width": 40}}, "size is .*longest_edge"),
        ({"do_pad": False}, "do_pad is False"),
        ({"do_resize": False}, "do_resize is False"),
    ],
)
def test_other_squares_are_refused(settings, message):
    with pytest.raises(FileError, match=message):
        preprocessing_from_hub(SMALL_SAM | settings)


def test_the_processors_that_use_torchvision_round_a_few_pixels_otherwise(transformers):
    """Those that transformers takes by default resize whole numbers by torchvision: two levels of 255 apart at most."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 210, 3), dtype=np.uint8))
    for name in PROCESSORS.keys() - {"Siglip2ImageProcessor", "SamImageProcessor"}:
        expected = theirs(getattr(transformers, name)(), image)
        preprocessing = preprocessing_from_hub({"image_processor_type": name})
        apart = abs(eval_transform(preprocessing)(image).numpy() - expected)
        level = 1 / 255 / np.array(preprocessing.std)[:, None, None]
        assert (apart <= 2.02 * level).all(), name
        assert (apart > 1e-3).mean() < 0.05, name
