"""Dtypes, symbolic dimensions, and the marker for tensor-valued connections."""

from __future__ import annotations

import builtins
import enum
import math
import unicodedata
from collections.abc import Callable, Container, Iterable, Mapping
from operator import floordiv, index, mod
from types import EllipsisType
from typing import Any, Protocol, TypeAlias

from mithril.errors import DtypeError, OperatorError, ShapeError, nearest

MAX_NAME = 200
"""Longest name of a model, a connection, a key or a size, in characters."""

MAX_ALGEBRA = 300
"""Most symbols, numbers and functions in the expression of one size."""

MAX_INTEGER = 2**63
"""Sizes and numbers that are computed while shapes are inferred stay below it."""


class Tensor:
    """Marks a connection as tensor-valued: `IOKey("image", type=ml.Tensor)`."""


class Array(Protocol):
    """An array of any framework, as far as all of them agree."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> object:
        """The framework's own name of its element type."""
        ...


class DType(enum.StrEnum):
    """An element type. The value is the name it has in every framework."""

    bool = "bool"
    int8 = "int8"
    uint8 = "uint8"
    int16 = "int16"
    uint16 = "uint16"
    int32 = "int32"
    uint32 = "uint32"
    int64 = "int64"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"

    def __repr__(self) -> str:
        return self.value

    @property
    def is_floating(self) -> builtins.bool:
        """Whether it is one of the floating types."""
        return "float" in self.value

    @property
    def is_integer(self) -> builtins.bool:
        """Whether it is one of the signed or unsigned integer types (bool is not)."""
        return "int" in self.value

    @property
    def bits(self) -> int:
        """Width of one element; 8 for bool."""
        return int("".join(c for c in self.value if c.isdigit()) or 8)


def as_dtype(value: object) -> DType:
    """The `DType` for a `DType`, a name, or a framework's dtype object (`torch.float32`, `np.dtype("int64")`)."""
    if isinstance(value, DType):
        return value
    if isinstance(value, type) and value in _DEFAULTS:
        return _DEFAULTS[value]
    name = value if isinstance(value, str) else getattr(value, "name", None) or str(value)
    name = str(name).rsplit(".", 1)[-1].strip("'>_")
    try:
        return DType(name)
    except ValueError:
        raise DtypeError(f"{value!r} is not a dtype.{nearest(name, [d.value for d in DType])}") from None


def identifier(text: str) -> str:
    """A Python identifier that looks like the text, in the form in which Python compares identifiers (NFKC)."""
    if text.isascii() and text.isidentifier() and len(text) <= MAX_NAME - 20:
        return text
    name = unicodedata.normalize("NFKC", text[: MAX_NAME - 20])  # a number may follow
    name = "".join(c if f"a{c}".isidentifier() else "_" for c in name) or "x"
    name = f"_{name}" if not name.isidentifier() else name
    if name.isidentifier() and unicodedata.normalize("NFKC", name) == name:
        return name
    return identifier(name.encode("ascii", "replace").decode())


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or `name_2`, `name_3` ... if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def is_name(text: object) -> bool:
    """Whether it can name a connection, a model or a size: an identifier of at most `MAX_NAME` characters."""
    return isinstance(text, str) and len(text) <= MAX_NAME and text.isidentifier()


def plain(value: Any) -> Any:
    """The plain Python value (number, text, None, dtype, size, slice, or tuple of these) for one of a library's own
    (`np.int64(1)`, a member of an `IntEnum`, `torch.Size`), which has no text that means it in generated source.

    Raises:
        OperatorError: there is none.
    """
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if hasattr(value, "tolist") and type(inner := value.tolist()) is not type(value):
        return plain(inner)
    if hasattr(value, "__index__"):
        return index(value)
    try:
        return as_dtype(value)
    except DtypeError:
        message = f"{type(value).__name__} is no number, text, size, dtype, or tuple of these."
        raise OperatorError(message) from None


_DEFAULTS: dict[type, DType] = {bool: DType.bool, int: DType.int64, float: DType.float32}


def promote(*dtypes: DType | type | None, **attributes: object) -> DType | type:
    """The dtype of an operation on operands of these dtypes.

    Python scalars are given as the types `bool`, `int`, `float` and are weak: they change the kind but not the width.
    Between kinds, the higher kind decides (bool < integers < floats); uint8 with int8 is int16, float16 with
    bfloat16 is float32. With scalars only, the result is a scalar's type. Attributes are ignored, so that this
    function can stand as a row's dtype rule.
    """
    strong = [d for d in dtypes if isinstance(d, DType)]
    weak = [d for d in dtypes if isinstance(d, type)]
    if not strong:
        return max(weak, key=[bool, int, float].index, default=float)
    result = strong[0]
    for dtype in strong[1:]:
        result = _promote_pair(result, dtype)
    if float in weak and not result.is_floating:
        return DType.float32
    if int in weak and result is DType.bool:
        return DType.int64
    return result


