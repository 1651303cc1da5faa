"""The resize of detectors: by the shorter side, but never beyond the longer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nexus.data.geometry import ResizeWithin
from nexus.data.transforms import eval_transform
from nexus.models.registry import list_models, model_info


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((400, 1000), (533, 1333)),
        ((9, 900), (13, 1333)),
        ((1, 1), (800, 800)),
    ],
)
def test_sides(size, expected):
    resized = ResizeWithin(800, 1333)(np.zeros((*size, 3), np.uint8))
    assert np.asarray(resized).shape[:2] == expected


def test_detectors_see_the_whole_image_at_the_published_size():
    transform = eval_transform(model_info("fasterrcnn_resnet50_fpn").preprocessing)
    assert transform(np.zeros((480, 640, 3), np.uint8), None).shape == (3, 800, 1066)


def test_sides_equal_torchvision(torchvision):
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    theirs = GeneralizedRCNNTransform(80, 133, [0.0] * 3, [1.0] * 3).eval()
    for size in ((48, 64), (37, 91), (100, 31), (33, 200)):
        images, _ = theirs([torch.zeros(3, *size)])
        ours = np.asarray(ResizeWithin(80, 133)(np.zeros((*size, 3), np.uint8))).shape[:2]
        assert images.image_sizes[0] == ours


def test_pixels_equal_torchvisions_detectors(torchvision):
    """Enlarged, where filtering against aliasing changes nothing; ours rounds to whole levels."""
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    theirs = GeneralizedRCNNTransform(80, 133, [0.0] * 3, [1.0] * 3).eval()
    (wanted,) = theirs([torch.from_numpy(pixels).permute(2, 0, 1) / 255])[0].tensors
    transform = eval_transform(create_model_preprocessing(80, 133))
    found = transform(pixels, None)
    height, width = found.shape[1:]
    torch.testing.assert_close(found, wanted[:, :height, :width], rtol=0, atol=1.01 / 255)


def create_model_preprocessing(shorter, longer):
    """What the cards of torchvision's detectors say, at another size."""
    published = model_info("fasterrcnn_resnet50_fpn").preprocessing
    return replace(published, image_size=(shorter, longer), resize_size=shorter, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize("name", [name for name in list_models() if model_info(name).task == "detection"])
def test_every_detector_was_trained_on_bilinear_pixels(name):
    """torchvision's, DETR's, RT-DETR's and YOLOv10's code resize so, and mmdetection's for Cascade R-CNN."""
    assert model_info(name).preprocessing.interpolation == "bilinear"
