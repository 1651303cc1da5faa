"""Logical model to physical graph: one walk in topological order that opens submodels and infers shapes and dtypes."""

from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from mithril.errors import ConnectionError, OperatorError, ShapeError
from mithril.logical.connection import MISSING, Connection, IOKey, Place, as_pattern, show_place
from mithril.logical.model import Model, snake_case
from mithril.logical.model import Node as LogicalNode
from mithril.logical.operator import Operator
from mithril.logical.primitive import Primitive
from mithril.ops.table import OPS, REQUIRED, Op
from mithril.physical.graph import Graph, Node, Scope, Value, Variadic, values_in
from mithril.physical.rules import Rules
from mithril.physical.static import STATIC, as_static, compute, is_array, pick, split_key
from mithril.types import PLAIN, DType, as_dtype, free_name, plain

KIND_DTYPES = {int: DType.int64, bool: DType.bool}
Names = tuple[str, ...]
Scopes = tuple[Scope, ...]
Values = dict[str, Any]


class Frame(NamedTuple):
    """One model being walked: values by connection, the path to it, and the sizes that its declared shapes name."""

    env: dict[str, Any]
    scope: Scopes
    prefix: Names
    symbols: dict[str, Any]


class Inference:
    """Builds the graph of one model.

    Args:
        dtype: of parameters and of data that declare none.
        shapes: by key of the compiled model; sizes may be None or names.
        training: whether operators that differ between training and inference are in training mode.
        constants: values by key of inputs that are fixed.
    """

    def __init__(self, model: Model, dtype: DType, shapes: Values, training: bool, constants: Values | None = None):
        self.root = as_composite(model)
        self.bare = self.root is not model  # the root is one operator, whose name is no part of any path
        self.name = model.name or snake_case(model.type_name)
        self.graph = Graph(self.name)
        self.dtype = dtype
        self.given = shapes
        self.symbols: dict[str, Any] = {}  # sizes named in `shapes` or by the root's keys
        self.training = training
        self.constants = constants or {}
        self.rules = Rules(self.name)
        self._path = self.rules.path
        self.prefixes: dict[int, Names] = {}  # parameter names of models that others share
        self.owners: dict[str, Names] = {}  # names that a key was joined from
        self.key: Value | None = None
        self.random_uses = 0

    def run(self) -> Graph:
        """The graph, with every size that could be decided put in."""
        env: dict[str, Any] = {}
        self._walk(self.root, env, (), ())
        for connection in self.root.outputs:
            name = connection.key if connection.named else "output"
            value = self.graph.outputs[name] = env[connection.key]
            if isinstance(value, Value) and value.node is not None:
                value.hint = name
        if self.key is not None:
            self.graph.new_state[self.key.name] = self._folded_key("next_key", self.key)
        self._settle()
        return self.graph

    def _settle(self) -> None:
        """Put in what became known after a shape was written down."""
        resolve = self.rules.sizes.resolve
        if not self.rules.sizes.known:
            return
        for value in self.graph.inputs.values():
            value.shape = resolve(value.shape)
        for node in self.graph.nodes:
            node.attributes = {k: resolve(v) for k, v in node.attributes.items()}
            node.inputs = tuple(i if isinstance(i, Value) else resolve(i) for i in node.inputs)
            for value in node.outputs:
                value.shape = resolve(value.shape)
        self.graph.outputs = {k: resolve(v) for k, v in self.graph.outputs.items()}

    # Models

    def _walk(self, model: Model, env: dict[str, Any], scope: Scopes, prefix: Names) -> None:
        """Run all nodes of a model; `env`, the values of its bound inputs, gains those of its other connections."""
        frame = Frame(env, scope, prefix, {} if scope or model is not self.root else self.symbols)
        declared = {id(c) for c in model.constrained}
        for connection in model.constrained:
            if connection.key in env:
                self._declare(connection, frame)
        for node in in_order(model):
            takes_static = node.model.takes_static
            bound = {key: self._bind(value, frame, takes_static(key)) for key, value in node.bindings.items()}
            outputs = self._run(node, bound, frame)
            for key, connection in node.outputs.items():
                if key not in outputs:
                    where = f"{self._path(scope)}.{node.name}"
                    raise OperatorError(f"{where} has no output '{key}'.", [f"at {show_place(node.place)}"])
                value = env[connection.key] = outputs[key]
                if isinstance(value, Value) and value.node is not None:
                    _name_value(value, connection, node)
                if id(connection) in declared:
                    self._declare(connection, frame)

    def _run(self, node: LogicalNode, bound: dict[str, Any], frame: Frame) -> dict[str, Any]:
        """The outputs of a node by its own keys."""
        child, scope, prefix = node.model, frame.scope, frame.prefix
        original = self.prefixes.get(id(child.shares), ())
        if not (self.bare and not scope and isinstance(child, Operator)):
            scope = (*scope, Scope(node.name, child.type_name, "_".join(original)))
        if not (self.bare and node.outer is self.root):
            prefix = original or (*prefix, node.name)
        if isinstance(child, Primitive):
            return self._run_operator(child, bound, scope, prefix, node.place)
        self.prefixes.setdefault(id(child), prefix)
        if isinstance(child, Operator):
            child = self._expand(child, bound, scope, node.place)
            if child.cin_key and child.cin_key not in bound and "input" in bound:
                bound[child.cin_key] = bound.pop("input")
        self._walk(child, bound, scope, prefix)
        for connection in child.outputs:
            if not connection.named:
                bound.setdefault("output", bound[connection.key])
        return bound

    def _expand(self, child: Operator, bound: dict[str, Any], scope: Scopes, place: Place) -> Model:
        """The model that an operator creates for the shapes of this use."""
        shapes = {}
        for key, value in bound.items():
            shape = self.rules.sizes.resolve(value.shape) if isinstance(value, Value) else ()
            if isinstance(shape, Variadic):
                raise OperatorError(
                    f"{self._path(scope)}: {child.type_name} needs the rank of its input '{key}', which is not known.",
                    [f"'{value.path}' has no shape", *self._open_keys(), f"composed at {show_place(place)}"],
                )
            shapes[key] = shape
        return child.expand(shapes, self._path(scope))

    def _bind(self, binding: Any, frame: Frame, static: bool = False) -> Any:
        """The value of a binding: a tensor value, a Python value, or a tuple of these."""
        if isinstance(binding, Connection):
            if binding.key not in frame.env:
                frame.env[binding.key] = self._input(binding, frame)
                if binding.pattern is not None:
                    self._declare(binding, frame)
            return frame.env[binding.key]
        if isinstance(binding, list | tuple):
            return tuple(self._bind(part, frame, static) for part in binding)
        if isinstance(binding, slice):
            return slice(*(self._bind(part, frame, True) for part in (binding.start, binding.stop, binding.step)))
        if is_array(binding):
            static = static and not binding.ndim
            return plain(binding) if static else self._constant(binding, "_".join((*frame.prefix, "constant")))
        return binding if isinstance(binding, Value) else plain(binding)

    # Inputs

    def _input(self, connection: Connection, frame: Frame) -> Any:
        """A value from outside for a connection that nothing computes."""
        words = (connection.key,) if connection.named else connection.hint or ("input",)
        names = (*frame.prefix, *words)
        name = "_".join(names)
        if connection.value is not MISSING:
            value, type = connection.value, connection.type
            return self._constant(value, name, type) if is_array(value) else as_static(value, name)
        value = self._outside(names, self._path(frame.scope, *words), connection.trainable, connection.type)
        if connection.buffer and value.kind == "input":
            value.kind, value.buffer = "parameter", True
        value.state_name = connection.state_name or value.path.split(".", 1)[-1]
        if connection.pattern is not None and name not in self.given:
            value.origin = f"declared at {show_place(connection.place)}"
        return value

    def _outside(self, names: Names, path: str, trainable: bool = False, type: Any = None) -> Value:
        name = "_".join(names)
        if name in self.graph.inputs:
            if self.owners.get(name, names) != names:
                first, second = ".".join(self.owners[name]), ".".join(names)
                raise ConnectionError(f"'{first}' and '{second}' would both have the key '{name}'; rename one of them.")
            return self.graph.inputs[name]
        self.owners[name] = names
        if name in self.constants:
            return self._constant(self.constants[name], name, type)
        dtype = type if isinstance(type, DType) else KIND_DTYPES.get(type, self.dtype)
        value = Value(name, Variadic(), dtype, "parameter" if trainable else "input")
        value.trainable, value.path, value.hint = trainable, path, name
        value.any_width, value.declared = type in KIND_DTYPES, type is not None
        if name in self.given and self.given[name] is not None:
            value.shape = self.rules.concrete(as_pattern(self.given[name], name), name, self.symbols)
            value.origin = "given to compile in shapes"
        self.graph.inputs[name] = value
        return value

    def _constant(self, data: Any, name: str, type: Any = None) -> Value:
        """A value that is known now; floating ones take the model's dtype unless they declare their own."""
        unique = free_name(name, self.graph.inputs)
        found = as_dtype(data.dtype)
        dtype = type if isinstance(type, DType) else self.dtype if found.is_floating else found
        value = Value(unique, tuple(data.shape), dtype, "constant")
        value.data, value.hint, value.origin = data, unique, "the shape of a constant"
        self.graph.inputs[unique] = value
        return value

    def _declare(self, connection: Connection, frame: Frame) -> None:
        """Hold a value to what was declared of its connection."""
        value = frame.env[connection.key]
        if isinstance(value, Value):
            path, where = self._path(frame.scope, connection.key), show_place(connection.place)
            self.rules.declare(value, connection.pattern, connection.type, frame.symbols, path, where)

    # Operators

    def _run_operator(self, model: Primitive, bound: Values, scope: Scopes, prefix: Names, place: Place) -> Values:
        row = model.op
        attributes = {**row.attributes, **model.attributes}
        for key in bound.keys() & row.attributes.keys():
            attributes[key] = bound[key]
        inputs = [self._operand(spec, bound, row, scope, prefix) for spec in row.inputs]
        tensors = any(True for item in inputs for _ in values_in(item))
        name = row.output_names[0]
        if row.name == "shape":
            return {name: self._static_shape(inputs[0], scope, place)}
        if row.name == "index":
            if isinstance(inputs[0], tuple):
                return {name: pick(inputs[0], attributes["key"], self._path(scope))}
            attributes["key"], inputs[1] = split_key(attributes["key"], self._path(scope))
        elif not tensors and row.name in STATIC and inputs:
            return {name: compute(row.name, inputs, self._path(scope))}
        if "training" in attributes and attributes["training"] is None:
            attributes["training"] = self.training
        if not self.training and row.name.endswith("_training"):
            for source in row.state:
                _mark_state(inputs[row.input_names.index(source)])
            row = OPS[row.name.removesuffix("_training")]
            attributes = {k: v for k, v in attributes.items() if k in row.attributes}
        attributes = row.complete(self._attributes(row, attributes, scope))
        if row.identity is not None and inputs and row.identity(**attributes):
            return {name: inputs[0]}
        return self._emit(row, inputs, attributes, scope, place)

    def _attributes(self, row: Op, given: Values, scope: Scopes) -> Values:
        """Attributes as plain values."""
        found = {
            key: value if value is None or type(value) in PLAIN else as_static(value, self._path(scope, key))
            for key, value in given.items()
            if value is not REQUIRED
        }
        if isinstance(found.get("dtype"), str):
            found["dtype"] = as_dtype(found["dtype"])
        return found

    def _emit(self, row: Op, inputs: list[Any], attributes: Values, scope: Scopes, place: Place) -> Values:
        if row.random and inputs[-1] is None:
            inputs[-1] = self._random_key(scope, place)
        shapes, dtypes = self.rules.infer(row, inputs, attributes, scope, place)
        single = len(shapes) == 1 and not row.outputs[0].startswith("*")
        numbered = tuple(f"{row.name}_{i}" for i in range(len(shapes)))
        names = row.output_names if len(row.output_names) == len(shapes) else numbered
        outputs = tuple(Value(name, shape, dtype) for name, shape, dtype in zip(names, shapes, dtypes))
        for output in outputs:
            output.hint = row.name if single else output.name
        if row.floats and dtypes[0].is_floating:
            inputs = [
                self._as_floats(row, spec, item, dtypes[0], scope, place) for spec, item in zip(row.inputs, inputs)
            ]
        self.graph.nodes.append(Node(row, tuple(inputs), attributes, outputs, scope, place))
        for source, target in row.state.items():
            value = inputs[row.input_names.index(source)]
            if _mark_state(value):
                self.graph.new_state[value.name] = outputs[row.output_names.index(target)]
        if row.outputs[0].startswith("*"):
            return {row.output_names[0]: outputs}
        return dict(zip(row.output_names, outputs))

    def _as_floats(self, row: Op, spec: str, item: object, dtype: DType, scope: Scopes, place: Place) -> object:
        """An operand of an operator that computes in floats, as floats; what is of a kind by nature stays."""
        name = spec.strip("?*")
        if not isinstance(item, Value) or item.dtype.is_floating or name in row.kinds or name in row.soft_kinds:
            return item
        made = Value(item.name, item.shape, dtype)
        made.hint = item.hint
        self.graph.nodes.append(Node(OPS["cast"], (item,), {"dtype": dtype}, (made,), scope, place))
        return made

    def _operand(self, spec: str, bound: dict[str, Any], row: Op, scope: Scopes, prefix: Names) -> Any:
        name = spec.strip("?*")
        if name in bound:
            value = bound[name]
            if spec.startswith("*") and isinstance(value, Value):
                value = (value,)
            return value
        if "?" in spec or (row.random and name == "key"):
            return () if spec.startswith("*") else None
        return self._outside((*prefix, name), self._path(scope, name))

    def _random_key(self, scope: Scopes, place: Place) -> Value:
        """A key of its own for one random operator, made from the model's one."""
        if self.key is None:
            self.key = Value("random_key", (2,), DType.int32, "state")
            self.key.hint, self.key.origin = "random_key", "the shape of random keys"
            self.graph.inputs["random_key"] = self.key
        self.random_uses += 1
        return self._folded_key("key", self.key, scope, place)

    def _folded_key(self, name: str, key: Value, scope: Scopes = (), place: Place | None = None) -> Value:
        """A key made from the model's one and the number of those made before."""
        folded, index = Value(name, (2,), DType.int32), self.random_uses - (name == "key")
        folded.hint = name
        self.graph.nodes.append(Node(OPS["fold_key"], (key,), {"index": index}, (folded,), scope, place))
        return folded

    def _open_keys(self) -> list[str]:
        """A note that names the data whose shape nobody has said."""
        names = ["_".join(path) for path in open_inputs(self.root)]
        names = [f"'{name}'" for name in names if name not in self.given and name not in self.constants]
        if not names:
            return ["give shapes of known rank to compile in shapes"]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return [
            f"no shape is known of {', '.join(names[:8])}{more}: wire them, or give their shapes to compile in shapes"
        ]

    def _static_shape(self, value: object, scope: Scopes, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, Value):
            return ()
        shape = self.rules.sizes.resolve(value.shape)
        if isinstance(shape, Variadic):
            raise ShapeError(
                f"{self._path(scope)}: the rank of '{value.path}' is not known, so its shape cannot be used.",
                [*self._open_keys(), f"composed at {show_place(place)}"],
            )
        return shape


