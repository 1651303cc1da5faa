"""Positions of tokens, (..., t, d): added to their values, or as rotations of them.

Dims: t positions, d width.
"""

from typing import Any

from mithril.errors import ShapeError
from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.models.common import op, parameter


def angles(input: IOKey, base: float) -> tuple[Expression, Expression]:
    """Returns sine and cosine (t, d / 2) of position / base^(2 i / d)."""
    import numpy as np

    *_, t, d = input.shape
    if not isinstance(d, int) or d % 2:
        raise ShapeError(f"positions are pairs of sine and cosine: the width {d} must be known and even.")
    speeds = IOKey(value=base ** (-np.arange(0, d, 2) / d))
    turn = op("arange")(stop=t)[:, None] * speeds
    return turn.sin(), turn.cos()


def interleaved(first: Expression, second: Expression) -> Expression:
    """Returns the pairs in turn, along the last axis."""
    pairs: Any = op("stack", axis=-1)([first, second])
    return pairs.flatten(start_dim=-2)


class SinusoidalPositionalEncoding(Operator):
    """Adds sin(p / base^(2i/d)) to channel 2i, and the cosine to 2i + 1. Vaswani et al. 2017, Sec. 3.5."""

    def __init__(self, base: float = 10000.0, name: str | None = None):
        super().__init__(name=name)
        self.base = base

    def create_model(self) -> Model:
        model, x = Model(), IOKey("input")
        model |= op("add")(x, interleaved(*angles(x, self.base)), output=IOKey("output"))
        return model


class LearnedPositionalEncoding(Model):
    """Adds the first t rows of a learned table; t is at most `max_length`. Keys: `input`, `weight`, `output`."""

    def __init__(self, max_length: int, dimension: int, name: str | None = None):
        super().__init__(name)
        x, table = IOKey("input"), parameter("weight", [max_length, dimension])
        self |= op("add")(x, table[: x.shape[-2]], output=IOKey("output"))
        self.set_cin("input")


class RotaryEmbedding(Operator):
    """Turns pairs of channels of queries or keys by angles that grow with the position. Su et al. 2021, Eq. 34.

    Args:
        base: The slowest pair turns once in 2π base^(1 - 2/d) positions.
        is_interleaved: Whether channels 2i and 2i + 1 are a pair, as in the paper; else i and i + d/2, as in Llama.
    """

    def __init__(self, base: float = 10000.0, is_interleaved: bool = False, name: str | None = None):
        super().__init__(name=name)
        self.base = base
        self.is_interleaved = is_interleaved

    def create_model(self) -> Model:
        model, x = Model(), IOKey("input")
        sin, cos = angles(x, self.base)
        half = x.shape[-1] // 2
        if self.is_interleaved:
            a, b = x[..., ::2], x[..., 1::2]
        else:
            a, b = x[..., :half], x[..., half:]
        turned = a * cos - b * sin, b * cos + a * sin
        output = interleaved(*turned) if self.is_interleaved else op("concat", axis=-1)(list(turned))
        model |= op("buffer")(input=output, output=IOKey("output"))
        return model
