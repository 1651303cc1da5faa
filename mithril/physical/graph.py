"""The physical graph: operators in order over values of inferred shape and dtype.

It is what passes rewrite and what code is generated from. Its rules are written down in `verify`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from mithril.logical.connection import Place
from mithril.ops.table import Op
from mithril.types import Dim, Dimension, DType


class Scope(NamedTuple):
    """One step of the path to a node: the submodel's name and its type; for a shared copy, whose parameters it has."""

    name: str
    type: str
    parameters: str = ""


class Variadic(NamedTuple):
    """The shape of a value whose rank is unknown: any sizes, then these."""

    tail: tuple[Dimension, ...] = ()

    def __str__(self) -> str:
        return f"({', '.join(['...', *map(str, self.tail)])})"


ValueShape: TypeAlias = tuple[Dimension, ...] | Variadic


@dataclass(slots=True, eq=False, repr=False)
class Value:
    """A tensor of the graph.

    `kind` is input (given with the data), parameter, state, constant (`data` holds it), or inner (a node computes it).
    """

    name: str
    shape: ValueShape
    dtype: DType
    kind: str = "inner"
    hint: str = ""  # name in the source; the author's, where there is one
    named: bool = False  # whether that is a wire's name, not a submodel's
    data: Any = None
    node: Any = None  # the one that computes it
    origin: str = ""  # where its shape was set
    path: str = ""  # as messages name it
    trainable: bool = False
    buffer: bool = False  # a parameter that is not learned
    state_name: str = ""  # its name in torch's state dict
    any_width: bool = False  # any dtype of the same kind may be given
    declared: bool = False  # whether its dtype was
    soft: type | None = None  # what other kinds of data are turned into: bool, or MASK

    def __post_init__(self) -> None:
        self.path = self.path or self.name

    @property
    def is_open(self) -> bool:
        """Whether its rank or one of its sizes is not known."""
        return isinstance(self.shape, Variadic) or any(isinstance(size, Dim) for size in self.shape)

    def __repr__(self) -> str:
        return f"Value({self.name}: {self.dtype}{show_shape(self.shape)})"


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """One use of an operator. An input is a value, a Python number, None, or a tuple of values and numbers."""

    op: Op
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    outputs: tuple[Value, ...]
    scope: tuple[Scope, ...] = ()
    place: Place | None = None

    def __post_init__(self) -> None:
        for output in self.outputs:
            output.node = self

    def values(self) -> Iterator[Value]:
        """Input values, lists opened."""
        for item in self.inputs:
            if isinstance(item, Value):
                yield item
            elif isinstance(item, tuple):
                yield from (part for part in item if isinstance(part, Value))

    @property
    def is_list(self) -> bool:
        """Whether its outputs are one list."""
        return self.op.outputs[0].startswith("*")

    def __repr__(self) -> str:
        return f"Node({self.op.name}: {', '.join(v.name for v in self.outputs)})"


@dataclass
class Graph:
    """Nodes in topological order, what goes in, and what comes out by key.

    `outputs` holds values, numbers and sizes, or tuples of them. `new_state` gives the next value of a state.
    """

    name: str
    inputs: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    new_state: dict[str, Value] = field(default_factory=dict)
    unused: dict[str, Value] = field(default_factory=dict)  # inputs that no output needs; they may be given

    def results(self) -> Iterator[Value]:
        """Values that leave the graph."""
        for item in (*self.outputs.values(), *self.new_state.values()):
            yield from values_in(item)


def values_in(item: object) -> Iterator[Value]:
    """All values of an output or an input."""
    if isinstance(item, Value):
        yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from values_in(part)


def mapped(item: object, value: Callable[[Value], Any], other: Callable[[Any], Any] = lambda static: static) -> Any:
    """An input, output or attribute with its values and what is no value replaced, lists kept."""
    if isinstance(item, Value):
        return value(item)
    return tuple(mapped(part, value, other) for part in item) if isinstance(item, tuple) else other(item)


def shape_of(item: object, known: Callable[[ValueShape], Any]) -> Any:
    """Shapes of an operand, as `known` gives those of values: () for Python scalars, None where it is absent."""
    return mapped(item, lambda value: known(value.shape), lambda static: None if static is None else ())


def dtype_of(item: object) -> Any:
    """Dtypes of an operand; the types bool, int, float for Python scalars."""
    weak = (bool, int, float)
    return mapped(item, lambda v: v.dtype, lambda s: None if s is None else type(s) if isinstance(s, weak) else int)


def show_shape(shape: Any) -> str:
    """`(n, 3, 224, 224)`."""
    if isinstance(shape, Variadic):
        return str(shape)
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def verify(graph: Graph) -> Graph:
    """Check what every pass has to keep, and return the graph.

    Every value that is read is an input or an output of an earlier node; it is computed once; a constant has data; the
    number of inputs and attributes fits the operator's row.
    """
    known = {id(v) for v in graph.inputs.values()}
    for name, value in graph.inputs.items():
        assert value.name == name, f"{value} is kept under the name {name}"
        assert value.kind != "inner", f"{value} is an input without a kind"
        assert value.node is None, f"{value} is an input but computed inside"
        assert (value.data is not None) == (value.kind == "constant"), f"{value}: only a constant has data"
    for node in graph.nodes:
        assert len(node.inputs) == len(node.op.inputs), f"{node} has {len(node.inputs)} inputs"
        assert set(node.attributes) == set(node.op.attributes), f"{node} has attributes {set(node.attributes)}"
        for value in node.values():
            assert id(value) in known, f"{node} reads {value} before it is computed"
        for value in node.outputs:
            assert id(value) not in known, f"{value} is computed twice"
            assert value.node is node, f"{value} does not know its node"
            known.add(id(value))
    for value in graph.results():
        assert id(value) in known, f"the result {value} is never computed"
    return graph
