"""Shapes as equations: signatures of operators and declared shapes, and the sizes that follow from them."""

from functools import cache
from typing import Any, NamedTuple

from mithril.errors import ShapeError
from mithril.physical.graph import Value, ValueShape, Variadic, show_shape
from mithril.types import Dim, Dimension, identifier, substitute


class Term(NamedTuple):
    """One dimension of a pattern: `c`, `3`, `c/groups`, `c*2`; or `...`."""

    name: str
    divisor: str = ""
    factor: str = ""


REST = Term("...")


class Signature(NamedTuple):
    """Patterns of the inputs (None for any shape) and of the outputs."""

    inputs: tuple[tuple[Term, ...] | None, ...]
    outputs: tuple[tuple[Term, ...], ...]
    texts: tuple[str, ...]


@cache
def parse(text: str) -> Signature:
    """Read `"... i, o i, o -> ... o"`."""
    left, _, right = text.partition("->")
    texts = tuple(part.strip() for part in left.split(","))
    outputs = tuple(_pattern(part) for part in right.split(",")) if right else ()
    return Signature(tuple(None if t == "_" else _pattern(t) for t in texts), outputs, texts)


def _pattern(text: str) -> tuple[Term, ...]:
    terms = []
    for word in text.split():
        name, _, divisor = word.partition("/")
        name, _, factor = name.partition("*")
        terms.append(Term(name, divisor, factor))
    return tuple(terms)


class Sizes:
    """What is known of symbolic sizes, growing while a graph is inferred. A lone symbol may turn out to be any size."""

    def __init__(self) -> None:
        self.known: dict[str, Dimension] = {}
        self.named: set[str] = set()  # symbols with names of the author's
        self._counts: dict[str, int] = {}
        self._taken: set[str] = set()

    def new(self, hint: str) -> Dim:
        """A fresh symbol, named after `hint`."""
        stem = name = identifier(hint)
        while name in self._taken:
            number = self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return Dim(name)

    def resolve(self, size: object) -> Any:
        """A size, shape or attribute with what is known put in."""
        if not self.known:
            return size
        if isinstance(size, Dim):
            while isinstance(size, Dim) and (symbols := size.symbols() & self.known.keys()):
                size = substitute(size, {s: self.known[s] for s in symbols})
            return size
        if isinstance(size, Variadic):
            return Variadic(self.resolve(size.tail))
        if type(size) is tuple:
            return size if all(type(part) is int for part in size) else tuple(map(self.resolve, size))
        if isinstance(size, slice):
            return slice(self.resolve(size.start), self.resolve(size.stop), self.resolve(size.step))
        return size

    def unify(self, left: Dimension, right: Dimension) -> bool:
        """Make two sizes equal; False if they are known to differ."""
        left, right = self.resolve(left), self.resolve(right)
        if isinstance(left, int) and isinstance(right, int):
            return left == right
        if left == right:
            return True
        named = isinstance(right, Dim) and right.name in self.named
        for this, other in ((left, right), (right, left)) if named else ((right, left), (left, right)):
            if isinstance(this, Dim) and this.name is not None:
                if not (isinstance(other, Dim) and this.name in other.symbols()):
                    self.known[this.name] = other
                return True
        return True


