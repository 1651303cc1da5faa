"""Dice and distances of surfaces against kept figures of MedSAM's authors' code, and against plain loops.

The areas in `golden/medsam` are those of a table of 256 kinds of cuts; ours are derived from the geometry of each.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from nexus.evaluation import dice, surface_distances
from nexus.evaluation.surfaces import cut_area

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
SPACINGS = json.loads((GOLDEN / "medsam.json").read_text())["metric_spacing"]
EMPTY = ("truth_empty", "prediction_empty", "both_empty")


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "medsam.safetensors")


def masks_of(golden, name):
    return golden[f"inputs/metric/{name}/truth"], golden[f"inputs/metric/{name}/prediction"]


@pytest.mark.parametrize("name", [name for name in SPACINGS if name not in EMPTY])
def test_figures_are_those_of_the_authors(golden, name):
    truth, prediction = masks_of(golden, name)
    kept = {key.rpartition("/")[2]: value for key, value in golden.items() if f"outputs/metric/{name}/" in key}
    found = surface_distances(truth, prediction, SPACINGS[name])
    assert dice(truth, prediction) == pytest.approx(kept["dice"][0], abs=1e-12)
    for tolerance in (0, 1, 2, 5):
        assert found.surface_dice(tolerance) == pytest.approx(kept[f"surface_dice_tol{tolerance}"][0], abs=1e-12)
    assert found.hausdorff_mm() == pytest.approx(kept["hausdorff95"][0], abs=1e-12)
    assert found.average_mm() == pytest.approx(kept["average_surface_distance"], abs=1e-12)
    for side, ours, areas in (
        ("gt", found.truth_mm, found.truth_areas),
        ("pred", found.prediction_mm, found.prediction_areas),
    ):
        other = "pred" if side == "gt" else "gt"
        distances = kept[f"distances_{side}_to_{other}"]
        np.testing.assert_allclose(ours, distances, rtol=0, atol=1e-12)
        pairs = [np.lexsort((area, distance.round(9))) for area, distance in
                 ((areas, ours), (kept[f"surfel_areas_{side}"], distances))]  # fmt: skip
        np.testing.assert_allclose(areas[pairs[0]], kept[f"surfel_areas_{side}"][pairs[1]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EMPTY)
def test_empty_masks_say_what_they_mean(golden, name):
    """One empty mask is as wrong as can be. Two agree, where the authors' code gives no number."""
    truth, prediction = masks_of(golden, name)
    found = surface_distances(truth, prediction, (1, 1, 1))
    both = name == "both_empty"
    assert math.isnan(golden[f"outputs/metric/{name}/dice"][0]) == both
    assert dice(truth, prediction) == found.surface_dice(5) == (1.0 if both else 0.0)
    assert found.hausdorff_mm() == (0.0 if both else math.inf)
    if not both:
        np.testing.assert_equal(found.average_mm(), golden[f"outputs/metric/{name}/average_surface_distance"])


def by_loops(truth, prediction, spacing, tolerance):
    """NSD once more: every cube against every other, one at a time."""
    wide = [np.pad(mask, 1) for mask in (truth, prediction)]
    cubes = []
    for mask in wide:
        found = {}
        for place in np.ndindex(*(side - 1 for side in mask.shape)):
            z, y, x = place
            eight = mask[z : z + 2, y : y + 2, x : x + 2]
            if eight.any() and not eight.all():
                code = sum(int(inside) << bit for bit, inside in enumerate(eight.ravel()))
                found[place] = cut_area(code, spacing)
        cubes.append(found)
    near = whole = 0.0
    for own, other in (cubes, cubes[::-1]):
        for place, area in own.items():
            least = min(math.dist(*(np.multiply(one, spacing) for one in (place, far))) for far in other)
            near, whole = near + area * (least <= tolerance), whole + area
    return near / whole


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.9)])
def test_surface_dice_is_that_of_plain_loops(spacing):
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:5, :9, :8]
    truth = (z - 2) ** 2 / 4 + (y - 4) ** 2 / 9 + (x - 3) ** 2 / 8 < 1
    prediction = np.roll(truth, 1, axis=2) ^ (rng.random(truth.shape) < 0.05)
    found = surface_distances(truth, prediction, spacing)
    for tolerance in (0.0, 0.9, 1.0, 2.0):
        assert found.surface_dice(tolerance) == pytest.approx(
            by_loops(truth, prediction, spacing, tolerance), abs=1e-12
        )


def test_a_box_moved_by_one_voxel():
    """Its two ends have moved by 2 mm, the rest of its surface runs where it ran."""
    box = np.zeros((30, 30, 30), bool)
    box[5:25, 5:25, 5:25] = True
    found = surface_distances(box, np.roll(box, 1, axis=0), (2.0, 1.0, 1.0))
    assert found.surface_dice(2.0) == 1.0
    assert found.surface_dice(0.0) == pytest.approx(0.8, abs=0.02)
    assert found.hausdorff_mm() == 2.0
    assert surface_distances(box, box, (2, 1, 1)).truth_areas.sum() == pytest.approx(
        2 * 20 * 20 + 4 * 40 * 20, rel=0.03
    )


def test_the_area_of_a_cut():
    assert cut_area(0, (1, 1, 1)) == cut_area(255, (1, 1, 1)) == 0
    assert cut_area(0b00001111, (9.0, 2.0, 3.0)) == pytest.approx(6)  # all of the first z
    assert cut_area(1, (1, 1, 1)) == pytest.approx(math.sqrt(3) / 8)
    for code, axis in itertools.product(range(256), range(3)):
        spacing = [1.0, 1.0, 1.0]
        spacing[axis] = 2.0
        assert cut_area(code, tuple(spacing)) == pytest.approx(cut_area(255 - code, tuple(spacing)))


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), (1, 1, 1), r"shapes \(2, 3, 4\) and \(2, 3, 5\); they must be one"),
        (np.full((2, 3, 4), 7), np.zeros((2, 3, 4)), (1, 1, 1), "truth holds other values than 0 and 1; of labels compare"),
        (np.zeros((3, 4)), np.zeros((3, 4)), (1, 1), r"have the shape \(3, 4\); surfaces are those of volumes"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), (1, 0, 1), r"spacing_mm is \(1, 0, 1\); it is three numbers above 0"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), (1, 1), "spacing_mm is .* one for each axis"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_masks_is_named(truth, prediction, spacing, message):
    with pytest.raises(ValueError, match=message):
        surface_distances(truth, prediction, spacing)


def test_masks_that_spread_too_far_are_refused(monkeypatch):
    monkeypatch.setattr("nexus.evaluation.surfaces.MOST_CUBES", 1000)
    with pytest.raises(ValueError, match="spread over 1,331 voxels; at most 1,000 are compared"):
        surface_distances(np.ones((10, 10, 10)), np.ones((10, 10, 10)), (1, 1, 1))
