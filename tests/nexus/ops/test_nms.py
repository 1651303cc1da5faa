"""Suppression against the plain loop in float64, and against torchvision."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from nexus.ops.compiled import compiled_ops
from nexus.ops.nms import batched_nms, nms


def scene(n, seed=0, size=200.0):
    """Boxes that overlap a good deal."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=generator) * size
    boxes = torch.cat([corners, corners + 5 + torch.rand(n, 2, generator=generator) * 40], 1)
    return boxes, torch.rand(n, generator=generator)


def plain_nms(boxes, scores, threshold):
    boxes = boxes.double().tolist()
    order = sorted(range(len(boxes)), key=lambda i: -float(scores[i]))
    kept = []
    for i in order:
        a = boxes[i]
        for j in kept:
            b = boxes[j]
            w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            overlap = max(0, w) * max(0, h)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
            if union and overlap / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("n", [0, 1, 2, 127, 128, 129, 700])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_equals_the_plain_loop(n, threshold):
    boxes, scores = scene(n, seed=n)
    assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, threshold)
    assert nms(boxes, scores, threshold, max_boxes=5).tolist() == plain_nms(boxes, scores, threshold)[:5]


def loop_operator(boxes, scores, threshold):
    """The plain loop with the signature of torchvision's compiled operator."""
    return torch.tensor(plain_nms(boxes, scores, threshold), dtype=torch.int64)


def test_groups_equal_torchvisions(torchvision, monkeypatch):
    monkeypatch.setattr(torchvision.ops.boxes, "nms", loop_operator)  # its own is compiled, and may not fit this torch
    boxes, scores = scene(700)
    groups = torch.arange(700) % 7
    assert torch.equal(
        batched_nms(boxes, scores, groups, 0.5), torchvision.ops.boxes._batched_nms_vanilla(boxes, scores, groups, 0.5)
    )


def test_the_compiled_operator_gives_the_same(monkeypatch):
    """torchvision's where it was built for this torch; elsewhere the plain loop is called in the same way."""
    compiled = compiled_ops() or SimpleNamespace(nms=loop_operator)
    boxes, scores = scene(400)
    groups = torch.arange(400) % 3
    pure = nms(boxes, scores, 0.5), batched_nms(boxes, scores, groups, 0.5, max_boxes=50)
    monkeypatch.setattr("nexus.ops.nms.compiled_ops", lambda: compiled)
    found = nms(boxes, scores, 0.5), batched_nms(boxes, scores, groups, 0.5, max_boxes=50)
    assert all(torch.equal(a, b) for a, b in zip(pure, found))


def test_a_long_chain_keeps_every_second_box():
    """Each box overlaps only its neighbours: the choice of the last depends on the first."""
    x = torch.arange(300.0)[:, None] * 6
    boxes = torch.cat([x, x * 0, x + 10, x * 0 + 10], 1)
    assert nms(boxes, -torch.arange(300.0), 0.2).tolist() == list(range(0, 300, 2))


def test_of_equal_scores_the_first_box_wins():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    assert nms(boxes, torch.ones(3), 0.5).tolist() == [0, 2]
    assert nms(boxes.flip(0), torch.ones(3), 0.5).tolist() == [0, 1]


def test_groups_do_not_see_each_other():
    boxes, scores = scene(300, seed=5)
    groups = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(1))
    expected = []
    for group in range(4):
        members = (groups == group).nonzero()[:, 0]
        expected += members[plain_nms(boxes[members], scores[members], 0.4)].tolist()
    expected.sort(key=lambda i: -float(scores[i]))
    assert batched_nms(boxes, scores, groups, 0.4).tolist() == expected
    assert batched_nms(boxes[:0], scores[:0], groups[:0], 0.4).tolist() == []


def test_degenerate_boxes_stay_and_suppress_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10], [-9, -9, -3, -3]])
    assert nms(boxes, torch.tensor([4.0, 3, 2, 1]), 0.0).tolist() == [0, 1, 2, 3]


def test_infinite_scores_are_ordered():
    boxes = torch.tensor([[0.0, 0, 1, 1], [3, 3, 4, 4], [6, 6, 7, 7]])
    assert nms(boxes, torch.tensor([-math.inf, math.inf, 0]), 0.5).tolist() == [1, 2, 0]


def test_ten_thousand_boxes_are_fast():
    boxes, scores = scene(10_000, size=2000.0)
    start = time.perf_counter()
    kept = nms(boxes, scores, 0.5)
    assert time.perf_counter() - start < 3  # about 0.2 s on one quiet core
    assert 5_000 < len(kept) < 10_000


def test_errors():
    boxes, scores = scene(3)
    with pytest.raises(ValueError, match=r"The score of box 1 is NaN; scores must be numbers that can be ordered\."):
        nms(boxes, torch.tensor([1, math.nan, 0]), 0.5)
    with pytest.raises(ValueError, match=r"iou_threshold is 1.5; it must lie in \[0, 1\]"):
        nms(boxes, scores, 1.5)
    with pytest.raises(ValueError, match=r"boxes have the shape \(3, 4\) and scores \(2,\); they must be"):
        nms(boxes, scores[:2], 0.5)
    with pytest.raises(ValueError, match="There are 2 groups for 3 scores; each box needs one"):
        batched_nms(boxes, scores, torch.zeros(2), 0.5)
