"""Matching and sampling against plain Python and torchvision."""

import itertools
import math

import pytest
import torch

from nexus.ops.matching import BACKGROUND, IGNORED, hungarian, match_aligned, match_by_iou, sample_balanced


@pytest.mark.parametrize("keep_best", [True, False])
def test_matches_equal_torchvision(torchvision, keep_best):
    from torchvision.models.detection._utils import Matcher

    overlaps = torch.rand(6, 200, generator=torch.Generator().manual_seed(0)).mul(10).round() / 10  # with many ties
    overlaps[3] *= 0.2
    expected = Matcher(0.7, 0.3, keep_best)(overlaps)
    assert torch.equal(match_by_iou(overlaps, 0.7, 0.3, keep_best=keep_best), expected)


def test_thresholds_and_the_best_prediction():
    overlaps = torch.tensor([[0.7, 0.69, 0.3, 0.29, 0.0], [0.1, 0.1, 0.2, 0.2, 0.0]])
    assert match_by_iou(overlaps, 0.7, 0.3).tolist() == [0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    # The second object's best predictions, 2 and 3, become positive but answer for the object they overlap most.
    assert match_by_iou(overlaps, 0.7, 0.3, keep_best=True).tolist() == [0, IGNORED, 0, 0, BACKGROUND]


def test_without_objects_all_is_background():
    assert match_by_iou(torch.zeros(0, 3), 0.5, 0.5).tolist() == [BACKGROUND] * 3
    assert match_by_iou(torch.zeros(2, 0), 0.5, 0.5, keep_best=True).shape == (0,)
    with pytest.raises(ValueError, match=r"low is 0.7 and high is 0.3; low must not be above high"):
        match_by_iou(torch.zeros(1, 1), 0.3, 0.7)


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (2, 5), (0, 3)])
def test_hungarian_is_the_cheapest_of_all_assignments(needed, shape):
    needed("scipy")
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    rows, columns = hungarian(cost)
    small = min(shape)
    wide = cost if shape[0] <= shape[1] else cost.T
    cheapest = min(
        (
            sum(float(wide[i, j]) for i, j in enumerate(choice))
            for choice in itertools.permutations(range(max(shape)), small)
        ),
        default=0.0,
    )
    assert len(rows) == len(columns) == small
    assert float(cost[rows, columns].sum()) == pytest.approx(cheapest)
    assert rows.tolist() == sorted(rows.tolist())


def test_hungarian_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="The matching cost holds NaN or infinite values"):
        hungarian(torch.tensor([[math.nan]]))


def test_samples_equal_torchvision(torchvision):
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    for num_positive in (0, 5, 100):
        labels = torch.full((300,), -1)
        labels[:num_positive], labels[150:] = 1, 0
        torch.manual_seed(3)
        positive, negative = BalancedPositiveNegativeSampler(64, 0.25)([labels])
        torch.manual_seed(3)
        ours = sample_balanced(labels == 1, labels == 0, 64, 0.25)
        assert sorted(ours[0].tolist()) == positive[0].nonzero()[:, 0].tolist()
        assert sorted(ours[1].tolist()) == negative[0].nonzero()[:, 0].tolist()
        assert len(ours[0]) == min(num_positive, 16)


def test_a_point_on_the_border_of_a_box_does_not_lie_inside_it():
    """As in the authors' code of TOOD and YOLOv10: the distances to all four sides are positive."""
    points = torch.tensor([[2.0, 5], [8, 5], [5, 2], [5, 8], [5, 5]])
    box, labels = torch.tensor([[2.0, 2, 8, 8]]), torch.tensor([0])
    matches, _ = match_aligned(torch.full((5, 1), 0.5), box.expand(5, 4), points, box, labels, top_k=5)
    assert matches.tolist() == [BACKGROUND] * 4 + [0]
