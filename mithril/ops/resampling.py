"""Resampling of images, and the loss of classifiers, as single operators."""

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import called, row, spread
from mithril.ops.table import REQUIRED
from mithril.types import Dimension, Shape


def interpolate_shape(
    input: Shape, *, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool = False
) -> Shape:
    rank = len(input) - 2
    ranks = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if ranks.get(mode, rank) != rank or mode not in (*ranks, "nearest", "nearest-exact"):
        raise ShapeError(f"interpolate: mode '{mode}' does not fit an input of {rank} spatial axes.")
    if (size is None) == (scale_factor is None):
        raise ShapeError("interpolate: give either size or scale_factor.")
    if size is not None:
        return (*input[:2], *spread(size, rank, "size"))
    factors = spread(scale_factor, rank, "scale_factor")
    return (*input[:2], *(scaled(have, factor) for have, factor in zip(input[2:], factors)))


def scaled(size: Dimension, factor: float) -> Dimension:
    """A size times a factor, rounded down."""
    if isinstance(size, int) or factor == int(factor):
        return int(size * factor) if isinstance(size, int) else size * int(factor)
    over = round(1 / factor)
    if abs(over * factor - 1) < 1e-9:
        return size // over
    raise ShapeError(f"interpolate: scale_factor {factor} needs a known size, not {size}.")


INTERPOLATE = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": False}
GRID_SAMPLE = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": False}


def pixel_shuffle_shape(shape: Shape, *, factor: int) -> Shape:
    *lead, c, h, w = shape
    if isinstance(c, int) and c % factor**2:
        raise ShapeError(f"pixel_shuffle: {c} channels are not a multiple of factor² = {factor**2}.")
    return (*lead, c // factor**2, h * factor, w * factor)


CROSS_ENTROPY = {"label_smoothing": 0.0, "ignore_index": -100}
CROSS_ENTROPY_TORCH = called("F.cross_entropy", "input", "target", **CROSS_ENTROPY, end=', reduction="none"')

row("interpolate", "input", {"torch": called("F.interpolate", "input", **INTERPOLATE)}, INTERPOLATE,
    signature="n c ...", shape=interpolate_shape,
    gradient={"input": "interpolate_gradient({grad}, {input}, {scale_factor}, {mode}, {align_corners})"})  # fmt: skip
# torch warns where `align_corners` is left out
GRID_SAMPLE_TORCH = called("F.grid_sample", "input", "grid", **{**GRID_SAMPLE, "align_corners": None})
row("grid_sample", "input grid", {"torch": GRID_SAMPLE_TORCH}, GRID_SAMPLE, signature="n c h w, n y x 2 -> n c y x",
    gradient={"input grid": "grid_sample_gradient({grad}, {input}, {grid}, {mode}, {padding_mode}, {align_corners})"}
    )  # fmt: skip
row("pixel_shuffle", "input", {"torch": "F.pixel_shuffle({input}, {factor})"}, {"factor": REQUIRED},
    signature="n c h w", shape=pixel_shuffle_shape,
    gradient={"input": "moved_back({grad}, {input}, lambda x: pixel_shuffle(x, {factor}))"})  # fmt: skip
row("cross_entropy", "input target", {"torch": CROSS_ENTROPY_TORCH}, CROSS_ENTROPY, signature="n c ..., n ... -> n ...",
    kinds={"target": int}, gradient={
    "input": "cross_entropy_gradient({grad}, {input}, {target}, {label_smoothing}, {ignore_index})"})  # fmt: skip
