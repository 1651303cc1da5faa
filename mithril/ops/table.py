"""The operator table's contract: one row says everything about an operator.

Rows live in one file per family beside this one and are added with `define`. What a framework needs beyond a template
is a kernel: a function in `mithril/backends/<name>/`, whose source is pasted into generated modules.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mithril.errors import OperatorError, nearest
from mithril.types import promote

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Default of an attribute that has to be given."""

MASK = type("Mask", (), {})
"""Where attention is allowed: truth values, or numbers that are added to the scores."""

RANGES = {"eps": (0, math.inf), "momentum": (0, 1), "rate": (0, 1), "label_smoothing": (0, 1)}
"""Attributes that mean the same in all rows of this package, with the least and the largest number they may be."""

Code = str | Callable[["Call"], str | None]
"""How generated source writes an operator: a template, or a function of the call where the text depends on it (None
leaves a case to the backend's kernel).

Template fields: input names, attribute names (their value as source), `{xp}` (torch, jnp, mx, np).
`"F.relu({input})"`, `"{left} + {right}"`, `"{xp}.concatenate({inputs}, axis={axis})"`. A list input is written as
`[a, b]`, with a star (`{*inputs}`) without its brackets, an absent optional one as `None`. Compound operands get
parentheses where they need them. A template of an operator with several outputs gives a tuple of them.
"""

Kernel = Callable[..., Any]
"""A function called as `name(*inputs, **attributes)` with all of the row's inputs in order (None for absent, a list for
`*inputs`) and those attributes that differ from the row's defaults. Its source is pasted, so it uses only its framework
under the usual name (`torch`, `F`, `jnp`, `jax`, `lax`, `mx`, `nn`, `np`), `math`, and other kernels of its backend."""


@dataclass(frozen=True)
class Call:
    """One use of an operator, as a code function sees it. `call["input"]` and `call["stride"]` are source texts."""

    op: Op
    inputs: Mapping[str, Any]
    """Text of each tensor input; None where absent, a tuple of texts for a list."""
    attributes: Mapping[str, Any]
    """Values (not texts) of all attributes, defaults filled in."""
    shapes: Mapping[str, Any]
    """Shape of each input and output: None where unknown or absent, a tuple of shapes for a list."""
    dtypes: Mapping[str, Any]
    """Dtype of each input and output, likewise; the types bool, int, float for Python scalars."""
    xp: str
    """torch, jnp, mx or np."""
    source: Callable[[Any], str] = repr
    """Text of a static value: numbers, strings, tuples, slices, dtypes, symbolic dimensions."""

    def __getitem__(self, name: str) -> str:
        if name == "xp":
            return self.xp
        if name[0] == "*":
            return ", ".join(self.inputs.get(name[1:]) or map(self.source, self.attributes[name[1:]]))
        if name not in self.inputs:
            return self.source(self.attributes[name])
        text = self.inputs[name]
        return "[" + ", ".join(text) + "]" if isinstance(text, tuple) else str(text)

    def arguments(self, *names: str, **defaults: Any) -> str:
        """Argument list: `names` by position, then by keyword those of `defaults` whose value differs from it.

        `call.arguments("input", "weight", "bias", stride=1)` gives `x, weight, bias, stride=2`. A keyword may map
        the framework's word to ours with a pair: `axis=("dim", -1)` writes attribute `axis` as `dim=` unless it is -1.
        Trailing absent (None) positional inputs are left out.
        """
        texts = [self[name] for name in names]
        while texts and texts[-1] == "None":
            texts.pop()
        for name, default in defaults.items():
            renamed = isinstance(default, tuple) and len(default) == 2 and isinstance(default[0], str)
            word, default = default if renamed else (name, default)
            value = self.inputs[name] if name in self.inputs else self.attributes[name]
            if value != default:
                texts.append(f"{word}={self[name]}")
        return ", ".join(texts)


