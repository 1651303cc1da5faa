"""Random operators. The key is an explicit input of two int32 words, so that equal keys give equal numbers.

The numbers of different frameworks differ; their distribution does not.
"""

from mithril.ops.rules import always, given, row, same
from mithril.ops.table import REQUIRED
from mithril.types import DType


def unchanged(*, rate: float = 0.5, training: bool | None = None) -> bool:
    """Whether dropout does nothing."""
    return rate == 0 or training is False


DRAW = {"shape": REQUIRED, "dtype": DType.float32}
RATE = {"rate": 0.5, "training": None}

FOLD_KEY = {
    "jax": "lax.bitcast_convert_type(jax.random.key_data(jax.random.fold_in(prng({key}), {index})), jnp.int32)",
    "mlx": "mx.random.split({key}.view(mx.uint32), {index} + 1)[{index}].view(mx.int32)",
    "torch": "({key}.long() * 2654435761 + ({index} + 1) * 40503 + {key}.flip(0).long() * 97).to(torch.int32)",
}
RANDN = {
    "torch": "torch.randn({shape}, generator=generator({key}), dtype={dtype}, device={key}.device)",
    "jax": "jax.random.normal(prng({key}), {shape}, {dtype})",
    "mlx": "mx.random.normal(shape={shape}, dtype={dtype}, key={key}.view(mx.uint32))",
    "numpy": "generator({key}).standard_normal({shape}).astype({dtype})",
}

row("fold_key", "key", FOLD_KEY, {"index": REQUIRED}, signature="2 -> 2", dtype=always(DType.int32))
for _name, _code in (("rand", "uniform({key}, {shape}, {dtype})"), ("randn", RANDN)):
    row(_name, "key", _code, DRAW, shape=lambda key, *, shape, dtype: tuple(shape), dtype=given, random=True)
row("dropout", "input key", {}, RATE, shape=same, identity=unchanged, random=True,
    gradient={"input": "dropout({grad}, {key}, {rate})"})  # fmt: skip
