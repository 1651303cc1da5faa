"""Losses against their formulas in float64, and against torchvision."""

import math

import pytest
import torch

from nexus.ops.losses import (
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    quality_focal_loss,
    varifocal_loss,
)

LOGITS = torch.linspace(-4, 4, 9, dtype=torch.float64)


def plain(formula, *tensors):
    return torch.tensor([formula(*values) for values in zip(*(t.tolist() for t in tensors))], dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def entropy(p, y):
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def test_focal_loss():
    targets = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1], dtype=torch.float64)

    def formula(x, y):
        p = sigmoid(x)
        return -0.3 * (1 - p) ** 1.5 * math.log(p) if y else -0.7 * p**1.5 * math.log(1 - p)

    torch.testing.assert_close(focal_loss(LOGITS, targets, alpha=0.3, gamma=1.5), plain(formula, LOGITS, targets))
    unweighted = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, targets, reduction="none")
    torch.testing.assert_close(focal_loss(LOGITS, targets, alpha=None, gamma=0), unweighted)


def test_focal_loss_equals_torchvision(torchvision):
    logits, targets = torch.randn(50, 7), (torch.rand(50, 7) > 0.8).float()
    torch.testing.assert_close(focal_loss(logits, targets), torchvision.ops.sigmoid_focal_loss(logits, targets))


def test_quality_and_varifocal_loss():
    quality = torch.tensor([0, 0.2, 0, 0.9, 0.5, 0, 1, 0, 0.3], dtype=torch.float64)
    expected = plain(lambda x, q: abs(q - sigmoid(x)) ** 2 * entropy(sigmoid(x), q), LOGITS, quality)
    torch.testing.assert_close(quality_focal_loss(LOGITS, quality), expected)

    def varifocal(x, q):
        return (q if q > 0 else 0.75 * sigmoid(x) ** 2) * entropy(sigmoid(x), q)

    torch.testing.assert_close(varifocal_loss(LOGITS, quality), plain(varifocal, LOGITS, quality))


def test_varifocal_weights_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    varifocal_loss(logits, torch.zeros(9, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(logits.grad, 0.75 * LOGITS.sigmoid() ** 3)


def test_distribution_focal_loss():
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 0.25, 3.75, 4, 7, 2], dtype=torch.float64)

    def formula(row, target):
        target = min(target, 4)
        low = min(int(target), 3)
        total = sum(math.exp(x) for x in row)
        return -sum(
            share * math.log(math.exp(row[place]) / total)
            for place, share in ((low, low + 1 - target), (low + 1, target - low))
        )

    torch.testing.assert_close(distribution_focal_loss(logits, targets), plain(formula, logits, targets))
    with pytest.raises(ValueError, match="logits have 1 bins; a distribution needs at least 2"):
        distribution_focal_loss(logits[:, :1], targets)


def test_distribution_focal_loss_is_least_where_the_mean_is_the_target():
    logits = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        distribution_focal_loss(logits, torch.tensor(2.3, dtype=torch.float64)).backward()
        optimizer.step()
    assert float((logits.detach().softmax(0) * torch.arange(8)).sum()) == pytest.approx(2.3, abs=0.05)


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (giou_loss, "generalized_box_iou_loss"),
        (diou_loss, "distance_box_iou_loss"),
        (ciou_loss, "complete_box_iou_loss"),
    ],
)
def test_box_losses_equal_torchvision_in_value_and_gradient(torchvision, ours, name):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 30, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 1 + torch.rand(2, 30, 2, generator=generator) * 20], 2)
    mine, other = boxes[0].clone().requires_grad_(), boxes[0].clone().requires_grad_()
    value, expected = ours(mine, boxes[1]), getattr(torchvision.ops, name)(other, boxes[1])
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-5)
