"""Losses against their formulas in float64, and against torchvision."""

import math

import pytest
import torch

from nexus.ops.losses import ciou_loss, dice_loss, distribution_focal_loss, mask_focal_loss


def plain(formula, *tensors):
    return torch.tensor([formula(*values) for values in zip(*(t.tolist() for t in tensors))], dtype=torch.float64)


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


def test_ciou_loss_equals_torchvision_in_value_and_gradient(torchvision):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 30, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 1 + torch.rand(2, 30, 2, generator=generator) * 20], 2)
    mine, other = boxes[0].clone().requires_grad_(), boxes[0].clone().requires_grad_()
    value, expected = ciou_loss(mine, boxes[1]), torchvision.ops.complete_box_iou_loss(other, boxes[1])
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_mask_focal_loss_equals_torchvision_in_value_and_gradient(torchvision):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    targets = (torch.rand(2, 3, 4, 5, generator=generator) < 0.3).double()
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = mask_focal_loss(mine, targets)
    expected = torchvision.ops.sigmoid_focal_loss(other, targets, alpha=0.25, gamma=2).mean(dim=(-2, -1))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-15)


def test_dice_loss():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, 5, dtype=torch.float64, generator=generator)
    targets = (torch.rand(6, 4, 5, generator=generator) < 0.3).double()

    def formula(rows, truth):
        pairs = [(1 / (1 + math.exp(-x)), t) for row, line in zip(rows, truth) for x, t in zip(row, line)]
        return 1 - (2 * sum(p * t for p, t in pairs) + 1) / (sum(p + t for p, t in pairs) + 1)

    torch.testing.assert_close(dice_loss(logits, targets), plain(formula, logits, targets))
    empty = torch.full((1, 4, 5), -100.0)
    assert dice_loss(empty, torch.zeros(1, 4, 5)) == 0
    assert dice_loss(-empty, torch.ones(1, 4, 5)) == 0