@dataclass(frozen=True, kw_only=True)
class Op:
    """One row of the table."""

    name: str
    """Unique, snake_case. The layer class of mithril.models is its CamelCase: `layer_norm` becomes `LayerNorm`."""
    inputs: tuple[str, ...]
    """Tensor inputs in order: `input`; `bias?` may be absent; `*inputs` is one list of tensors."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Static values with defaults; REQUIRED for none. An attribute `training` with default None follows `compile`."""
    outputs: tuple[str, ...] = ("output",)
    """`("*output",)` is one list of tensors, its length that of the tuple of shapes which the shape rule returns."""
    shape: Callable[..., Any] | None = None
    """`(*shapes, **attributes)` to the output's shape, or a tuple of shapes for several outputs.

    Input shapes are tuples of `int | Dim`: () for Python scalars, None for absent inputs, a tuple of shapes for a list.
    Never called with an unknown rank. Raises ShapeError with one sentence that states the rule and the values.
    None: taken from the signature's right side, or for elementwise operators by broadcasting.
    """
    signature: str | Callable[..., str] | None = None
    """How input shapes hang together, one pattern per input: `"... i, o i, o -> ... o"` for linear.

    Names are dimensions, numbers sizes, `...` any dimensions (at most once in a pattern, the same everywhere),
    `c/groups` a dimension over an integer attribute, `c*2` a multiple. Checked for every call, and used to deduce
    unknown shapes of parameters and unknown ranks of inputs. A function `(**attributes)` to the text where it depends
    on them. Patterns of absent inputs are skipped; `_` is an input of any shape.
    """
    dtype: Callable[..., Any] = promote
    """`(*dtypes, **attributes)` to the output's dtype, or a tuple for several outputs."""
    kinds: Mapping[str, type] = field(default_factory=dict)
    """Inputs that must be of one kind: `{"input": int}` for class or token indices. Types data that declares none."""
    soft_kinds: Mapping[str, type] = field(default_factory=dict)
    """Inputs that are of one kind by nature, but may be others: data that declares no type and is read so everywhere is
    of this kind. As bool, numbers that are given count as true where they are not 0. As `MASK`, the data is numbers to
    add, and truth values that are given become 0 and -inf."""
    floats: bool = False
    """Computes in floats: integers and truth values become the output's dtype before, the same on every backend."""
    numbers: bool = False
    """Takes numbers: truth values are refused, as torch does."""
    code: Mapping[str, Code] = field(default_factory=dict)
    """By backend: torch, jax, mlx, numpy, or any. A registered kernel goes before `any`."""
    gradient: Mapping[str, Code] | None = None
    """NumPy's derivative: per input a template over `{grad}`, the inputs, `{output}` and attributes. Where there are
    several outputs, they and their gradients are called `{values}` and `{grad_values}`; lists are `[a, b]`. A key of
    several words names inputs whose gradients one expression gives together; inputs not named get none. Broadcasting of
    elementwise operators is undone by the caller."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=lambda: RANGES)
    """Attributes that are numbers, with the least and the largest that they may be."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Attributes that are words, or may be, with those that there are."""
    state: Mapping[str, str] = field(default_factory=dict)
    """Inputs that are state, with the output that is their next value: `{"mean": "new_mean"}`."""
    identity: Callable[..., bool] | None = None
    """`(**attributes)`: whether the first input comes out unchanged, so that the node can be dropped."""
    elementwise: bool = False
    commutative: bool = False
    random: bool = False
    """Its last input is `key`, which the compiler supplies; the operator `fold_key(key, index)` makes one per use."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        object.__setattr__(self, "ranges", {name: self.ranges[name] for name in self.ranges if name in self.attributes})

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs without their marks."""
        return tuple(name.strip("?*") for name in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs without their marks."""
        return tuple(name.strip("*") for name in self.outputs)

    def complete(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes with defaults filled in, in the row's order.

        Raises:
            OperatorError: an unknown attribute, or a required one that is missing.
        """
        for name in attributes:
            if name not in self.attributes:
                raise OperatorError(f"{self.name} has no attribute '{name}'.{nearest(name, self.attributes)}")
        complete = {**self.attributes, **attributes}
        for name, value in complete.items():
            if value is REQUIRED:
                raise OperatorError(f"{self.name} needs a value for its attribute '{name}'.")
        if self.ranges or self.choices:
            self.check_values(complete)
        return complete

    def check_values(self, attributes: Mapping[str, Any]) -> None:
        """Whether numbers are within their bounds, and words known; what is neither yet is let pass.

        Raises:
            OperatorError: one is not.
        """
        for name, (low, high) in self.ranges.items():
            value = attributes.get(name)
            if isinstance(value, int | float) and not low <= value <= high:
                bounds = f"from {low} to {high}" if high < math.inf else f"at least {low}"
                raise OperatorError(f"{self.name}: {name} is {value}; it must be a number {bounds}.")
        for name, words in self.choices.items():
            value = attributes.get(name)
            if isinstance(value, str) and value not in words:
                known = " or ".join(map(repr, words))
                others = ", or numbers" if name == "padding" else ""
                near = difflib.get_close_matches(value.lower(), words, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise OperatorError(f"{self.name}: {name} is {value!r}; it must be {known}{others}.{hint}")


OPS: dict[str, Op] = {}
"""All rows by name."""

HELPERS: dict[tuple[str, str], Kernel] = {}
"""Functions by backend, or its word in sources (`np`), and name, which code and kernels may call; where a source does,
theirs is pasted. One that bears an operator's name is its kernel. Filled when a backend is loaded; its own functions go
before those that backends share."""

WORDS: set[str] = set()
"""Names that templates of operators added by users mean something by, so that no variable may take them."""

BACKENDS = ("torch", "jax", "mlx", "numpy")


def define(op: Op) -> Op:
    """Add a row. A name can be given once."""
    if op.name in OPS:
        raise OperatorError(f"The operator '{op.name}' is defined twice.")
    OPS[op.name] = op
    return op


def operator(name: str) -> Op:
    """The row of an operator.

    Raises:
        OperatorError: there is none of this name.
    """
    if name not in OPS:
        raise OperatorError(f"There is no operator '{name}'.{nearest(name, OPS)}")
    return OPS[name]


def implementation(op: Op, backend: str) -> Code | Kernel:
    """What writes `op` on `backend`: the row's own code, then a kernel, then the row's code for any backend.

    Raises:
        OperatorError: the operator has none for this backend.
    """
    found = op.code.get(backend) or HELPERS.get((backend, op.name)) or op.code.get("any")
    if found is None:
        there = ", ".join(sorted({*op.code, *(b for b, n in HELPERS if n == op.name and b in BACKENDS)})) or "none"
        raise OperatorError(f"The operator '{op.name}' has no implementation for '{backend}', only for {there}.")
    return found


def is_kernel(op: Op, backend: str) -> bool:
    """Whether `implementation` is a kernel (pasted and called by name) rather than a template."""
    return backend not in op.code and (backend, op.name) in HELPERS
