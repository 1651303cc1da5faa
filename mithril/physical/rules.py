"""Shapes and dtypes of single operators, and the errors that tell where each shape came from."""

from typing import Any

from mithril.errors import DtypeError, MithrilError, OperatorError, ShapeError
from mithril.logical.connection import Place, show_place
from mithril.ops.rules import broadcast
from mithril.ops.table import Op
from mithril.physical.graph import Scope, Value, ValueShape, Variadic, dtype_of, shape_of, show_shape
from mithril.physical.signature import Sizes, apply_signature, parse
from mithril.types import Dim, DType, as_dtype

Scopes = tuple[Scope, ...]
Shapes = tuple[ValueShape, ...]


class Rules:
    """Applies the rows' rules. Results are kept by operator, shapes and attributes: equal uses are inferred once."""

    def __init__(self, name: str):
        self.name = name
        self.sizes = Sizes()
        self._results: dict[Any, Any] = {}
        self._as_they_are: set[int] = set()  # values that are read as numbers of their own dtype

    def path(self, scope: Scopes, *words: str) -> str:
        """`resnet.layer1.conv1.input`; the operator inside a layer of the library is left out."""
        names = [s.name for s in scope]
        if len(scope) > 1 and scope[-2].type != "Model" and scope[-1].name.rstrip("0123456789").endswith("_"):
            names = names[:-1]
        return ".".join([self.name, *names, *words])

    def concrete(self, pattern: Any, name: str, symbols: dict[str, Any]) -> ValueShape:
        """A declared shape as sizes: names and None become symbols, "..." makes the rank unknown."""
        sizes: list[Any] = []
        for axis, size in enumerate(pattern):
            if size is None:
                size = self.sizes.new("batch" if axis == 0 else f"{name}_{axis}")
            elif isinstance(size, str) and size != "...":
                if size not in symbols:
                    symbols[size] = self.sizes.new(size)
                    self.sizes.named |= symbols[size].symbols()
                size = symbols[size]
            elif not isinstance(size, str | Dim):
                size = int(size)
            sizes.append(size)
        return Variadic(tuple(sizes[sizes.index("...") + 1 :])) if "..." in sizes else tuple(sizes)

    def declare(
        self, value: Value, pattern: object, type: object, symbols: dict[str, Any], path: str, where: str
    ) -> None:
        """Hold a value to a declared shape and type.

        Raises:
            ShapeError: the shapes differ.
            DtypeError: the kinds differ.
        """
        if pattern is not None:
            self._declare_shape(value, pattern, symbols, path, where)
        if isinstance(type, DType) and value.node is not None and value.dtype is not type:
            raise DtypeError(f"{path} is {value.dtype}, but {type} was declared.", [f"declared at {where}"])

    def _declare_shape(self, value: Value, pattern: Any, symbols: dict[str, Any], path: str, where: str) -> None:
        shape = self.sizes.resolve(value.shape)
        wanted = self.concrete(pattern, value.name, symbols)
        if isinstance(wanted, Variadic):
            lead = pattern.index("...")
            tail = wanted.tail
            if isinstance(shape, Variadic):
                value.shape = wanted if len(tail) > len(shape.tail) else shape
                return
            fits = len(shape) >= lead + len(tail)
            fits = fits and all(self._fits(s, p, symbols) for s, p in zip(shape[:lead], pattern[:lead]))
            fits = fits and all(self.sizes.unify(s, w) for s, w in zip(shape[len(shape) - len(tail) :], tail))
        elif isinstance(shape, Variadic):
            fits = len(shape.tail) <= len(wanted) and all(
                self.sizes.unify(s, w) for s, w in zip(reversed(shape.tail), reversed(wanted))
            )
            value.shape = wanted
        else:
            fits = len(shape) == len(wanted) and all(self.sizes.unify(s, w) for s, w in zip(shape, wanted))
        if not fits:
            declared = show_shape(tuple("..." if s == "..." else "any" if s is None else s for s in pattern))
            raise ShapeError(
                f"{path} has shape {show_shape(shape)}, but {declared} was declared.",
                [f"declared at {where}", f"{show_shape(shape)} was {self.origin(value)}"],
            )

    def _fits(self, size: Any, wanted: Any, symbols: dict[str, Any]) -> bool:
        if wanted is None:
            return True
        return self.sizes.unify(size, symbols.setdefault(wanted, size) if isinstance(wanted, str) else wanted)

    def origin(self, value: Value) -> str:
        """Where the shape of a value was set."""
        if value.node is not None:
            return f"computed by {self.path(value.node.scope)} ({value.node.op.name}, {show_place(value.node.place)})"
        return value.origin or "never set"

    def infer(
        self, row: Op, inputs: list[object], attributes: dict[str, Any], scope: Scopes, place: Place | None
    ) -> tuple[Shapes, tuple[DType, ...]]:
        """Shapes and dtypes of the outputs; deduces unknown shapes of inputs.

        Raises:
            ShapeError: shapes that the operator's rule does not allow, with the paths and places of all of them.
        """
        try:
            self._check_operands(row, inputs)
            shapes = self._shapes(row, inputs, attributes)
            return shapes, self._dtypes(row, inputs, attributes, len(shapes))
        except (ShapeError, DtypeError) as error:
            raise self._decorated(error, row, inputs, scope, place) from None
        except MithrilError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._misfit(error, row, inputs, attributes, scope, place) from error

    def _misfit(
        self,
        error: Exception,
        row: Op,
        inputs: list[object],
        attributes: dict[str, Any],
        scope: Scopes,
        place: Place | None,
    ) -> OperatorError:
        """A rule could not work with what it was given."""
        shapes = ", ".join(show_shape(v.shape) if isinstance(v, Value) else f"{v!r:.40}" for v in inputs)
        given = ", ".join(f"{name}={value!r:.60}" for name, value in attributes.items())
        return OperatorError(
            f"{self.path(scope)}: the operator {row.name} cannot work with {given or 'these operands'}: {error}.",
            [f"operands: {shapes}", f"composed at {show_place(place)}"],
        )

    def _check_operands(self, row: Op, inputs: list[object]) -> None:
        for spec, item in zip(row.inputs, inputs):
            name = spec.strip("?*")
            if isinstance(item, tuple) and not spec.startswith("*"):
                raise ShapeError(
                    f"{name} is a list of {len(item)} tensors or numbers, where one tensor is needed; take one by index"
                )
            kind, soft = row.kinds.get(name), row.soft_kinds.get(name)
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(part, Value):
                    if row.numbers and part.dtype is DType.bool:
                        raise DtypeError(f"{name} is bool where numbers are needed; cast it, as in x.cast(ml.int64)")
                    if kind is not None:
                        self._check_kind(part, kind, name)
                    if part.node is None:
                        self._soften(part, soft)
                elif part is not None and type(part) not in (bool, int, float, Dim):
                    raise ShapeError(f"{name} is {part!r:.60}, where a tensor or a number is needed")

    def _soften(self, value: Value, kind: type | None) -> None:
        """Let data that declares no type be what operators read it as, if all of them read it so."""
        if kind is None:
            self._as_they_are.add(id(value))
            value.soft = None
        elif value.kind == "input" and not value.declared and id(value) not in self._as_they_are:
            value.soft = kind
            if kind in (bool, int):
                value.dtype, value.declared, value.any_width = as_dtype(kind), True, kind is int

    @staticmethod
    def _check_kind(value: Value, kind: type, name: str) -> None:
        fits = {int: value.dtype.is_integer, bool: value.dtype is DType.bool, float: value.dtype.is_floating}[kind]
        if not fits and value.node is None and value.kind == "input" and not value.declared:
            value.dtype = value.dtype if kind is float else as_dtype(kind)
            value.any_width = value.declared = True
        elif not fits:
            raise DtypeError(f"{name} is {value.dtype} where {kind.__name__} values are needed")

    def _shapes(self, row: Op, inputs: list[object], attributes: dict[str, Any]) -> Shapes:
        resolve = self.sizes.resolve
        if self.sizes.known:
            attributes.update({k: resolve(v) for k, v in attributes.items()})
        known = tuple(shape_of(item, resolve) for item in inputs)
        key = (row.name, known, hashable(attributes))
        if key in self._results and not _unknown(known):
            return self._results[key]
        given: Shapes = ()
        if row.signature is not None:
            text = row.signature(**attributes) if callable(row.signature) else row.signature
            given = apply_signature(parse(text), inputs, attributes, self.sizes, row.input_names)
            known = tuple(shape_of(item, resolve) for item in inputs)
            key = (row.name, known, key[2])
        if key not in self._results:
            self._results[key] = self._outputs(row, known, attributes, given)
        return self._results[key]

    def _outputs(self, row: Op, known: tuple[Any, ...], attributes: dict[str, Any], given: Shapes) -> Shapes:
        """Output shapes by the row's rule, else by what its signature gave, else by broadcasting."""
        if row.shape is None:
            return given or (self._elementwise(known),)
        if _unknown(known):
            return given or (Variadic(),) * len(row.outputs)
        result = row.shape(*known, **attributes)
        many = len(row.outputs) > 1 or row.outputs[0].startswith("*")
        return tuple(result) if many else (tuple(result),)

    @staticmethod
    def _elementwise(shapes: tuple[Any, ...]) -> ValueShape:
        present = [s for s in shapes if s is not None]
        if not any(isinstance(s, Variadic) for s in present):
            return broadcast(*present)
        tails = [s.tail if isinstance(s, Variadic) else s for s in present]
        longest = min(len(s.tail) for s in present if isinstance(s, Variadic))  # before it, sizes may be unknown
        return Variadic(broadcast(*(t[max(len(t) - longest, 0) :] for t in tails)))

    @staticmethod
    def _dtypes(row: Op, inputs: list[object], attributes: dict[str, Any], count: int) -> tuple[DType, ...]:
        result = row.dtype(*map(dtype_of, inputs), **attributes)
        result = result if isinstance(result, tuple) else (result,) * count
        return tuple(map(as_dtype, result))

    def _decorated(
        self, error: ShapeError | DtypeError, row: Op, inputs: list[object], scope: Scopes, place: Place | None
    ) -> ShapeError | DtypeError:
        """The rule's sentence with the path, all shapes, and where each was set."""
        notes = []
        for spec, item in zip(row.inputs, inputs):
            name = spec.strip("?*")
            for number, value in enumerate(item if isinstance(item, tuple) else (item,)):
                if isinstance(value, Value):
                    key = f"{name}[{number}]" if isinstance(item, tuple) else name
                    shape = f"{value.dtype} {show_shape(self.sizes.resolve(value.shape))}"
                    notes.append(f"{self.path(scope, key)}: {shape}, {self.origin(value)}")
        rule = f", whose rule is {row.signature}" if isinstance(row.signature, str) else ""
        notes.append(f"operator {row.name}{rule}, composed at {show_place(place)}")
        first, _, rest = error.message.rstrip(".").partition(" ")
        if first in row.input_names:
            return type(error)(f"{self.path(scope, first)} {rest}.", [*notes, *error.notes])
        return type(error)(f"{self.path(scope)}: {first} {rest}.", [*notes, *error.notes])


def _unknown(shapes: tuple[Any, ...]) -> bool:
    return any(isinstance(part, Variadic) for s in shapes for part in (s if type(s) is tuple else (s,)))


def hashable(value: object) -> Any:
    """Attributes as a key: slices are not hashable, and True must differ from 1."""
    if isinstance(value, dict):
        return tuple((k, hashable(v)) for k, v in value.items())
    if isinstance(value, tuple):
        return tuple(map(hashable, value))
    if isinstance(value, slice):
        return ("slice", hashable(value.start), hashable(value.stop), hashable(value.step))
    if isinstance(value, bool | int | float):
        return (type(value).__name__, value)
    return value
