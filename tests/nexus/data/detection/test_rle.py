"""Runs and outlines against pycocotools."""

import numpy as np
import pytest

from nexus.data.detection.rle import RLE, encode, from_polygons, outline, read_counts, write_counts


def random_mask(rng):
    height, width = rng.integers(1, 30, 2)
    return rng.random((height, width)) < rng.choice([0, 0.1, 0.5, 0.9, 1])


def test_runs_equal_pycocotools(needed):
    coco = needed("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(100):
        mask = random_mask(rng)
        ours, theirs = encode(mask), coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert write_counts(ours.counts) == theirs["counts"].decode()
        assert RLE(*mask.shape, read_counts(theirs["counts"].decode())) == ours
        assert ours.area == coco.area(theirs)
        np.testing.assert_array_equal(ours.decode(), mask)
        if mask.any():
            x, y, w, h = coco.toBbox(theirs)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert ours.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x, y, x + w, y + h)


def test_polygons_equal_pycocotools(needed):
    coco = needed("pycocotools.mask")
    rng = np.random.default_rng(1)
    for round_number in range(200):
        height, width = rng.integers(1, 40, 2).tolist()
        rings = [rng.uniform(-5, 45, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 4))]
        if round_number % 3 == 0:
            rings = [np.round(ring) for ring in rings]
        theirs = coco.merge(coco.frPyObjects([ring.reshape(-1).tolist() for ring in rings], height, width))
        assert write_counts(from_polygons(rings, height, width).counts) == theirs["counts"].decode()


def test_one_outline_holds_parts_and_holes_exactly():
    rng = np.random.default_rng(2)
    for _ in range(100):
        mask = random_mask(rng)
        rle = encode(mask)
        ring = outline(rle)
        assert len(ring) == 0 if not mask.any() else from_polygons([ring], *mask.shape) == rle
    frame = np.ones((5, 6), bool)
    frame[1:4, 2:4] = False
    assert outline(encode(frame)).shape == (4 + 1 + 4 + 1, 2), "two loops of four corners, and the ways between"


def test_broken_text_is_named():
    with pytest.raises(ValueError, match="counts break off inside a number"):
        read_counts("0P")
    with pytest.raises(ValueError, match="'~' at place 1"):
        read_counts("0~")
