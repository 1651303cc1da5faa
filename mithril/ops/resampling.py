"""Resampling of images, and the loss of classifiers, as single operators."""

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import called, differ, floats_like, row, spread
from mithril.ops.table import REQUIRED, Call
from mithril.types import Dimension, Shape


def interpolate_shape(
    input: Shape, *, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool = False
) -> Shape:
    rank = len(input) - 2
    ranks = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if ranks.get(mode, rank) != rank:
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


def cross_entropy_torch(call: Call) -> str:
    """`F.cross_entropy(x, t, weight=x.new_tensor((1.0, 2.0)), reduction="none")`."""
    weight = call.attributes["weight"]
    texts = [call.arguments("input", "target", label_smoothing=0.0, ignore_index=-100)]
    texts += [] if weight is None else [f"weight={call['input']}.new_tensor({call['weight']})"]
    return f'F.cross_entropy({", ".join(texts)}, reduction="none")'


def cross_entropy_shape(
    input: Shape, target: Shape, *, weight: tuple[float, ...] | None, **attributes: object
) -> Shape:
    if weight is not None and differ(input[1], len(weight)):
        raise ShapeError(f"cross_entropy: {len(weight)} weights for {input[1]} classes; give one for each.")
    return (input[0], *input[2:])


CROSS_ENTROPY = {"label_smoothing": 0.0, "ignore_index": -100, "weight": None}

row("interpolate", "input", {"torch": called("F.interpolate", "input", **INTERPOLATE)}, INTERPOLATE,
    signature="n c ...", shape=interpolate_shape, dtype=floats_like,
    choices={"mode": ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear")},
    gradient={"input": "interpolate_gradient({grad}, {input}, {scale_factor}, {mode}, {align_corners})"})  # fmt: skip
# torch warns where `align_corners` is left out
GRID_SAMPLE_TORCH = called("F.grid_sample", "input", "grid", **{**GRID_SAMPLE, "align_corners": None})
row("grid_sample", "input grid", {"torch": GRID_SAMPLE_TORCH}, GRID_SAMPLE, signature="n c h w, n y x 2 -> n c y x",
    dtype=floats_like,
    choices={"mode": ("bilinear", "nearest", "bicubic"), "padding_mode": ("zeros", "border", "reflection")},
    gradient={"input grid": "grid_sample_gradient({grad}, {input}, {grid}, {mode}, {padding_mode}, {align_corners})"}
    )  # fmt: skip
row("pixel_shuffle", "input", {"torch": "F.pixel_shuffle({input}, {factor})"}, {"factor": REQUIRED},
    signature="n c h w", shape=pixel_shuffle_shape,
    gradient={"input": "moved_back({grad}, {input}, lambda x: pixel_shuffle(x, {factor}))"})  # fmt: skip
row("cross_entropy", "input target", {"torch": cross_entropy_torch}, CROSS_ENTROPY,
    signature="n c ..., n ...", shape=cross_entropy_shape, dtype=floats_like, kinds={"target": int}, gradient={"input":
    "cross_entropy_gradient({grad}, {input}, {target}, {label_smoothing}, {ignore_index}, {weight})"})  # fmt: skip
