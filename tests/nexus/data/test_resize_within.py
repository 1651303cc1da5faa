"""The resize of detectors: by the shorter side, but never beyond the longer."""

import numpy as np
import pytest

from nexus.data.geometry import ResizeWithin
from nexus.data.transforms import eval_transform
from nexus.models.registry import model_info


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
    import torch
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    theirs = GeneralizedRCNNTransform(80, 133, [0.0] * 3, [1.0] * 3).eval()
    for size in ((48, 64), (37, 91), (100, 31), (33, 200)):
        images, _ = theirs([torch.zeros(3, *size)])
        ours = np.asarray(ResizeWithin(80, 133)(np.zeros((*size, 3), np.uint8))).shape[:2]
        assert images.image_sizes[0] == ours
