"""Resampling: interpolation, and images read at points."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from mithril.interop.mapping.registry import MAPPINGS, Mapping, maps, one_or_tuple
from mithril.logical.connection import Operand, record


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


@maps("grid_sampler", "grid_sampler_2d")
def grid_sample(node: Node, input: Operand, grid: Operand, mode: int, padding: int, align_corners: bool) -> Operand:
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    options = {"mode": modes[mode], "padding_mode": paddings[padding], "align_corners": align_corners}
    return record("grid_sample", input=input, grid=grid, **options)
