"""Wires of a logical model, and everything that can stand for one in an expression.

A `Connection` belongs to a model. An `IOKey` describes a connection before there is one. A `Wiring` is a model with
its wires named, as a call returns it; it enters a model when it is added or when a value that uses it is.
Arithmetic and methods on any of them give wirings of operators, so that an expression records and never computes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from mithril.errors import ConnectionError, OperatorError, nearest
from mithril.types import MAX_INTEGER, MAX_NAME, Dim, Tensor, as_dtype, is_name, plain

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
Place = tuple[str, int]

MAX_RANK = 64
"""Most sizes in a shape."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __deepcopy__(self, memo: object) -> _Missing:
        return self


MISSING: Any = _Missing()
"""No value was given (None is a value)."""


def place() -> Place:
    """File and line of the caller's code that is being composed: the nearest frame outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def show_place(where: Place | None) -> str:
    """`file.py:12`, the file without its folders."""
    return f"{os.path.basename(where[0])}:{where[1]}" if where else "an unknown line"


def _binary(operator: str) -> tuple[Callable[[Expression, object], Wiring], Callable[[Expression, object], Wiring]]:
    """The method and its reflection."""
    return (
        lambda self, other: record(operator, left=self, right=other),
        lambda self, other: record(operator, left=other, right=self),
    )


def _unary(operator: str) -> Any:
    return lambda self: record(operator, input=self)


def _reduction(operator: str) -> Callable[..., Wiring]:
    """Over `axis`, a number or a tuple, or over all axes when None."""
    return lambda self, axis=None, keepdims=False: record(operator, input=self, axis=axis, keepdims=keepdims)


class Expression:
    """What connections, keys, wirings and added models have in common: they are values of a graph to be.

    Every method records an operator of the same name and returns it as a value.
    """

    make_operator: ClassVar[Callable[[str], Any]]
    """Makes an operator of the table. `mithril.logical.primitive` puts itself here when the package is loaded, since
    operators are graphs, and graphs are made of expressions."""

    __hash__ = object.__hash__

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide")
    __mod__, __rmod__ = _binary("remainder")
    __pow__, __rpow__ = _binary("power")
    __matmul__, __rmatmul__ = _binary("matmul")
    __and__, __rand__ = _binary("logical_and")
    __or__, __ror__ = _binary("logical_or")
    __lt__, __gt__ = _binary("less")[0], _binary("greater")[0]
    __le__, __ge__ = _binary("less_equal")[0], _binary("greater_equal")[0]
    __eq__, __ne__ = _binary("equal")[0], _binary("not_equal")[0]  # type: ignore[assignment]
    __neg__, __abs__, __invert__ = _unary("negative"), _unary("absolute"), _unary("logical_not")
    abs, exp, log, sqrt = _unary("absolute"), _unary("exp"), _unary("log"), _unary("sqrt")
    sin, cos, tanh, sigmoid = _unary("sin"), _unary("cos"), _unary("tanh"), _unary("sigmoid")
    sum, mean, prod = _reduction("sum"), _reduction("mean"), _reduction("prod")
    max, min, any, all = _reduction("max"), _reduction("min"), _reduction("any"), _reduction("all")
    argmax, argmin = _reduction("argmax"), _reduction("argmin")
    var, std = _reduction("variance"), _reduction("std")

    def __bool__(self) -> bool:
        raise TypeError(
            "A connection has no truth value while a model is composed; use `where` to choose between values."
        )

    def __getitem__(self, key: object) -> Wiring:
        items = key if isinstance(key, tuple) else (key,)
        return record("index", input=self, key=tuple(place for item in items for place in _places(item)))

    def __iter__(self) -> Iterator[Wiring]:
        raise TypeError("A connection cannot be unpacked while a model is composed; take its elements by index.")

    @property
    def shape(self) -> Any:
        """The shape as a value: it can be indexed, unpacked where the rank is known, and used as an attribute."""
        return ShapeOf(self)

    @property
    def T(self) -> Wiring:
        """The axes in reverse order."""
        return record("transpose", input=self)

    def transpose(self, *axes: object) -> Wiring:
        """Axes in the given order (as numbers or one tuple); reversed when none are given."""
        return record("transpose", input=self, axes=_one_tuple(axes) or None)

    def reshape(self, *shape: object) -> Wiring:
        """The same elements in another shape (as numbers or one tuple); one size may be -1."""
        return record("reshape", input=self, shape=_one_tuple(shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Wiring:
        """Axes `start_dim` to `end_dim` as one."""
        return record("flatten", input=self, start_dim=start_dim, end_dim=end_dim)

    def split(self, split_size: object, axis: int = 0) -> Wiring:
        """A list of pieces of `split_size` (or of these sizes) along `axis`."""
        return record("split", input=self, split_size=split_size, axis=axis)

    def cast(self, dtype: object) -> Wiring:
        """The values as another dtype."""
        return record("cast", input=self, dtype=as_dtype(dtype))

    astype = cast

    def expand_dims(self, axis: object) -> Wiring:
        """A new axis of size 1 at `axis`."""
        return record("expand_dims", input=self, axis=axis)

    def squeeze(self, axis: object = None) -> Wiring:
        """Without axes of size 1."""
        return record("squeeze", input=self, axis=axis)

    def broadcast_to(self, *shape: object) -> Wiring:
        """Repeated along axes of size 1, without copying, up to a shape."""
        return record("broadcast_to", input=self, shape=_one_tuple(shape))


Operand = Expression | int | float
"""What an operator computes with: a value of the graph to be, or a number (a bool is one)."""
Size = Expression | int
"""A size: a number, or read off a value where it is open."""


def _places(item: object) -> tuple[Any, ...]:
    """An item of an index; a list becomes an array, and a mask the places where it is true, one array per axis."""
    if isinstance(item, list) or str(getattr(item, "dtype", "")).endswith("bool"):
        import numpy as np

        array = np.asarray(item)
        return np.nonzero(array) if array.dtype == bool else (array,)
    return (item,)


def _one_tuple(values: tuple[Any, ...]) -> Any:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    if len(values) == 1 and isinstance(values[0], tuple | list | ShapeOf):
        return tuple(values[0]) if isinstance(values[0], list) else values[0]
    return values


class Node:
    """A model at its place in another one: what its keys are bound to there.

    A binding is a connection of the outer model, a static value, or a list or tuple of these.
    """

    __slots__ = ("bindings", "model", "name", "outer", "outputs", "place")

    def __init__(self, outer: Any, model: Any, name: str, where: Place):
        self.outer = outer
        self.model = model
        self.name = name
        self.place = where
        self.bindings: dict[str, Any] = {}
        self.outputs: dict[str, Connection] = {}

    def sources(self) -> Iterator[Connection]:
        """The connections that it reads."""
        for value in self.bindings.values():
            yield from connections_in(value)


def connections_in(value: object) -> Iterator[Connection]:
    """All connections of a binding."""
    if isinstance(value, Connection):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from connections_in(part)
    elif isinstance(value, slice):
        yield from connections_in((value.start, value.stop, value.step))


class Connection(Expression):
    """A wire of one model: an input of the model, or an output of one of its nodes."""

    def __init__(self, model: Any, key: str, named: bool = True):
        self.model = model
        self.key = key
        self.named = named
        self.producer: Node | None = None
        self.output_key = ""  # which output of the producer
        self.readers: list[Node] = []
        self.value: Any = MISSING
        self.type: Any = None
        self.pattern: tuple[Any, ...] | None = None
        self.trainable = False
        self.buffer = False
        self.state_name: str | None = None  # in the state dict that it comes from
        self.constrained = False  # listed in model.constrained
        self.place: Place | None = None
        self.hint: tuple[str, ...] = ()  # name path of an unnamed input: the node and its key

    @property
    def name(self) -> str | None:
        """The name it was given, or None."""
        return self.key if self.named else None

    def path(self) -> str:
        """`model.key`, as messages name it."""
        owner = self.model.name or self.model.type_name
        return f"{owner}.{self.key if self.named else '_'.join(self.hint) or 'an unnamed connection'}"

    def describe(self, key: IOKey) -> None:
        """Take over what a key says of value, type, shape and training."""
        if key.given is not MISSING:
            if self.producer is not None:
                raise ConnectionError(f"'{self.path()}' is computed by the model, so it cannot have a value.")
            self.value = key.given
        if key.type is not None:
            self.type = key.type
        if key.pattern is not None:
            self.pattern = key.pattern
        if self.pattern is not None or self.type is not None or key.given is not MISSING:
            self.model.constrain(self)
        self.trainable = self.trainable or key.trainable
        self.buffer = self.buffer or key.buffer
        self.place = key.place

    @property
    def shape(self) -> Any:
        known = _expansion_shape(self.key) if self.producer is None else None
        return ShapeOf(self, self.pattern) if known is None else known

    def __repr__(self) -> str:
        return f"Connection({self.path()})"


class IOKey(Expression):
    """Describes a connection: its name, and what is known of it. As an output it becomes an output of the model.

    Args:
        name: None for a connection that needs no name.
        value: makes the connection a constant (number, tuple, or array).
        type: `ml.Tensor`, a dtype (`ml.int64`), or `int`, `float`, `bool` for any tensor of that kind.
        shape: sizes; a string names a size, None is an unknown one, "..." any number of sizes.
        trainable: whether it is a parameter, for gradients and `randomize_params`.
        buffer: whether it is a parameter that is not learned: a table of positions, statistics that stay as they are.
    """

    def __init__(
        self,
        name: str | None = None,
        value: object = MISSING,
        type: object = None,
        shape: Sequence[int | str | None] | None = None,
        trainable: bool = False,
        buffer: bool = False,
    ):
        self.name = name if name is None else check_name(name, "a connection")
        self.given = value
        self.type = as_type(type)
        self.pattern = as_pattern(shape, name)
        self.trainable = trainable
        self.buffer = buffer
        self.place = place()

    @property
    def shape(self) -> Any:
        known = _expansion_shape(self.name)
        return ShapeOf(self, self.pattern) if known is None else known

    def __repr__(self) -> str:
        return f"IOKey({self.name!r})"


def check_name(name: Any, what: str) -> str:
    """The name itself.

    Raises:
        ConnectionError: it is no identifier.
    """
    if not is_name(name):
        length = f" of at most {MAX_NAME} characters" if isinstance(name, str) and len(name) > MAX_NAME else ""
        raise ConnectionError(f"{name!r:.{MAX_NAME}} cannot name {what}: a name is a Python identifier{length}.")
    return name


def as_type(type: object) -> Any:
    """None for any tensor, a kind (`int`, `float`, `bool`), or a `DType`."""
    if type is None or type is Tensor:
        return None
    return type if type in (int, float, bool) else as_dtype(type)


def as_pattern(shape: Sequence[Any] | None, name: str | None) -> tuple[Any, ...] | None:
    """Check a shape with names, unknown sizes and at most one "..." and make it a tuple."""
    if shape is None:
        return None
    if isinstance(shape, str) or not hasattr(shape, "__iter__"):
        raise ConnectionError(f"The shape {shape!r} of '{name}' is not a list of sizes.")
    pattern = tuple("..." if s is ... else s if s is None or type(s) in (int, str, Dim) else plain(s) for s in shape)
    if len(pattern) > MAX_RANK:
        raise ConnectionError(f"The shape of '{name}' has {len(pattern)} sizes; there may be {MAX_RANK} at most.")
    if pattern.count("...") > 1:
        raise ConnectionError(f"The shape {list(shape)} of '{name}' has '...' more than once.")
    for size in pattern:
        if not (size is None or type(size) in (int, str, Dim)):
            raise ConnectionError(
                f"The shape {list(shape)} of '{name}' has the size {size!r}; a size is a number, a name, None or '...'."
            )
        if isinstance(size, int) and not 0 <= size < MAX_INTEGER:
            which = "negative size" if size < 0 else "impossible size"
            raise ConnectionError(f"The shape {list(shape)} of '{name}' has the {which} {size}.")
        if isinstance(size, str) and size != "...":
            check_name(size, "a size")
    return pattern


class ShapeOf(Expression):
    """A shape that is not known yet. Indexing and arithmetic on it are evaluated when shapes are inferred."""

    def __init__(self, of: Expression, pattern: tuple[Any, ...] | None = None):
        self.of = of
        self.pattern = pattern
        self._wiring: Wiring | None = None

    def wiring(self) -> Wiring:
        """The recorded operator that gives the shape."""
        if self._wiring is None:
            self._wiring = record("shape", input=self.of)
        return self._wiring

    def __getitem__(self, key: object) -> Any:
        if isinstance(key, int) and self.pattern and "..." not in self.pattern and isinstance(self.pattern[key], int):
            return self.pattern[key]
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        if self.pattern is None or "..." in self.pattern:
            raise OperatorError(
                f"The rank of {self.of!r} is not known here, so its shape cannot be unpacked.",
                ["Give its key a shape, as in IOKey(..., shape=[None, None]), or unpack in Operator.create_model."],
            )
        return iter([self[axis] for axis in range(len(self.pattern))])


class Wiring(Expression):
    """A model with its wires named: `Linear(10)(input="features", output="logits")`. As a value it is its output."""

    def __init__(self, model: Any, bindings: dict[str, Any]):
        self.model = model
        self.bindings = bindings
        self.place = place()
        self.added: tuple[Any, Node] | None = None

    def __getattr__(self, name: str) -> WiringOutput:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "output" or name in self.model.output_keys:
            return WiringOutput(self, name)
        raise AttributeError(f"'{self.model.type_name}' has no output '{name}'.{nearest(name, self.model.output_keys)}")

    def __repr__(self) -> str:
        return f"{self.model!r}({', '.join(self.bindings)})"


class WiringOutput(Expression):
    """One output of a wiring by its name."""

    def __init__(self, wiring: Wiring, key: str):
        self.wiring = wiring
        self.key = key


def record(operator: str, **bindings: object) -> Wiring:
    """An operator of the table as a value."""
    return Expression.make_operator(operator)(**bindings)


_EXPANSIONS: list[dict[str, tuple[Any, ...]]] = []


@contextmanager
def expansion(shapes: dict[str, tuple[Any, ...]]) -> Iterator[None]:
    """While an operator's `create_model` runs, keys that bear the names of its inputs have these shapes."""
    _EXPANSIONS.append(shapes)
    try:
        yield
    finally:
        _EXPANSIONS.pop()


def _expansion_shape(name: str | None) -> tuple[Any, ...] | None:
    return _EXPANSIONS[-1].get(name) if _EXPANSIONS and name is not None else None


def is_given(key: str) -> bool:
    """In `create_model`: whether the use that it is for has something wired to this input."""
    return _expansion_shape(key) is not None
