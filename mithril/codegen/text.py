"""Texts of values and of operators within one function of the generated source."""

import inspect
import keyword
import math
import re
import string
from collections import UserDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from mithril.codegen.kernels import pasted_name
from mithril.codegen.literal import MARK, plain_source
from mithril.errors import MithrilError, OperatorError
from mithril.ops.table import HELPERS, WORDS, Call, Code, implementation, is_kernel
from mithril.physical.graph import Graph, Node, Value, Variadic, dtype_of, shape_of, show_shape
from mithril.types import Dim, DType, free_name, identifier

RESERVED = {
    *keyword.kwlist, "math", "torch", "F", "jax", "jnp", "lax", "mx", "nn", "np", "params", "data", "state",
    "new_state", "prefix", "min", "max", "range", "len", "tuple", "list", "int", "float", "evaluate", "grads",
    "map", "reversed", "slice",
}  # fmt: skip
"""Words that no variable of generated source may be called, since the templates of the table mean something by them."""

CALLED = re.compile(r"(?<![\w.])(\w+)\(")
"""The name of a function that is called, as no attribute of a module or a value."""


class Target(Protocol):
    """What code generation knows of a backend: see `mithril.backends.base.Backend`."""

    name: ClassVar[str]
    xp: ClassVar[str]
    """The word for its arrays' functions in sources: torch, jnp, mx or np."""
    imports: ClassVar[tuple[str, ...]]


class Names:
    """Unique identifiers of one function: made after a hint, which may be any text."""

    def __init__(self, taken: Iterable[str] = ()):
        self.taken = {*RESERVED, *WORDS, *taken}

    def new(self, hint: str) -> str:
        """`hint`, or `hint_2`, `hint_3` ... if it is taken."""
        name = free_name(identifier(hint.replace(MARK, "_")), self.taken)
        self.taken.add(name)
        return name


class Texts:
    """What values are called in one function."""

    def __init__(self, backend: Target, names: Names):
        self.backend = backend.name
        self.xp = backend.xp
        self.names = names
        self.values: dict[int, str] = {}
        self.symbols: dict[str, str] = {}
        self.kernels: list[tuple[str, str]] = []  # keys of HELPERS

    def value(self, item: object) -> Any:
        """Text of an input: a value's name, a number; None and lists stay structured."""
        if isinstance(item, Value):
            return self.values[id(item)]
        if isinstance(item, tuple):
            return tuple(str(self.value(part)) for part in item)
        text = self.source(item)
        return f"({text})" if isinstance(item, Dim) and " " in text else None if item is None else text

    def result(self, item: object) -> str:
        """Text of an output, which may be a list of values or a number."""
        if isinstance(item, tuple):
            return f"({', '.join(map(self.result, item))}{',' if len(item) == 1 else ''})"
        return self.values[id(item)] if isinstance(item, Value) else self.source(item)

    def source(self, value: object) -> str:
        """Text of a static value."""
        if isinstance(value, DType):
            if self.xp == "jnp" and value in (DType.int64, DType.float64):
                return "int" if value is DType.int64 else "float"  # in JAX's own width, without a warning
            special = value is DType.bool and self.xp != "torch"
            return f"{self.xp}.{value.value}{'_' if special else ''}"
        if isinstance(value, Dim):
            return value.source({s: self.symbol(s) for s in sorted(value.symbols())})
        if isinstance(value, tuple):
            return f"({', '.join(map(self.source, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.source, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"
        if isinstance(value, slice):
            return f"slice({', '.join(map(self.source, (value.start, value.stop, value.step)))})"
        return plain_source(value)

    def symbol(self, name: str) -> str:
        """Text of a size's symbol; remembers that the function needs it."""
        if name not in self.symbols:
            self.symbols[name] = self.names.new(name)
        return self.symbols[name]

    def expression(self, node: Node) -> str:
        """The code of one operator.

        Raises:
            OperatorError: what writes it cannot work with the attributes.
        """
        call = self.call(node)
        code: Any = implementation(node.op, self.backend)
        try:
            text = None if is_kernel(node.op, self.backend) else self.write(code, call)
            return self.kernel_call(node.op.name, node, call) if text is None else text
        except MithrilError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            given = ", ".join(f"{name}={value!r:.60}" for name, value in node.attributes.items())
            path = ".".join(step.name for step in node.scope)
            raise OperatorError(f"{path}: {node.op.name} cannot be written with {given}: {error}.") from error

    def call(self, node: Node) -> Call:
        """The node as code functions see it."""
        op = node.op
        outputs = (node.outputs,) if node.is_list else node.outputs
        operands = [*zip(op.input_names, node.inputs), *zip(op.output_names, outputs)]
        shapes, dtypes = ({name: of(item) for name, item in operands} for of in (_shape, dtype_of))
        inputs = {n: self.value(i) for n, i in zip(op.input_names, node.inputs)}
        return Call(op, inputs, node.attributes, shapes, dtypes, self.xp, self.source)

    def write(self, code: Code, call: Call) -> Any:
        """A template or code function filled in; None where the function leaves the case to the kernel."""
        if callable(code):
            text = code(call)
        else:
            fields = {field for _, field, _, _ in string.Formatter().parse(code) if field}
            text = code.format(**{field: call[field] for field in fields})
        return text and self.with_helpers(text)

    def with_helpers(self, text: str) -> str:
        """The text itself; helpers of the backend that it calls will be pasted."""
        called = ((self.xp, name) for name in CALLED.findall(text))
        self.kernels += [key for key in called if key in HELPERS]
        return text

    def kernel_call(self, name: str, node: Node, call: Call) -> str:
        """`name(inputs, attributes that differ from the row's defaults)`; the kernel's source will be pasted."""
        function = HELPERS[self.backend, name]
        self.kernels.append((self.backend, name))
        texts = [call[name] for name in node.op.input_names]
        parameters = enumerate(inspect.signature(function).parameters.values(), 1)
        optional = {number for number, parameter in parameters if parameter.default is not parameter.empty}
        while len(texts) in optional and texts[-1] == "None":
            texts.pop()
        defaults = node.op.attributes
        changed = [k for k, v in node.attributes.items() if type(v) is not type(defaults[k]) or v != defaults[k]]
        texts += [f"{k}={call[k]}" for k in changed]
        return f"{pasted_name(name, function)}({', '.join(texts)})"


class _Watched(UserDict[str, Any]):
    """Shapes that remember whether they were looked at."""

    read = False

    def __getitem__(self, key: str) -> Any:
        self.read = True
        return super().__getitem__(key)


def shaped_operators(graph: Graph, backend: Target) -> set[str]:
    """Names of the operators whose code depends on the shapes of their operands, as `F.layer_norm(x, (64,))` does."""
    texts = Texts(backend, Names())
    found: dict[str, bool] = {}
    for node in graph.nodes:
        code = implementation(node.op, backend.name)
        if node.op.name not in found and callable(code) and not is_kernel(node.op, backend.name):
            texts.values |= {id(v): "x" for v in (*node.values(), *node.outputs)}
            call = texts.call(node)
            shapes = _Watched(call.shapes)
            texts.write(code, replace(call, shapes=shapes))
            found[node.op.name] = shapes.read
    return {name for name, read in found.items() if read}


def _shape(item: object) -> Any:
    return shape_of(item, lambda shape: None if isinstance(shape, Variadic) else shape)


def shape_comment(values: Iterable[Value]) -> str:
    """`# (n, 197, 768)`, shapes of several outputs one after the other."""
    shapes = [show_shape(v.shape) for v in values]
    return "  # " + ", ".join(shapes) if shapes and "(...)" not in shapes else ""
