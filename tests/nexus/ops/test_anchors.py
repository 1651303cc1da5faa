"""Anchors, points, box coders against plain Python and torchvision."""

import math

import pytest
import torch

from nexus.ops.anchors import anchor_shapes, grid_anchors, grid_points
from nexus.ops.box_coder import BoxCoder, boxes_to_distances, distances_to_boxes


def test_shapes_have_their_area_and_ratio():
    shapes = anchor_shapes([8, 32], [0.5, 1, 2]).double()
    width, height = shapes[:, 2] - shapes[:, 0], shapes[:, 3] - shapes[:, 1]
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([8.0, 32] * 3).double())
    torch.testing.assert_close(height / width, torch.tensor([0.5, 0.5, 1, 1, 2, 2]).double())
    assert torch.equal(shapes[:, :2], -shapes[:, 2:])


def test_anchors_equal_torchvision(torchvision):
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    theirs = AnchorGenerator(((32, 64), (128, 256)), ((0.5, 1.0, 2.0),) * 2)
    maps = [torch.zeros(1, 1, 6, 9), torch.zeros(1, 1, 3, 5)]
    expected = theirs(ImageList(torch.zeros(1, 3, 48, 72), [(48, 72)]), maps)[0]
    ours = [
        grid_anchors(anchor_shapes(sizes, (0.5, 1.0, 2.0), rounded=True), (h, w), (48 // h, 72 // w))
        for sizes, (h, w) in zip(((32, 64), (128, 256)), ((6, 9), (3, 5)))
    ]
    assert torch.equal(torch.cat(ours), expected)


def test_points_go_row_by_row():
    assert grid_points((2, 3), (4, 8)).tolist() == [[4, 2], [12, 2], [20, 2], [4, 6], [12, 6], [20, 6]]
    assert grid_points((1, 2), (4, 4), offset=0).tolist() == [[0, 0], [4, 0]]
    assert grid_points((0, 2), (4, 4)).shape == (0, 2)


def test_shapes_must_have_a_size():
    with pytest.raises(ValueError, match=r"sizes are \(0,\) and ratios \(1,\); all must be above 0"):
        anchor_shapes([0], [1])


def boxes(n, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 50
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator, dtype=torch.float64) * 30], 1)


def test_coder_equals_torchvision_and_returns(torchvision):
    from torchvision.models.detection._utils import BoxCoder as Theirs

    ours, theirs = BoxCoder((10, 10, 5, 5)), Theirs((10.0, 10.0, 5.0, 5.0))
    targets, anchors = boxes(20, 0), boxes(20, 1)
    deltas = ours.encode(targets, anchors)
    torch.testing.assert_close(deltas, theirs.encode_single(targets, anchors))
    torch.testing.assert_close(ours.decode(deltas, anchors), targets)
    wild = torch.randn(20, 4, dtype=torch.float64) * 30
    torch.testing.assert_close(ours.decode(wild, anchors), theirs.decode_single(wild, anchors))


def test_coder_bounds_growth_and_on_request_shrinking():
    anchor = torch.tensor([[0.0, 0, 16, 16]])
    wild = torch.tensor([[0.0, 0, 100, -100]])
    x1, y1, x2, y2 = BoxCoder().decode(wild, anchor)[0].tolist()
    assert x2 - x1 == pytest.approx(1000, rel=1e-4)
    assert y2 - y1 == pytest.approx(0)
    bounded = BoxCoder(bounded_below=True).decode(wild, anchor)[0]
    assert float(bounded[3] - bounded[1]) == pytest.approx(16 * 16 / 1000, rel=1e-3)


def test_distances_return():
    targets = boxes(20, 0)
    points = torch.rand(20, 2, dtype=torch.float64) * 80
    distances = boxes_to_distances(targets, points)
    torch.testing.assert_close(distances_to_boxes(distances, points), targets)
    inside = (points > targets[:, :2]).all(1) & (points < targets[:, 2:]).all(1)
    assert torch.equal((distances > 0).all(1), inside)
    assert boxes_to_distances(torch.tensor([1.0, 2, 7, 9]), torch.tensor([3.0, 4])).tolist() == [2, 2, 4, 5]
    assert math.isclose(float(distances.sum()), float((targets[:, 2:] - targets[:, :2]).sum()))
