"""What is computed on Python values (sizes, numbers, attributes) while shapes are inferred."""

import operator
from collections.abc import Callable
from typing import Any

from mithril.errors import MithrilError, OperatorError
from mithril.physical.graph import Value
from mithril.types import MAX_INTEGER, Dim, maximum, minimum, plain

STATIC: dict[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "power": lambda left, right: _power(left, right),
    "negative": operator.neg,
    "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le,
    "greater": operator.gt, "greater_equal": operator.ge, "minimum": minimum, "maximum": maximum,
    "sqrt": lambda input: input**0.5, "buffer": lambda input: input,
}  # fmt: skip
"""Operators that compute on Python values (sizes, numbers) while shapes are inferred."""

NUMBERS = (bool, int, float, Dim)


def compute(name: str, inputs: list[object], path: str) -> Any:
    """The value of an operator on numbers and sizes, or of the sum of two lists of them.

    Raises:
        OperatorError: there is none, or none that is a size or a number.
    """
    joined = name in ("add", "equal", "not_equal", "buffer") and all(type(item) is tuple for item in inputs)
    if not joined and not all(type(item) in NUMBERS for item in inputs):
        raise OperatorError(f"{path}: {name} cannot compute with {_shown(inputs)}; it needs tensors, numbers or sizes.")
    try:
        value = STATIC[name](*inputs)
    except MithrilError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        raise OperatorError(f"{path}: {name} of {_shown(inputs)} has no value: {error}.") from error
    if not joined and (type(value) not in NUMBERS or (type(value) is int and abs(value) >= MAX_INTEGER)):
        raise OperatorError(f"{path}: {name} of {_shown(inputs)} is no size or number that can be computed with.")
    return value


def _power(left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int and abs(left).bit_length() * max(right, 0) > 64:
        raise OverflowError("it is too large")
    return left**right


def _shown(inputs: list[object]) -> str:
    return " and ".join(f"{item!r:.60}" for item in inputs)


def is_array(value: object) -> bool:
    """Whether it is an array of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, Value | Dim)


def as_static(value: object, what: str = "it") -> Any:
    """Attributes are plain and immutable, so that equal ones can be recognised and all can be written down.

    Raises:
        OperatorError: the value is a tensor that is computed, or has no plain value.
    """
    if isinstance(value, list | tuple):
        return tuple(as_static(part, what) for part in value)
    if isinstance(value, Value):
        if value.data is None:
            raise OperatorError(f"{what} is the tensor '{value.path}', but it must be known before the model runs.")
        value = value.data
    try:
        return plain(value)
    except OperatorError as error:
        raise OperatorError(f"{what} is {value!r:.60}: {error.message}") from None


def pick(items: tuple[Any, ...], key: Any, path: str) -> Any:
    """An element of a list of tensors or of a shape."""
    at = key[0] if isinstance(key, tuple) and len(key) == 1 else key
    try:
        return items[at]
    except (IndexError, TypeError, ValueError):
        raise OperatorError(f"{path}: {at!r:.60} does not index a list of {len(items)} elements.") from None


def split_key(key: object, path: str) -> tuple[tuple[Any, ...], tuple[Value, ...]]:
    """Static parts of an index in place, tensors as "tensor" and in a list."""
    parts = key if isinstance(key, tuple) else (key,)
    tensors = tuple(p for p in parts if isinstance(p, Value))
    items = tuple("tensor" if isinstance(p, Value) else as_static(p, f"{path}: a part of the index") for p in parts)
    for part, item in zip(parts, items):
        if not (item is None or item is ... or isinstance(part, Value) or type(item) in (int, bool, slice, Dim)):
            raise OperatorError(f"{path}: {item!r:.60} is no index: a number, slice, None, ... or tensor.")
    return items, tensors
