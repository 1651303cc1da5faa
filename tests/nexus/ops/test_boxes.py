"""Boxes against plain Python in float64, and against torchvision."""

import math

import pytest
import torch

from nexus.ops.boxes import (
    box_area,
    ciou,
    clip_boxes,
    cxcywh_to_xyxy,
    diou,
    giou,
    iou,
    is_large,
    pairwise,
    xyxy_to_cxcywh,
)


def random_boxes(n, size=100.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=generator, dtype=dtype) * size
    return torch.cat([corners, corners + torch.rand(n, 2, generator=generator, dtype=dtype) * size / 2 + 1], 1)


def plain_measures(a, b):
    """IoU, GIoU, DIoU and CIoU of two boxes, written out from the papers."""
    a, b = a.tolist(), b.tolist()
    overlap = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    width, height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    i = overlap / union
    g = i - (width * height - union) / (width * height)
    centres = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    d = i - centres / (width**2 + height**2)
    angle = math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1]))
    v = 4 / math.pi**2 * angle**2
    return i, g, d, d - (v / (1 - i + v)) * v


def test_measures_equal_plain_loops():
    first, second = random_boxes(9), random_boxes(7, seed=1)
    expected = torch.tensor([[plain_measures(a, b) for b in second] for a in first], dtype=torch.float64)
    for place, measure in enumerate((iou, giou, diou, ciou)):
        torch.testing.assert_close(pairwise(measure, first, second), expected[..., place], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(measure(first[:7], second), expected[range(7), range(7), place])


def test_measures_equal_torchvision(torchvision):
    first, second = random_boxes(20), random_boxes(30, seed=1)
    for ours, name in ((iou, "box_iou"), (giou, "generalized_box_iou"), (diou, "distance_box_iou")):
        torch.testing.assert_close(pairwise(ours, first, second), getattr(torchvision.ops, name)(first, second))
    theirs = torchvision.ops.complete_box_iou(first, second)
    torch.testing.assert_close(pairwise(ciou, first, second), theirs, rtol=1e-5, atol=1e-6)


def test_forms_convert_and_return():
    boxes = random_boxes(50)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    assert xyxy_to_cxcywh(torch.tensor([2.0, 3, 7, 9])).tolist() == [4.5, 6, 5, 6]


def test_clip_and_size():
    boxes = torch.tensor([[-5.0, -5, 5, 5], [90, 40, 130, 80], [200, 200, 210, 210], [1, 1, 2, 2]])
    clipped = clip_boxes(boxes, (50, 100))
    assert clipped.tolist() == [[0, 0, 5, 5], [90, 40, 100, 50], [100, 50, 100, 50], [1, 1, 2, 2]]
    assert is_large(clipped, 1).tolist() == [True, True, False, True]
    assert box_area(torch.tensor([[0.0, 0, 3, 4], [3, 4, 0, 0]])).tolist() == [12, 0]


@pytest.mark.parametrize("measure", [iou, giou, diou, ciou])
def test_degenerate_boxes_have_finite_values_and_gradients(measure):
    point, line, box = [1.0, 1, 1, 1], [0.0, 2, 5, 2], [0.0, 0, 4, 4]
    first = torch.tensor([point, point, line, line, box], requires_grad=True)
    second = torch.tensor([point, box, line, box, box])
    value = measure(first, second)
    value.sum().backward()
    assert value.isfinite().all()
    assert first.grad.isfinite().all()
    torch.testing.assert_close(value[4], torch.tensor(1.0))


@pytest.mark.parametrize("measure", [iou, giou, diou])
def test_gradients(measure):
    first, second = random_boxes(6).requires_grad_(), random_boxes(6, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(measure, (first, second))


def test_no_boxes():
    assert pairwise(giou, torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert clip_boxes(torch.zeros(0, 4), (5, 5)).shape == (0, 4)
