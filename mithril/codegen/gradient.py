"""Reverse-mode source for NumPy, from the table's gradient rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mithril.codegen.body import Body, define_function
from mithril.codegen.module import Source
from mithril.codegen.text import Names
from mithril.errors import OperatorError
from mithril.ops.table import GRADIENT_KERNELS
from mithril.physical.graph import Graph, Node, Value

CONSTANT = ("detach", "floor_divide")
"""Operators whose floating results count as constants."""


def generate_gradient(graph: Graph, trainable: Iterable[str], backend: str, xp: str, imports: tuple[str, ...]) -> str:
    """The source of `evaluate_gradients(output_gradients, params, data[, state])`.

    It runs the graph forwards in one piece, then backwards, and returns outputs, gradients by key, and the new state.
    """
    source = Source(graph, backend, xp, imports)
    source.repeated = set()
    return source.text(Backward(source, list(trainable)).define())


class Backward(Body):
    """The lines of `evaluate_gradients`."""

    inlines = False  # every value is read again on the way back

    def __init__(self, module: Source, trainable: list[str]):
        gradients = {k.__name__ for k in GRADIENT_KERNELS.values()}
        super().__init__(module, Names(module.function_names() | gradients), module.root)
        self.trainable = [module.graph.inputs[key] for key in trainable]
        self.grads: dict[int, str] = {}
        self.needs = {id(v) for v in self.trainable}
        for node in module.graph.nodes:
            if node.op.name not in CONSTANT and any(id(v) in self.needs for v in node.values()):
                self.needs |= {id(v) for v in node.outputs if v.dtype.is_floating}

    def define(self) -> str:
        """The whole function."""
        graph = self.module.graph
        self.texts.names.taken |= {"output_gradients", "gradients"}
        head, arguments = self.open()
        self.write_items(self.region.items)
        self.close_state()
        self.seed()
        for node in reversed(graph.nodes):
            self.write_reverse(node)
        items = []
        for value in self.trainable:
            grad = self.grads.get(id(value)) or f"np.zeros_like({self.texts.values[id(value)]})"
            items.append(f'    "{value.name}": {grad},')
        sizes, _ = self.size_lines(list(graph.inputs.values()))
        tail = [
            "gradients = {",
            *items,
            "}",
            f"return {self.results_text()}, gradients, {'new_state' if graph.new_state else '{}'}",
        ]
        self.module.kernels += self.texts.kernels
        return define_function(
            "evaluate_gradients", ["output_gradients", *arguments], [*head, *sizes, *self.lines, *tail]
        )

    def seed(self) -> None:
        """The gradients that come from outside."""
        for key, value in self.module.graph.outputs.items():
            if isinstance(value, Value) and id(value) in self.needs:
                text = self.texts.values[id(value)]
                self.add(value, f'output_gradients.get("{key}", np.zeros_like({text}))')

    def add(self, value: Value, expression: str) -> None:
        """Add to the gradient of a value."""
        before = self.grads.get(id(value))
        if before is not None:
            self.lines.append(f"{before} = {before} + {expression}")
            return
        text = self.texts.values[id(value)]
        hint = value.name if text.startswith("params[") else text
        name = self.grads[id(value)] = self.texts.names.new(f"grad_{hint}")
        self.lines.append(f"{name} = {expression}")

    def write_reverse(self, node: Node) -> None:
        """From the gradients of a node's outputs to those of its inputs."""
        reached = any(id(v) in self.grads for v in node.outputs)
        if not reached or not any(id(v) in self.needs for v in node.values()):
            return
        if node.op.gradient is None and node.op.name not in GRADIENT_KERNELS:
            raise OperatorError(f"The operator '{node.op.name}' has no gradient on NumPy; it is used by {node!r}.")
        if node.op.name in GRADIENT_KERNELS:
            self.write_kernel(node)
        else:
            self.write_templates(node)

    def write_templates(self, node: Node) -> None:
        rules: Any = node.op.gradient
        output = node.outputs[0]
        call = self.texts.call(node)
        call = replace(
            call, inputs={**call.inputs, "grad": self.grads[id(output)], "output": self.texts.values[id(output)]}
        )
        for name, value in zip(node.op.input_names, node.inputs):
            if isinstance(value, Value) and id(value) in self.needs and name in rules:
                text = self.texts.write(rules[name], call)
                if node.op.elementwise and (value.shape != output.shape or not isinstance(value.shape, tuple)):
                    self.texts.kernels.append(GRADIENT_KERNELS["unbroadcast"])
                    text = f"unbroadcast({text}, {self.texts.values[id(value)]}.shape)"
                self.add(value, text)

    def write_kernel(self, node: Node) -> None:
        function = GRADIENT_KERNELS[node.op.name]
        self.texts.kernels.append(function)
        grads = [self.grads.get(id(v)) or f"np.zeros_like({self.texts.values[id(v)]})" for v in node.outputs]
        outputs = [self.texts.values[id(v)] for v in node.outputs]
        several = node.is_list or len(outputs) > 1
        call = self.texts.call(node)
        arguments = [f"({', '.join(grads)},)" if several else grads[0]]
        arguments += [call[name] for name in node.op.input_names]
        arguments.append(f"({', '.join(outputs)},)" if several else outputs[0])
        arguments += self.texts.named_attributes(node, call)
        targets = [self.target(item) for item in node.inputs]
        while targets and targets[-1] == "_":
            targets.pop()
        rest = ", *_" if len(targets) < len(node.inputs) else "," if len(targets) == 1 else ""
        self.lines.append(f"{', '.join(targets)}{rest} = {function.__name__}({', '.join(arguments)})")
        for target, item in zip(targets, node.inputs):
            self.keep(target, item)

    def target(self, item: Any) -> str:
        """The variable for the gradient of an input; `_` where none is needed."""
        values = item if isinstance(item, tuple) else (item,)
        if not any(isinstance(v, Value) and id(v) in self.needs for v in values):
            return "_"
        if isinstance(item, Value) and id(item) not in self.grads:
            text = self.texts.values[id(item)]
            return self.texts.names.new(f"grad_{item.name if text.startswith('params[') else text}")
        return self.texts.names.new("part")

    def keep(self, target: str, item: Any) -> None:
        """Take the gradient in `target` as the one of `item`, or add it to that."""
        if isinstance(item, tuple):
            for index, value in enumerate(item):
                if isinstance(value, Value) and id(value) in self.needs:
                    self.add(value, f"{target}[{index}]")
        elif target != "_":
            if id(item) in self.grads:
                self.add(item, target)
            else:
                self.grads[id(item)] = target
