"""Simulated clicks and boxes, against brute force."""

import numpy as np
import pytest
import torch

from nexus.ops.clicks import boxes_around, central_click, noisy_boxes, random_clicks


def depth_by_force(region, x, y):
    """The distance of a pixel to the nearest that is not of the region; all outside of the image is not."""
    h, w = region.shape
    others = [
        (i, j) for i in range(-1, h + 1) for j in range(-1, w + 1) if not (0 <= i < h and 0 <= j < w and region[i, j])
    ]
    return min(np.hypot(x - j, y - i) for i, j in others)


@pytest.mark.parametrize("seed", range(12))
def test_a_central_click_lies_deepest_in_the_deeper_error(seed):
    rng = np.random.default_rng(seed)
    wanted, found = np.zeros((2, 11, 9), dtype=bool)
    for mask in (wanted, found):
        top, left = rng.integers(0, 6, 2)
        mask[top : top + rng.integers(2, 7), left : left + rng.integers(2, 7)] = True
        mask ^= rng.random(mask.shape) < 0.1
    missed, false = wanted & ~found, found & ~wanted
    depths = [
        max((depth_by_force(region, x, y) for y, x in zip(*np.nonzero(region))), default=0.0)
        for region in (missed, false)
    ]
    click = central_click(wanted, found)
    assert click is not None
    x, y, label = click
    assert label == (depths[0] >= depths[1])
    region = missed if label else false
    assert region[y, x]
    assert depth_by_force(region, x, y) == pytest.approx(max(depths))


def test_a_mask_without_error_is_not_clicked_in_the_middle_but_may_be_beside():
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 1:4] = True
    assert central_click(mask, mask) is None
    assert central_click(mask, np.zeros_like(mask)) == (1, 1, 1)
    wanted = torch.from_numpy(mask)[None]
    points, labels = random_clicks(wanted, wanted)
    assert labels.tolist() == [0]
    assert not mask[points[0, 1], points[0, 0]]
    whole = torch.ones(1, 4, 5, dtype=torch.bool)
    assert random_clicks(whole, whole)[1].tolist() == [1]


def test_random_clicks_are_uniform_over_the_error():
    torch.manual_seed(0)
    wanted, found = torch.rand(2, 5, 6) < 0.5
    count = 6000
    points, labels = random_clicks(wanted.expand(count, 5, 6), found.expand(count, 5, 6))
    drawn = np.zeros((5, 6))
    np.add.at(drawn, (points[:, 1].numpy(), points[:, 0].numpy()), 1)
    error = (wanted ^ found).numpy()
    assert (drawn[~error] == 0).all()
    share = 1 / error.sum()
    assert np.abs(drawn[error] / count - share).max() < 5 * np.sqrt(share * (1 - share) / count)
    assert torch.equal(labels.bool(), wanted[points[:, 1], points[:, 0]])


def test_boxes_around_masks():
    torch.manual_seed(0)
    masks = torch.rand(7, 6, 8) < 0.2
    masks[:, 2, 3] = True
    for mask, box in zip(masks.numpy(), boxes_around(masks).tolist()):
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_noise_of_boxes_has_the_papers_size_and_bound():
    torch.manual_seed(0)
    boxes = torch.tensor([[300.0, 400.0, 400.0, 440.0]]).expand(20000, 4)
    moves = noisy_boxes(boxes, (1000, 1000)) - boxes
    torch.testing.assert_close(moves.std(dim=0), torch.tensor([10.0, 4.0, 10.0, 4.0]), rtol=0.05, atol=0)
    assert moves.mean(dim=0).abs().max() < 0.3
    large = torch.tensor([[100.0, 100.0, 900.0, 900.0]]).expand(1000, 4)
    assert (noisy_boxes(large, (1000, 1000)) - large).abs().max() == 20
    edge = noisy_boxes(torch.tensor([[0.0, 0.0, 20.0, 10.0]]).expand(1000, 4), (10, 20), noise=2.0)
    assert edge.amin() >= 0
    assert (edge <= torch.tensor([20, 10, 20, 10])).all()
    assert (edge[:, 2:] >= edge[:, :2]).all()