class Match:
    """One use of a signature: dimensions by name, filled from the shapes one after the other."""

    def __init__(self, sizes: Sizes, attributes: dict[str, Any]):
        self.sizes = sizes
        self.attributes = attributes
        self.dims: dict[str, Dimension] = {}
        self.rest: tuple[Dimension, ...] | None = None

    def shape(self, pattern: tuple[Term, ...], hint: str) -> ValueShape:
        """The shape that a pattern stands for by now; unknown sizes become symbols."""
        parts: list[Dimension] = []
        for term in pattern:
            if term == REST:
                if self.rest is None:
                    return Variadic(tuple(self._size(t, hint) for t in pattern[len(parts) + 1 :]))
                parts.extend(self.rest)
            else:
                parts.append(self._size(term, hint))
        return tuple(parts)

    def _size(self, term: Term, hint: str) -> Dimension:
        if term.name.isdigit():
            return int(term.name)
        if term.name not in self.dims:
            symbol = self.sizes.new(f"{hint}_{term.name}")
            self._learn(term, symbol)
            return symbol
        size = self.dims[term.name]
        size = size // self.attributes[term.divisor] if term.divisor else size
        return size * self._factor(term.factor) if term.factor else size

    def _factor(self, text: str) -> Dimension:
        return int(text) if text.isdigit() else self.attributes[text]

    def _learn(self, term: Term, size: Dimension) -> None:
        if term.divisor:
            size = size * self.attributes[term.divisor]
        if term.factor:
            size = size // self._factor(term.factor)
        self.dims[term.name] = size

    def fit(self, pattern: tuple[Term, ...], shape: ValueShape, hint: str) -> bool:
        """Learn from a shape, or find that it does not fit."""
        if isinstance(shape, Variadic):
            return self._fit_tail(pattern, shape.tail, hint)
        if REST not in pattern:
            return len(pattern) == len(shape) and all(self._fit_size(t, s, hint) for t, s in zip(pattern, shape))
        at = pattern.index(REST)
        after = len(pattern) - at - 1
        if len(shape) < at + after:
            return False
        stop = len(shape) - after
        rest = shape[at:stop]
        ends = [*zip(pattern[:at], shape[:at]), *zip(pattern[at + 1 :], shape[stop:])]
        if self.rest is None:
            self.rest = rest
        elif len(rest) != len(self.rest) or not all(
            1 in ends or self.sizes.unify(*ends) for ends in zip(self.rest, rest)
        ):
            return False
        else:  # leading axes broadcast
            self.rest = tuple(b if a == 1 else a for a, b in zip(self.rest, rest))
        return all(self._fit_size(t, s, hint) for t, s in ends)

    def _fit_tail(self, pattern: tuple[Term, ...], tail: tuple[Dimension, ...], hint: str) -> bool:
        for term, size in zip(reversed(pattern), reversed(tail)):
            if term == REST:
                return True
            if not self._fit_size(term, size, hint):
                return False
        return REST in pattern or len(tail) <= len(pattern)

    def _fit_size(self, term: Term, size: Dimension, hint: str) -> bool:
        if term.name.isdigit() or term.name in self.dims:
            return self.sizes.unify(self._size(term, hint), size)
        self._learn(term, size)
        return True


def apply_signature(
    signature: Signature, values: list[Any], attributes: dict[str, Any], sizes: Sizes, names: tuple[str, ...]
) -> tuple[ValueShape, ...]:
    """Check input shapes against a signature, set those that follow from it, and return the output shapes it gives.

    Raises:
        ShapeError: one sentence that names the input that does not fit.
    """
    match = Match(sizes, attributes)
    uses: Any = zip(values, signature.inputs, names, signature.texts)
    named = [use for use in uses if use[1] is not None]
    for value, pattern, name, text in named:
        if type(value) in (bool, int, float, Dim) and not match.fit(pattern, (), name):
            raise ShapeError(_misfit(name, (), text, match, sizes, attributes))
    given = [use for use in named if isinstance(use[0], Value)]
    for value, pattern, name, text in sorted(given, key=lambda use: isinstance(use[0].shape, Variadic)):
        shape = sizes.resolve(value.shape)
        if not match.fit(pattern, shape, value.name):
            raise ShapeError(_misfit(name, shape, text, match, sizes, attributes))
        if isinstance(shape, Variadic):
            value.shape = match.shape(pattern, value.hint or value.name)
            value.origin = value.origin or "deduced"
    return tuple(match.shape(p, "size") for p in signature.outputs)


def _misfit(name: str, shape: ValueShape, text: str, match: Match, sizes: Sizes, attributes: dict[str, Any]) -> str:
    """`weight has shape (64, 4, 7, 7) where (o, c/groups, kh, kw) = (o, 3, kh, kw) is needed`."""
    words = text.split()
    wanted = []
    for word, term in zip(words, _pattern(text)):
        if term == REST:
            wanted.append("..." if match.rest is None else ", ".join(map(str, match.rest)) or "...")
        else:
            known = term.name in match.dims or term.name.isdigit()
            wanted.append(str(sizes.resolve(match._size(term, ""))) if known else word)
    if not isinstance(shape, Variadic) and REST not in _pattern(text) and len(shape) != len(words):
        needed = f"{len(words)} are needed: ({', '.join(words)})"
        return f"{name} has {len(shape)} dimensions, {show_shape(shape)}, where {needed}"
    return f"{name} has shape {show_shape(shape)} where ({', '.join(wanted)}) is needed"
