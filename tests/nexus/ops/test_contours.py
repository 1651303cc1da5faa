"""J and F, compared with a slow reading of their definition on scipy and scikit-image."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from skimage.morphology import disk

from nexus.ops.contours import clip_scores, contour, contour_accuracy, grown, region_similarity

SIZES = [(1, 1), (1, 9), (7, 5), (40, 64), (150, 200)]


def blobs(rng, size):
    """A mask of a few discs and boxes, with holes, some of them over the edge."""
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for number in range(5):
        cy, cx, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(1, 1 + max(size) / 3)
        mask = mask | (np.hypot(y - cy, x - cx) < r) if number % 2 == 0 else mask & ~(np.hypot(y - cy, x - cx) < r / 2)
    return mask


def slow_contour(mask):
    result = np.zeros_like(mask)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            neighbours = {mask[y, right], mask[below, x], mask[below, right]}
            result[y, x] = neighbours != {mask[y, x]}
    return result


def slow_f(truth, found):
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    wanted, given = slow_contour(truth), slow_contour(found)
    if wanted.sum() == 0 or given.sum() == 0:
        return 1.0 if wanted.sum() == given.sum() else 0.0
    precision = (given & binary_dilation(wanted, disk(radius))).sum() / given.sum()
    recall = (wanted & binary_dilation(given, disk(radius))).sum() / wanted.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("size", SIZES)
def test_they_are_what_the_definition_says(size):
    rng = np.random.default_rng(0)
    for _ in range(6):
        truth = blobs(rng, size)
        found = np.roll(truth, rng.integers(-4, 5, 2), axis=(0, 1)) ^ (rng.random(size) < 0.01)
        assert np.array_equal(contour(truth), slow_contour(truth))
        assert contour_accuracy(truth, found) == pytest.approx(slow_f(truth, found), abs=1e-12)
        union = (truth | found).sum()
        assert region_similarity(truth, found) == pytest.approx((truth & found).sum() / union if union else 1)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 11, 300])
def test_a_mask_grows_by_a_disc(radius):
    mask = np.random.default_rng(1).random((31, 44)) < 0.01
    wide = np.pad(mask, radius) if radius < 50 else mask
    expected = np.ones_like(mask) if radius > 50 else binary_dilation(wide, disk(radius))
    expected = expected if radius in (0, 300) else expected[radius:-radius, radius:-radius]
    assert np.array_equal(grown(mask, radius), expected)


def test_masks_without_an_outline():
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    part = empty.copy()
    part[5:9, 5:9] = True
    assert (region_similarity(empty, empty), contour_accuracy(empty, empty)) == (1, 1)
    assert (region_similarity(full, full), contour_accuracy(full, full)) == (1, 1)
    assert (region_similarity(empty, full), contour_accuracy(empty, full)) == (0, 1)
    assert (region_similarity(empty, part), contour_accuracy(empty, part)) == (0, 0)
    assert (region_similarity(part, empty), contour_accuracy(part, empty)) == (0, 0)
    far = np.roll(part, (10, 20), axis=(0, 1))
    assert (region_similarity(part, far), contour_accuracy(part, far)) == (0, 0)


def test_the_outline_is_forgiven_what_the_tolerance_says():
    truth = np.zeros((100, 100), bool)
    truth[30:60, 30:60] = True
    moved = np.roll(truth, 2, axis=1)  # 0.008 of a diagonal of 141 pixels is 2 pixels
    assert contour_accuracy(truth, moved) == 1
    assert contour_accuracy(truth, np.roll(truth, 3, axis=1)) < 1
    assert contour_accuracy(truth, np.roll(truth, 3, axis=1), tolerance=3) == 1
    assert contour_accuracy(truth, moved, tolerance=0) < contour_accuracy(truth, moved, tolerance=1) < 1


def test_the_ends_of_a_clip_do_not_count_unless_asked():
    rng = np.random.default_rng(2)
    truth = np.stack([blobs(rng, (40, 50)) for _ in range(5)])
    found = truth.copy()
    found[0] = found[4] = False
    assert clip_scores(truth, found).j_and_f == 1
    whole = clip_scores(truth, found, ends=True)
    assert whole.regions.tolist() == [0, 1, 1, 1, 0]
    assert whole.j == pytest.approx(0.6)
    assert whole.j_and_f == pytest.approx((0.6 + whole.contours.mean()) / 2)
    assert whole.f == pytest.approx(np.mean([slow_f(a, b) for a, b in zip(truth, found)]))


def test_mistakes_are_named():
    mask = np.zeros((3, 4, 5), bool)
    with pytest.raises(ValueError, match=r"The masks have the shapes \(4, 5\) and \(5, 4\); they must be of one."):
        region_similarity(mask[0], mask[0].T)
    with pytest.raises(ValueError, match=r"found holds uint8; a mask is an array of bool: write found > 0."):
        contour_accuracy(mask[0], mask[0].astype("uint8"))
    with pytest.raises(ValueError, match=r"tolerance is -1; it is a share of the diagonal, or pixels from 1 on."):
        contour_accuracy(mask[0], mask[0], tolerance=-1)
    with pytest.raises(ValueError, match=r"shape \(4, 5\); those of a clip are \(frames, height, width\)."):
        clip_scores(mask[0], mask[0])
    with pytest.raises(ValueError, match="A clip of 2 frames has none between its first and its last"):
        clip_scores(mask[:2], mask[:2])
