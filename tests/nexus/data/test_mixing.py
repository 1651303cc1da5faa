"""MixUp and CutMix: the sums, the boxes, the labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.data.mixing import Mix, MixConfig, apply_mix, draw_mix

IMAGES = torch.arange(5 * 2 * 4 * 6, dtype=torch.float32).view(5, 2, 4, 6)
LABELS = torch.tensor([0, 2, 1, 1, 2])


def draws(count=2000, size=(40, 60), **settings):
    return [draw_mix(MixConfig(num_classes=3, **settings), size, np.random.default_rng(i)) for i in range(count)]


def test_mixup_is_a_weighted_sum_with_the_neighbour():
    images, labels = apply_mix(IMAGES, LABELS, Mix(share=0.7), 3)
    torch.testing.assert_close(images[0], 0.7 * IMAGES[0] + 0.3 * IMAGES[1])
    torch.testing.assert_close(images[1], 0.7 * IMAGES[1] + 0.3 * IMAGES[0])
    torch.testing.assert_close(images[2], 0.7 * IMAGES[2] + 0.3 * IMAGES[3])
    assert torch.equal(images[4], IMAGES[4])
    torch.testing.assert_close(
        labels, torch.tensor([[0.7, 0, 0.3], [0.3, 0, 0.7], [0, 1.0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    )


def test_cutmix_takes_the_box_from_the_neighbour():
    images, labels = apply_mix(IMAGES, LABELS, Mix(share=0.75, box=(1, 2, 3, 5)), 3)
    expected = IMAGES.clone()
    expected[[0, 1, 2, 3], :, 1:3, 2:5] = IMAGES[[1, 0, 3, 2], :, 1:3, 2:5]
    assert torch.equal(images, expected)
    torch.testing.assert_close(labels[0], torch.tensor([0.75, 0, 0.25]))


def test_the_given_batch_is_not_changed():
    before = IMAGES.clone()
    for mix in (Mix(0.5), Mix(0.5, (0, 0, 2, 6)), Mix(1.0)):
        apply_mix(IMAGES, LABELS, mix, 3)
    assert torch.equal(IMAGES, before)


def test_no_mixing_still_gives_soft_labels():
    images, labels = apply_mix(IMAGES, LABELS, Mix(share=1.0), 3)
    assert torch.equal(images, IMAGES)
    assert labels.tolist() == torch.eye(3)[LABELS].tolist()
    images, labels = apply_mix(IMAGES[:1], LABELS[:1], Mix(share=0.4), 3)
    assert torch.equal(images, IMAGES[:1])
    assert labels.tolist() == [[1, 0, 0]]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**30), h=st.integers(1, 50), w=st.integers(1, 50), alpha=st.floats(0.05, 4))
def test_the_share_of_cutmix_is_what_is_left_of_the_image(seed, h, w, alpha):
    mix = draw_mix(MixConfig(num_classes=2, cutmix=alpha), (h, w), np.random.default_rng(seed))
    top, left, bottom, right = mix.box
    assert 0 <= top <= bottom <= h
    assert 0 <= left <= right <= w
    own = torch.zeros(2, 1, h, w)
    own[1] = 1
    mixed, labels = apply_mix(own, torch.tensor([0, 1]), mix, 2)
    assert mixed[0].mean().item() == pytest.approx(1 - mix.share, abs=1e-5)
    assert labels[0, 0].item() == pytest.approx(mix.share, abs=1e-6)
    assert labels.sum(1).tolist() == pytest.approx([1, 1])


def test_shares_have_the_beta_distribution():
    shares = np.array([mix.share for mix in draws(mixup=0.8)])
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.005
    assert all(mix.box is None for mix in draws(50, mixup=0.8))


def test_one_of_both_is_drawn_evenly_and_only_as_often_as_asked():
    both = draws(mixup=0.8, cutmix=1.0)
    assert 0.45 < np.mean([mix.box is not None for mix in both]) < 0.55
    half = draws(mixup=0.8, cutmix=1.0, probability=0.5)
    assert 0.45 < np.mean([mix.share == 1 for mix in half]) < 0.55


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 1, "mixup": 1.0}, "at least 2 classes"),
        ({"num_classes": 3}, "one must be above 0"),
        ({"num_classes": 3, "mixup": -1.0, "cutmix": 1.0}, "none below"),
        ({"num_classes": 3, "mixup": 1.0, "probability": 1.2}, "probability is 1.2"),
    ],
)
def test_rules(fields, message):
    with pytest.raises(ValueError, match=message):
        MixConfig(**fields)


def test_the_window_of_cutmix_reaches_every_border():
    config, rng = MixConfig(num_classes=3, cutmix=1.0), np.random.default_rng(0)
    tops, lefts, bottoms, rights = zip(*(draw_mix(config, (7, 12), rng).box for _ in range(300)))
    assert (min(tops), min(lefts), max(bottoms), max(rights)) == (0, 0, 7, 12)
