"""Reverse-mode source for NumPy, from the table's gradient rules."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mithril.codegen.body import Body, Function
from mithril.codegen.literal import quoted
from mithril.codegen.module import Source
from mithril.codegen.text import Names, Target
from mithril.errors import OperatorError
from mithril.ops.table import Call
from mithril.physical.graph import Graph, Node, Value, Variadic, values_in

CONSTANT = ("detach", "floor_divide")
"""Operators whose floating results count as constants."""


def generate_gradient(graph: Graph, trainable: Iterable[str], backend: Target) -> str:
    """The source of `evaluate_gradients(output_gradients, params, data[, state])`.

    It runs the graph forwards in one piece, then backwards, and returns outputs, gradients by key, and the new state.
    """
    source = Source(graph, backend, functions=False)
    return source.text(Backward(source, list(trainable)).define())


class Backward(Body):
    """The lines of `evaluate_gradients`."""

    inlines = False  # every value is read again on the way back

    def __init__(self, module: Source, trainable: list[str]):
        super().__init__(module, Names(module.reserved), module.root)
        self.trainable = [module.graph.inputs[key] for key in trainable]
        self.grads: dict[int, str] = {}
        self.needs = {id(v) for v in self.trainable}
        for node in module.graph.nodes:
            if node.op.name not in CONSTANT and any(id(v) in self.needs for v in node.values()):
                self.needs |= {id(v) for v in node.outputs if v.dtype.is_floating}

    def define(self) -> Function:
        graph = self.module.graph
        self.texts.names.taken |= {"output_gradients", "gradients"}
        head, arguments = self.open()
        self.write_items(self.region.items)
        self.close_state()
        for key, value in graph.outputs.items():
            if isinstance(value, Value) and id(value) in self.needs:
                self.add(value, f"output_gradients.get({quoted(key)}, np.zeros_like({self.texts.values[id(value)]}))")
        for node in reversed(graph.nodes):
            self.write_reverse(node)
        items = [f"    {quoted(value.name)}: {self.gradient(value)}," for value in self.trainable]
        sizes, _ = self.size_lines(list(graph.inputs.values()))
        ending = f"return {self.results_text()}, gradients, {'new_state' if graph.new_state else '{}'}"
        lines = [*head, *sizes, *self.lines, "gradients = {", *items, "}", ending]
        return self.entry("evaluate_gradients", ["output_gradients", *arguments], lines)

    def gradient(self, value: Value) -> str:
        """The gradient of a value, zeros where nothing came back."""
        return self.grads.get(id(value)) or f"np.zeros_like({self.texts.values[id(value)]})"

    def add(self, value: Value, expression: str) -> None:
        """Add to the gradient of a value."""
        before = self.grads.get(id(value))
        if before is not None:
            self.lines.append(f"{before} = {before} + {expression}")
            return
        name = self.grads[id(value)] = self.variable(value)
        self.lines.append(f"{name} = {expression}")

    def variable(self, value: Value) -> str:
        """A new variable for the gradient of a value."""
        text = self.texts.values[id(value)]
        return self.texts.names.new(f"grad_{value.name if text.startswith('params[') else text}")

    def write_reverse(self, node: Node) -> None:
        """From the gradients of a node's outputs to those of its inputs."""
        if not any(id(v) in self.grads for v in node.outputs) or not any(id(v) in self.needs for v in node.values()):
            return
        if node.op.gradient is None:
            raise OperatorError(f"The operator '{node.op.name}' has no gradient on NumPy; it is used by {node!r}.")
        call, inputs = self.call(node), dict(zip(node.op.input_names, node.inputs))
        for names, rule in node.op.gradient.items():
            items = [inputs[name] for name in names.split()]
            if not any(id(value) in self.needs for item in items for value in values_in(item)):
                continue
            text = self.texts.write(rule, call)
            if len(items) > 1 or isinstance(items[0], tuple):
                self.unpack(text, items)
                continue
            if node.op.elementwise and (
                items[0].shape != node.outputs[0].shape or isinstance(items[0].shape, Variadic)
            ):
                text = self.texts.with_helpers(f"unbroadcast({text}, {self.texts.values[id(items[0])]}.shape)")
            self.add(items[0], text)

    def call(self, node: Node) -> Call:
        """The node as gradient rules see it, with its outputs and their gradients."""
        outputs = tuple(self.texts.values[id(v)] for v in node.outputs)
        grads = tuple(map(self.gradient, node.outputs))
        extra: dict[str, Any] = {"grad": grads[0], "output": outputs[0]}
        if node.is_list or len(outputs) > 1:
            extra = {**dict(zip(node.op.output_names, outputs)), "grad": grads, "output": outputs}
            extra |= {f"grad_{name}": grad for name, grad in zip(node.op.output_names, grads)}
        call = self.texts.call(node)
        return replace(call, inputs={**call.inputs, **extra})

    def unpack(self, text: str, items: list[Any]) -> None:
        """Gradients of several inputs, or of a list of them, that one expression gives together."""
        targets = [self.target(item) for item in items]
        while targets[-1] == "_":
            targets.pop()
        rest = ", *_" if len(targets) < len(items) else ""
        self.lines.append(f"{', '.join(targets)}{rest} = {text}")
        for target, item in zip(targets, items):
            if isinstance(item, tuple):
                for index, value in enumerate(item):
                    if isinstance(value, Value) and id(value) in self.needs:
                        self.add(value, f"{target}[{index}]")
            elif target != "_" and self.grads.setdefault(id(item), target) != target:
                self.add(item, target)

    def target(self, item: object) -> str:
        """The variable for the gradient of an input; `_` where none is needed."""
        if not any(id(value) in self.needs for value in values_in(item)):
            return "_"
        first = isinstance(item, Value) and id(item) not in self.grads
        return self.variable(item) if first else self.texts.names.new("part")
