"""Random operators. The key is an explicit input of two int32 words, so that equal keys give equal numbers.

The numbers of different frameworks differ; their distribution does not.
"""

from __future__ import annotations

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.indexing import given
from mithril.ops.rules import always, first
from mithril.ops.table import REQUIRED, Op, define
from mithril.types import DType, Shape


def key_shape(key: Shape, **attributes: Any) -> Shape:
    if key != (2,):
        raise ShapeError(f"a random key has shape (2,), not {key}.")
    return key


define(
    Op(
        name="fold_key",
        inputs=("key",),
        attributes={"index": REQUIRED},
        shape=key_shape,
        dtype=always(DType.int32),
    )
)
for _name in ("rand", "randn"):
    define(
        Op(
            name=_name,
            inputs=("key",),
            attributes={"shape": REQUIRED, "dtype": DType.float32},
            shape=lambda key, *, shape, **attributes: tuple(shape),
            dtype=given,
            random=True,
        )
    )
define(
    Op(
        name="dropout",
        inputs=("input", "key"),
        attributes={"rate": 0.5, "training": None},
        shape=lambda input, key, **attributes: input,
        dtype=first,
        identity=lambda *, rate=0.5, training=None: rate == 0 or training is False,
        random=True,
    )
)