def as_composite(model: Model) -> Model:
    """A model around a bare operator, so that the root is always a composition."""
    if not isinstance(model, Primitive | Operator):
        return model
    lists = {"key", *(n.strip("?*") for n in model.op.inputs if n[0] == "*")} if isinstance(model, Primitive) else ()
    keys = model.fixed_keys
    assert keys is not None
    inputs, outputs = [name for name in keys.inputs if name not in lists], keys.outputs
    wrapper = Model()
    inner = model.copy()
    inner.name = None
    wrapper |= inner(**{k: k for k in inputs}, **{k: IOKey(k) for k in outputs})
    return wrapper


def open_inputs(model: Model, prefix: Names = (), bound: Container[str] = ()) -> Iterator[Names]:
    """Paths of the data keys of a model and of those inside it that nothing is wired to and that declare no shape."""
    for key, connection in model.connections.items():
        declared = connection.pattern is not None or connection.value is not MISSING
        learned = connection.trainable or connection.buffer
        if connection.named and connection.producer is None and key not in bound and not declared and not learned:
            yield (*prefix, key)
    for node in model.nodes:
        if not isinstance(node.model, Primitive | Operator):
            yield from open_inputs(node.model, (*prefix, node.name), node.bindings)


def in_order(model: Model) -> Iterator[LogicalNode]:
    """Nodes after what they read, otherwise in the author's order."""
    done: set[int] = set()
    for first in model.nodes:
        stack = [first]
        while stack:
            node = stack[-1]
            before = [] if id(node) in done else [source.producer for source in node.sources()]
            waiting = [producer for producer in before if producer and id(producer) not in done]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            stack.pop()
            if id(node) not in done:
                done.add(id(node))
                yield node


def _name_value(value: Value, connection: Connection, node: LogicalNode) -> None:
    """The name in the source: the author's for the wire, else for the submodel."""
    if connection.named:
        value.hint, value.named = connection.key, True
    elif not isinstance(node.model, Primitive) or node.model.name:
        value.hint = node.name if len(node.outputs) == 1 else f"{node.name}_{connection.output_key}"
        value.named = False


def _mark_state(value: object) -> bool:
    """Make an input state; False for what is computed, fixed, or no tensor."""
    if not isinstance(value, Value) or value.node is not None or value.kind == "constant":
        return False
    value.kind, value.trainable = "state", False
    return True
