"""How well two masks of a volume agree: by their voxels (Dice), and by their surfaces, in millimetres.

Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy: Deep Learning Algorithm
Development and Validation Study", 2021 (surface Dice). https://arxiv.org/abs/1809.04430

The surface of a mask runs through the cubes whose corners are the middles of eight neighbouring voxels: it cuts each
edge of a cube in the middle that joins a voxel inside with one outside. A cube that is cut counts with the area of its
cut, and stands at its own middle, from which the distance to the other surface is taken.

Dims: z y x voxels of a volume, n cubes that a surface cuts.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

Point = tuple[float, float, float]
CORNERS = tuple(itertools.product((0, 1), repeat=3))
"""Of a cube, as z, y, x; bit `i` of a cube's code says whether corner `i` is inside."""
WHOLE = 255
"""The code of a cube that is inside."""
MOST_CUBES = 1 << 27
"""Of a volume around both masks: 1 GiB of distances."""


@dataclass(frozen=True)
class SurfaceDistances:
    """The cubes that two surfaces cut, in increasing order of their distance to the other surface.

    Attributes:
        truth_mm: Distance of each cube of the true surface to the predicted one; infinite where there is none.
        truth_areas: The area of its cut, in square millimetres.
        prediction_mm: Likewise from the predicted surface to the true one.
        prediction_areas: Likewise.
    """

    truth_mm: Float[np.ndarray, "n"]
    truth_areas: Float[np.ndarray, "n"]
    prediction_mm: Float[np.ndarray, "m"]
    prediction_areas: Float[np.ndarray, "m"]

    def surface_dice(self, tolerance_mm: float) -> float:
        """Returns the share of both surfaces that is no further than `tolerance_mm` from the other one.

        It is also called normalized surface distance (NSD). Two empty masks agree: 1. One empty mask gives 0.
        """
        whole = self.truth_areas.sum() + self.prediction_areas.sum()
        near = self.truth_areas[self.truth_mm <= tolerance_mm].sum()
        near += self.prediction_areas[self.prediction_mm <= tolerance_mm].sum()
        return float(near / whole) if whole else 1.0

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """Returns the distance within which so much of each surface lies; 0 for two empty masks."""
        pairs = ((self.truth_mm, self.truth_areas), (self.prediction_mm, self.prediction_areas))
        if not len(self.truth_mm) and not len(self.prediction_mm):
            return 0.0
        return max(_within(distances, areas, percent / 100) for distances, areas in pairs)

    def average_mm(self) -> tuple[float, float]:
        """Returns the mean distance of the true surface to the predicted one, and the other way round.

        That of no surface is not a number.
        """
        pairs = ((self.truth_mm, self.truth_areas), (self.prediction_mm, self.prediction_areas))
        truth, prediction = (float(d @ a / a.sum()) if len(a) else float("nan") for d, a in pairs)
        return truth, prediction


