"""Resampling: interpolation, and images read at points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.choosing import fixed_shape, logical_and
from mithril.interop.mapping.registry import MAPPINGS, Mapping, maps, one_or_tuple, rank_of
from mithril.logical.connection import Expression, IOKey, Operand, record
from mithril.types import DType


def _upsample(mode: str) -> Mapping:
    """`others` are align_corners, except for nearest, and factors, as one list or one by one."""

    def upsample(
        node: Node, input: Operand, size: Sequence[int] | None, *others: bool | Sequence[float] | None
    ) -> Operand:
        options = {"mode": mode, "align_corners": not mode.startswith("nearest") and bool(others[0])}
        if size is not None:
            return record("interpolate", input=input, size=one_or_tuple(size), **options)
        factors = others[-1]
        assert isinstance(factors, list | tuple)
        factor = factors[0] if len(set(factors)) == 1 else tuple(factors)
        return record("interpolate", input=input, scale_factor=factor, **options)

    return upsample


for _name, _mode in {
    "nearest1d": "nearest", "nearest2d": "nearest", "nearest3d": "nearest", "linear1d": "linear",
    "bilinear2d": "bilinear", "bicubic2d": "bicubic", "trilinear3d": "trilinear",
}.items():  # fmt: skip
    MAPPINGS[f"upsample_{_name}"] = _upsample(_mode)
MAPPINGS |= {f"_upsample_nearest_exact{rank}d": _upsample("nearest-exact") for rank in (1, 2, 3)}


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2, as Pillow has it."""
    x = abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _averages(size: int, count: int, scale: float, reach: int, kernel: Callable[[np.ndarray], np.ndarray]) -> IOKey:
    """The weights (count, size) of an axis's values in each of its new ones: a kernel as wide as a new place is."""
    wide = max(scale, 1.0)
    centers = (np.arange(count)[:, None] + 0.5) * scale
    first, last = (np.trunc(centers + side * reach * wide + 0.5).clip(0, size) for side in (-1, 1))
    places = np.arange(size)
    weights = np.where((places >= first) & (places < last), kernel((places - centers + 0.5) / wide), 0)
    return IOKey(value=weights / weights.sum(axis=1, keepdims=True))


def _antialiased(reach: int, kernel: Callable[[np.ndarray], np.ndarray]) -> Mapping:
    def upsample(
        node: Node,
        input: Expression,
        size: Sequence[int] | None,
        align_corners: bool,
        *factors: Sequence[float] | float | None,
    ) -> Operand:
        """Rows, then columns, each by one matrix."""
        given: Any = factors[0] if len(factors) == 1 else factors
        counts, sizes = (fixed_shape(n, "Antialiased resampling")[-2:] for n in (node, node.args[0]))
        matrices = []
        for axis, (n, count) in enumerate(zip(sizes, counts)):
            factor = given[axis] if isinstance(given, list | tuple) and given else None
            scale = 1 / factor if factor else n / count
            if align_corners:
                scale = (n - 1) / (count - 1) if count > 1 else 0.0
            matrices.append(_averages(n, count, scale, reach, kernel))
        columns = record("swapaxes", input=matrices[1], axis1=0, axis2=1)
        return matrices[0] @ (input @ columns)

    return upsample


MAPPINGS["_upsample_bilinear2d_aa"] = _antialiased(1, _triangle)
MAPPINGS["_upsample_bicubic2d_aa"] = _antialiased(2, _cubic)


def _in_places(point: Operand, size: int, padding: str, align_corners: bool) -> Expression:
    """A coordinate from -1 to 1 as a place on an axis."""
    ends = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    place = record("add", left=record("multiply", left=point, right=(ends[1] - ends[0]) / 2), right=sum(ends) / 2)
    if padding == "zeros":
        return place
    if padding == "reflection" and ends[1] > ends[0]:
        length = ends[1] - ends[0]
        distance = record("remainder", left=record("absolute", input=place - ends[0]), right=2 * length)
        place = record("minimum", left=distance, right=2 * length - distance) + ends[0]
    return record("clip", input=place, min=0.0, max=size - 1.0)


def _sample_volume(node: Node, input: Expression, grid: Expression, mode: str, padding: str, align: bool) -> Operand:
    """Values of volumes (b, c, z, y, x) at points (b, ..., 3), from the corners of the cells that they lie in."""
    b, c, *sizes = fixed_shape(node.args[0], "Sampling of volumes")
    points = fixed_shape(node, "Sampling of volumes")[2:]
    places = [_in_places(grid[..., 2 - a], n, padding, align).reshape(b, 1, -1) for a, n in enumerate(sizes)]
    starts = [record("detach", input=record("floor" if mode == "bilinear" else "round", input=p)) for p in places]
    values, total = input.reshape(b, c, -1), None
    for corner in itertools.product((0, 1) if mode == "bilinear" else (0,), repeat=3):
        index, weight, seen = 0.0, 1.0, None
        for place, start, step, n in zip(places, starts, corner, sizes):
            at = start + step
            inside = logical_and(at >= 0, at <= n - 1)
            seen = inside if seen is None else logical_and(seen, inside)
            index = index * n + record("clip", input=at, min=0, max=n - 1)
            weight = weight * (1 - record("absolute", input=place - at)) if mode == "bilinear" else weight
        index = record(
            "broadcast_to", input=record("cast", input=index, dtype=DType.int64), shape=(b, c, math.prod(points))
        )
        found = record("take_along_axis", input=values, index=index, axis=2)
        part = record("where", condition=seen, input=found * weight, other=0.0)
        total = part if total is None else total + part
    return record("reshape", input=total, shape=(b, c, *points))


@maps("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sample(
    node: Node, input: Expression, grid: Expression, mode: int, padding: int, align_corners: bool
) -> Operand:
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    if rank_of(node) == 5:
        if modes[mode] == "bicubic":
            raise ConversionError("Sampling of volumes is bilinear or nearest, not bicubic.")
        return _sample_volume(node, input, grid, modes[mode], paddings[padding], align_corners)
    options = {"mode": modes[mode], "padding_mode": paddings[padding], "align_corners": align_corners}
    return record("grid_sample", input=input, grid=grid, **options)