def _promote_pair(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a is DType.bool or (a.is_integer and b.is_floating):
        return b
    if b is DType.bool or (b.is_integer and a.is_floating):
        return a
    if a.is_floating:
        return DType.float32 if a.bits == b.bits else max(a, b, key=lambda d: d.bits)
    if a.value[0] == b.value[0]:
        return max(a, b, key=lambda d: d.bits)
    signed, unsigned = (b, a) if a.value[0] == "u" else (a, b)
    return signed if signed.bits > unsigned.bits else DType(f"int{min(2 * unsigned.bits, 64)}")


# A dimension is a polynomial with integer coefficients over atoms. An atom is a symbol's name, or one of the
# integer functions below applied to dimensions. Equal expressions have equal terms, so `==` and hashing are structural.
Atom: TypeAlias = "str | tuple[str, Dimension, Dimension]"
Monomial = tuple[tuple[Atom, int], ...]

_FUNCTIONS: dict[str, Callable[[int, int], int]] = {"//": floordiv, "%": mod, "min": min, "max": max}


def _operator(function: str) -> tuple[Callable[..., Dimension], Callable[..., Dimension]]:
    """The method and its reflection."""
    return lambda self, other: apply(function, self, other), lambda self, other: apply(function, other, self)


class Dim:
    """A size that is not known yet: a named symbol, or an integer expression of symbols.

    `Dim("b") * 12 // 4` is `3*b`. Results that are known become plain integers. Sizes are taken to be
    non-negative. Ordering is undecided for most expressions, so `<` raises; `==` is structural.
    """

    __slots__ = ("_hash", "length", "terms")
    terms: tuple[tuple[Monomial, int], ...]
    length: int
    """How many symbols, numbers and functions it is written with."""

    def __init__(self, name: str):
        if not is_name(name):
            raise ShapeError(f"{name!r:.80} cannot name a size: a name is a Python identifier.")
        self.terms = ((((name, 1),), 1),)
        self.length = 1
        self._hash = hash(self.terms)

    @property
    def name(self) -> str | None:
        """The symbol's name, or None for an expression."""
        match self.terms:
            case ((((str() as name, 1),), 1),):
                return name
        return None

    def symbols(self) -> set[str]:
        """Names of all symbols in it."""
        atoms = [atom for monomial, _ in self.terms for atom, _ in monomial]
        parts = [part for atom in atoms if not isinstance(atom, str) for part in atom[1:] if isinstance(part, Dim)]
        return {atom for atom in atoms if isinstance(atom, str)}.union(*(part.symbols() for part in parts))

    def substitute(self, values: Mapping[str, Dimension]) -> Dimension:
        """The same expression with symbols replaced."""

        def value(atom: Atom) -> Dimension:
            if isinstance(atom, str):
                return values[atom] if atom in values else Dim(atom)
            function, left, right = atom
            return apply(function, substitute(left, values), substitute(right, values))

        return sum(f * product(value(atom) for atom, power in m for _ in range(power)) for m, f in self.terms)

    def __add__(self, other: Dimension) -> Dimension:
        if not isinstance(other, Dim | int):
            return NotImplemented
        return _sum([*self.terms, *_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dimension:
        return self * -1

    def __sub__(self, other: Dimension) -> Dimension:
        return self + other * -1

    def __rsub__(self, other: int) -> Dimension:
        return self * -1 + other

    def __mul__(self, other: Dimension) -> Dimension:
        if not isinstance(other, Dim | int):
            return NotImplemented
        factors = _terms(other)
        if len(self.terms) * len(factors) > MAX_ALGEBRA:
            raise _too_long()
        return _sum([(_merge(m, n), a * b) for m, a in self.terms for n, b in factors])

    __rmul__ = __mul__

    __floordiv__, __rfloordiv__ = _operator("//")
    __mod__, __rmod__ = _operator("%")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __index__(self) -> int:
        raise TypeError(f"The size {self} is not known yet, so it cannot be used as a plain integer.")

    def __str__(self) -> str:
        return self.source()

    __repr__ = __str__

    def source(self, names: Mapping[str, str] | None = None) -> str:
        """Python source of the expression, with `names` in place of its symbols."""
        parts: list[str] = []
        for monomial, factor in self.terms:
            factors = [_atom_source(atom, names) for atom, power in monomial for _ in range(power)]
            if len(factors) > 1 or abs(factor) != 1:
                factors = [f"({f})" if " // " in f or " % " in f else f for f in factors]
            text = " * ".join(factors)
            if abs(factor) != 1 or not monomial:
                text = f"{abs(factor)} * {text}" if monomial else str(abs(factor))
            sign = "-" if factor < 0 else "+"
            parts.append(f" {sign} {text}" if parts else (f"-{text}" if factor < 0 else text))
        return "".join(parts)


PLAIN = frozenset({bool, int, float, str, EllipsisType, DType, Dim})

Dimension = int | Dim
Shape = tuple[Dimension, ...]


def apply(function: str, left: Dimension, right: Dimension) -> Dimension:
    """`left // right`, `left % right`, `min` or `max`, as simple as it can be made."""
    if isinstance(left, int) and isinstance(right, int):
        if right == 0 and function in ("//", "%"):
            raise ShapeError(f"the size {left} cannot be divided by 0")
        return _FUNCTIONS[function](left, right)
    if left == right:
        return {"//": 1, "%": 0}.get(function, left)
    if function == "//":
        return _floor_divide(left, right)
    if function == "%" and (right == 1 or all(_divide_term(t, right) is not None for t in _terms(left))):
        return 0
    return _atom(function, left, right)


def substitute(size: Dimension, values: Mapping[str, Dimension]) -> Dimension:
    """A size with its symbols replaced; a plain integer stays what it is."""
    return size.substitute(values) if isinstance(size, Dim) else size


def product(sizes: Iterable[Dimension]) -> Dimension:
    """The number of elements of a shape."""
    return math.prod(sizes)  # type: ignore[type-var]


def minimum(left: Dimension, right: Dimension) -> Dimension:
    """The smaller of two sizes, symbolic where that is undecided."""
    return apply("min", left, right)


def maximum(left: Dimension, right: Dimension) -> Dimension:
    """The larger of two sizes, symbolic where that is undecided."""
    return apply("max", left, right)


def _floor_divide(left: Dimension, right: Dimension) -> Dimension:
    """Terms that divide exactly leave the quotient; what is left becomes one canonical `//` atom."""
    if right == 1:
        return left
    quotient: Dimension = 0
    rest: Dimension = 0
    for term in _terms(left):
        exact = _divide_term(term, right)
        if exact is not None:
            quotient = quotient + exact
        elif isinstance(right, int) and not term[0]:  # a constant's remainder stays, so that equal sizes compare equal
            quotient, rest = quotient + term[1] // right, rest + term[1] % right
        else:
            rest = rest + _sum([term])
    if rest == 0:
        return quotient
    if isinstance(rest, int) and isinstance(right, int):
        return quotient + rest // right
    if isinstance(right, int) and isinstance(rest, Dim):  # (x // a + c) // b == (x + a * c) // (a * b)
        inner = [(m, f) for m, f in rest.terms if m]
        constant = sum(f for m, f in rest.terms if not m)
        if len(inner) == 1 and inner[0][1] == 1 and len(inner[0][0]) == 1:
            atom, power = inner[0][0][0]
            if power == 1 and isinstance(atom, tuple) and atom[0] == "//" and isinstance(atom[2], int):
                return quotient + (atom[1] + atom[2] * constant) // (atom[2] * right)
    return quotient + _atom("//", rest, right)


def _divide_term(term: tuple[Monomial, int], divisor: Dimension) -> Dimension | None:
    """The quotient if one term divides exactly by an integer or by a single-term dimension."""
    monomial, factor = term
    divisors = _terms(divisor)
    if len(divisors) != 1 or divisors[0][1] == 0 or factor % divisors[0][1]:
        return None
    left = dict(monomial)
    for atom, power in divisors[0][0]:
        if left.get(atom, 0) < power:
            return None
        left[atom] -= power
    kept = tuple((atom, left[atom]) for atom, _ in monomial if left[atom])
    return _sum([(kept, factor // divisors[0][1])])


def _terms(size: Dimension) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def _merge(left: Monomial, right: Monomial) -> Monomial:
    powers: dict[Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _sum(terms: Iterable[tuple[Monomial, int]]) -> Dimension:
    """Collect like terms; a constant becomes a plain integer."""
    factors: dict[Monomial, int] = {}
    for monomial, factor in terms:
        factors[monomial] = factors.get(monomial, 0) + factor
    kept = [(m, f) for m, f in factors.items() if f]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return _make(tuple(sorted(kept, key=lambda item: (not item[0], str(item[0])))))


def _make(terms: tuple[tuple[Monomial, int], ...]) -> Dim:
    dim = Dim.__new__(Dim)
    dim.terms = terms
    dim.length = sum(1 + sum(_length(atom) * power for atom, power in monomial) for monomial, _ in terms)
    if dim.length > MAX_ALGEBRA or any(abs(factor) >= MAX_INTEGER for _, factor in terms):
        raise _too_long()
    dim._hash = hash(terms)
    return dim


def _length(atom: Atom) -> int:
    return 1 if isinstance(atom, str) else 1 + sum(p.length if isinstance(p, Dim) else 1 for p in atom[1:])


def _too_long() -> ShapeError:
    return ShapeError(f"a size has become an expression of more than {MAX_ALGEBRA} parts; give the sizes as numbers")


def _atom(function: str, left: Dimension, right: Dimension) -> Dim:
    return _make((((((function, left, right), 1),), 1),))


def _atom_source(atom: Atom, names: Mapping[str, str] | None) -> str:
    if isinstance(atom, str):
        return names[atom] if names and atom in names else atom
    function, *parts = atom
    left, right = (p.source(names) if isinstance(p, Dim) else str(p) for p in parts)
    if function in ("min", "max"):
        return f"{function}({left}, {right})"
    left, right = (f"({p})" if " " in p else p for p in (left, right))
    return f"{left} {function} {right}"