def _within(distances: Float[np.ndarray, "n"], areas: Float[np.ndarray, "n"], share: float) -> float:
    if not len(distances):
        return float("inf")
    at = np.searchsorted(areas.cumsum() / areas.sum(), share)
    return float(distances[min(at, len(distances) - 1)])


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Returns 2 |both| / (|truth| + |prediction|) of two masks of any one shape; two empty masks agree: 1.

    Raises:
        ValueError: They are no masks, or of different shapes.
    """
    truth, prediction = _masks(truth, prediction)
    whole = truth.sum() + prediction.sum()
    return float(2 * (truth & prediction).sum() / whole) if whole else 1.0


def surface_distances(
    truth: Bool[np.ndarray, "z y x"], prediction: Bool[np.ndarray, "z y x"], spacing_mm: Sequence[float]
) -> SurfaceDistances:
    """Returns how far the surfaces of two masks are apart.

    Args:
        truth: True inside, or 1.
        prediction: Likewise.
        spacing_mm: Of the voxels along each axis of the arrays.

    Raises:
        ValueError: They are no volumes of one shape, or the spacing is none.
    """
    truth, prediction = _masks(truth, prediction)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if truth.ndim != 3:
        raise ValueError(f"The masks have the shape {truth.shape}; surfaces are those of volumes (z, y, x).")
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise ValueError(f"spacing_mm is {spacing_mm}; it is three numbers above 0, one for each axis of the arrays.")
    part = _around(truth | prediction)
    codes = [_codes(mask[part]) for mask in (truth, prediction)]
    cut = [(code != 0) & (code != WHOLE) for code in codes]
    table = np.array([cut_area(code, tuple(spacing.tolist())) for code in range(WHOLE + 1)])
    found = [_sorted(_distances(cut[1 - this], cut[this], spacing), table[codes[this][cut[this]]]) for this in (0, 1)]
    return SurfaceDistances(*found[0], *found[1])


def _masks(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    for name, mask in {"truth": truth, "prediction": prediction}.items():
        if mask.dtype != np.bool_ and not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{name} holds other values than 0 and 1; of labels compare one: labels == 3.")
    if truth.shape != prediction.shape:
        raise ValueError(f"The masks have the shapes {truth.shape} and {prediction.shape}; they must be one.")
    return truth.astype(bool), prediction.astype(bool)


def _around(mask: Bool[np.ndarray, "z y x"]) -> tuple[slice, ...]:
    """Returns the smallest part that holds all of a mask."""
    axes = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    part = tuple(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0) for inside in axes)
    cubes = np.prod([one.stop - one.start + 1 for one in part])
    if cubes > MOST_CUBES:
        raise ValueError(f"The masks spread over {cubes:,} voxels; at most {MOST_CUBES:,} are compared. Thin them out.")
    return part


def _codes(mask: Bool[np.ndarray, "z y x"]) -> Int[np.ndarray, "z+1 y+1 x+1"]:
    """Returns for each cube which of its corners are inside; beyond the border nothing is."""
    wide = np.pad(mask, 1).astype(np.uint8)
    sides = [side - 1 for side in wide.shape]
    codes = np.zeros(sides, np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = tuple(slice(start, start + side) for start, side in zip(corner, sides))
        codes |= wide[window] << np.uint8(bit)
    return codes


def _sorted(distances: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distances, kind="stable")
    return distances[order], areas[order]


def _distances(
    to: Bool[np.ndarray, "z y x"], of: Bool[np.ndarray, "z y x"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "n"]:
    """Returns the distance of each cube of `of`, in their order, to the nearest of `to`; infinite if there is none."""
    if not to.any() or not of.any():
        return np.full(int(of.sum()), np.inf)
    squared = np.where(to, 0.0, np.inf)
    for axis in np.argsort(to.shape):
        squared = np.moveaxis(_nearest(np.moveaxis(squared, axis, 0), spacing[axis]), 0, axis)
    return np.sqrt(squared[of])


def _nearest(squared: Float[np.ndarray, "k a b"], step: float) -> Float[np.ndarray, "k a b"]:
    """Returns the least sum of a square along the first axis and the square of the way there."""
    best = squared.copy()
    for shift in range(1, len(squared)):
        way = (shift * step) ** 2
        if way >= best.max():
            break
        np.minimum(best[shift:], squared[:-shift] + way, out=best[shift:])
        np.minimum(best[:-shift], squared[shift:] + way, out=best[:-shift])
    return best


# The area of a cut


def cut_area(code: int, spacing: tuple[float, float, float]) -> float:
    """Returns the area of the surface in a cube, in units of `spacing` squared.

    Args:
        code: Which corners are inside.
        spacing: The cube's sides.
    """
    scale = np.prod(spacing) / np.array(spacing)
    return float(sum(np.linalg.norm(one * scale) for one in _cut(code)))


@cache
def _cut(code: int) -> list[np.ndarray]:
    """Returns the triangles of the cut of a unit cube, each as the vector that stands on it and is as long as its area.

    Corners that touch at a cube's edge alone are cut off one by one: those inside or those outside, whichever are
    fewer. An outline that lies in no plane is filled with the triangles whose area is largest.
    """
    inside = [corner for bit, corner in enumerate(CORNERS) if code >> bit & 1]
    fewer = inside if len(inside) <= 4 else [corner for corner in CORNERS if corner not in inside]
    return [one for outline in _outlines(set(fewer)) for one in max(_fillings(outline), key=_area)]


def _area(triangles: Sequence[np.ndarray]) -> float:
    return round(float(sum(map(np.linalg.norm, triangles))), 9)


def _outlines(inside: set[tuple[int, ...]]) -> list[list[Point]]:
    """Returns the closed lines along which the cut meets the cube's sides."""
    beside: dict[Point, list[Point]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = [_on_side(axis, side, *place) for place in ((0, 0), (0, 1), (1, 1), (1, 0))]
        crossed = [at for at in range(4) if (ring[at] in inside) != (ring[at - 1] in inside)]
        pairs = [(crossed[0], crossed[1])] if len(crossed) == 2 else []
        if len(crossed) == 4:
            pairs = [(at, (at + 1) % 4) for at in range(4) if ring[at] in inside]
        for one, other in pairs:
            ends = [_middle(ring[at], ring[at - 1]) for at in (one, other)]
            beside.setdefault(ends[0], []).append(ends[1])
            beside.setdefault(ends[1], []).append(ends[0])
    outlines = []
    while beside:
        line = [next(iter(beside))]
        while following := [point for point in beside.pop(line[-1]) if point in beside]:
            line.append(following[0])
        outlines.append(line)
    return outlines


def _on_side(axis: int, side: int, first: int, second: int) -> tuple[int, ...]:
    place = [first, second]
    place.insert(axis, side)
    return tuple(place)


def _middle(one: Sequence[int], other: Sequence[int]) -> Point:
    z, y, x = ((a + b) / 2 for a, b in zip(one, other))
    return z, y, x


def _fillings(line: Sequence[Point]) -> list[list[np.ndarray]]:
    """Returns every way to fill a closed line with triangles between its points."""
    if len(line) < 3:
        return [[]]
    first, last = np.array(line[0]), np.array(line[-1])
    found = []
    for at in range(1, len(line) - 1):
        triangle = np.cross(np.array(line[at]) - first, last - first) / 2
        parts = itertools.product(_fillings(line[: at + 1]), _fillings(line[at:]))
        found += [[triangle, *one, *other] for one, other in parts]
    return found
