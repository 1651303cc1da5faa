"""Random operators. The key is an explicit input of two int32 words, so that equal keys give equal numbers.

The numbers of different frameworks differ; their distribution does not.
"""

from __future__ import annotations

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.indexing import given
from mithril.ops.rules import always, row, same
from mithril.ops.table import REQUIRED
from mithril.types import DType, Shape


def key_shape(key: Shape, **attributes: Any) -> Shape:
    if key != (2,):
        raise ShapeError(f"a random key has shape (2,), not {key}.")
    return key


def unchanged(*, rate: float = 0.5, training: bool | None = None) -> bool:
    """Whether dropout does nothing."""
    return rate == 0 or training is False


DRAW = {"shape": REQUIRED, "dtype": DType.float32}
RATE = {"rate": 0.5, "training": None}

row("fold_key", "key", {}, {"index": REQUIRED}, shape=key_shape, dtype=always(DType.int32))
for _name in ("rand", "randn"):
    row(_name, "key", {}, DRAW, shape=lambda key, *, shape, dtype: tuple(shape), dtype=given, random=True)
row("dropout", "input key", {}, RATE, shape=same, identity=unchanged, random=True)
