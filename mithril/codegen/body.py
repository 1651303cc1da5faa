"""The lines of one function of the generated source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mithril.codegen.literal import MARK, Variable, formatted, quoted
from mithril.codegen.regions import Flow, Item, Region, chains, numbered
from mithril.codegen.text import Names, Texts, shape_comment
from mithril.errors import ShapeError
from mithril.physical.graph import Node, Value, Variadic
from mithril.types import Dim

if TYPE_CHECKING:
    from mithril.codegen.module import Source

WIDTH = 110
"""Longest line that keeps its shape comment."""

INLINE_WIDTH = 92
"""Longest line that an unnamed step is written into, instead of getting a line of its own."""

ATOMS = (ast.Call, ast.Subscript, ast.Attribute, ast.Name, ast.Constant)


@dataclass
class Function:
    """A written block: its text and what a call has to give besides the values that flow in."""

    name: str
    text: str
    needs_params: bool
    sizes: list[str]
    new_state: bool
    kernels: list[tuple[str, str]]


class Body:
    """The lines of one function: of a repeated region, or of the whole graph."""

    inlines = True

    def __init__(self, module: Source, names: Names, region: Region):
        self.module = module
        self.region = region
        self.texts = Texts(module.backend, names)
        self.lines: list[str] = []
        self.pending: dict[str, tuple[Value, str]] = {}  # unnamed steps that one line reads, by their marks in it
        self.steps = 0  # that were ever pending
        self.uses_params = False
        self.uses_state = False
        self.state_keys = {id(v): key for key, v in module.graph.new_state.items()}
        self.written: set[str] = set()
        self.places: dict[int, tuple[int, int]] = {}  # of values: node and output
        self.counter = ""  # of loops
        self.flow = Flow(region, module.repeated, [] if region.prefix else list(module.graph.results()))

    def evaluate(self) -> Function:
        """The module's entry: parameters and data in, outputs by key out."""
        head, arguments = self.open()
        self.write_items(self.region.items)
        self.close_state()
        ending = self.settle(f"return {self.results_text()}" + (", new_state" if self.module.graph.new_state else ""))
        sizes, missing = self.size_lines(list(self.module.graph.inputs.values()))
        if missing:
            raise ShapeError(f"{self.module.graph.name}: {missing[0]} is needed, a size that no input has.")
        return self.entry("evaluate", arguments, [*head, *sizes, *self.lines, ending])

    def entry(self, name: str, arguments: list[str], lines: list[str]) -> Function:
        """A function that users call."""
        return Function(name, define_function(name, arguments, lines), True, [], False, self.texts.kernels)

    def open(self) -> tuple[list[str], list[str]]:
        """The first lines, which name the data, and the arguments."""
        graph, texts = self.module.graph, self.texts
        head = []
        for value in graph.inputs.values():
            if value.kind == "input":
                name = texts.values[id(value)] = texts.names.new(value.hint)
                head.append(f"{name} = data[{quoted(value.name)}]{shape_comment([value])}")
            else:
                texts.values[id(value)] = f"params[{quoted(value.name)}]"
        if graph.new_state:
            return [*head, "params = {**params, **state}", "new_state = {}"], ["params", "data", "state"]
        if any(value.kind == "state" for value in graph.inputs.values()):
            return [*head, "params = {**params, **(state or {})}"], ["params", "data", "state=None"]
        return head, ["params", "data"]

    def close_state(self) -> None:
        """New state that no block has kept."""
        for key, value in self.module.graph.new_state.items():
            if key not in self.written and id(value) in self.texts.values:
                self.lines.append(self.settle(f"new_state[{quoted(key)}] = {self.texts.values[id(value)]}"))

    def results_text(self) -> str:
        results = self.module.graph.outputs.items()
        return "{" + ", ".join(f"{quoted(key)}: {self.texts.result(value)}" for key, value in results) + "}"

    def function(self, name: str) -> Function:
        """The function of a repeated region."""
        region, texts = self.region, self.texts
        only = len(region.arguments) == 1
        arguments = [texts.names.new("x" if only else v.hint) for v in region.arguments]
        for value, text in zip(region.arguments, arguments):
            texts.values[id(value)] = text
            self.flow.holds[text] = value
        for value in region.parameters:
            texts.values[id(value)] = f"params[{self.key_text(value.name)}]"
        self.uses_params = bool(region.parameters)
        self.write_items(region.items)
        ending = self.settle(f"return {', '.join(texts.values[id(v)] for v in region.results)}")
        sizes, missing = self.size_lines(region.arguments)
        last_names_it = self.lines and self.lines[-1].startswith(f"{ending.removeprefix('return ')} = ")
        if len(region.results) == 1 and last_names_it:
            ending = "return " + self.lines.pop().split(" = ", 1)[1]
        first = (["params", "prefix"] if self.uses_params or self.uses_state else []) + arguments
        last = [texts.symbols[s] for s in missing] + (["new_state"] if self.uses_state else [])
        text = define_function(name, [*first, *last], [*sizes, *self.lines, ending])
        return Function(name, text, self.uses_params or self.uses_state, missing, self.uses_state, texts.kernels)

    def write_items(self, items: list[Item]) -> None:
        """One line per operator, one call per repeated region or a loop of them, other regions in place."""
        loops, written = chains(items, self.module.uses), 0
        for place, item in enumerate(items):
            if place < written:
                continue
            if isinstance(item, Node):
                self.write_node(item)
            elif item.signature not in self.module.repeated:
                self.write_items(item.items)
            elif place in loops:
                self.write_loop(loops[place])
                written = place + len(loops[place])
            else:
                self.write_call(item)

    # One operator

    def write_node(self, node: Node) -> None:
        """Its line, or its text kept for the line that reads it."""
        self.flow.now = self.flow.places[id(node)]
        expression = self.texts.expression(node)
        self.uses_params = self.uses_params or "params[" in expression
        expression = self.settle(expression)
        if self.may_wait(node, expression):
            self.steps += 1
            mark = f"{MARK}{self.steps}{MARK}"
            self.pending[mark] = node.outputs[0], expression
            self.texts.values[id(node.outputs[0])] = mark
            return
        names = [self.name(value) for value in node.outputs]
        target = ", ".join(names) + ("," if node.is_list and len(names) == 1 else "")
        self.add_line(f"{target} = {expression}", node.outputs)
        for value in node.outputs:
            key = self.state_keys.get(id(value))
            if key is not None and key.startswith(self.region.prefix):
                self.uses_state = True
                self.written.add(key)
                self.lines.append(f"new_state[{self.key_text(key)}] = {self.texts.values[id(value)]}")

    def may_wait(self, node: Node, expression: str) -> bool:
        """Whether the step is short, was named by nobody, and is read once."""
        value = node.outputs[0]
        unnamed = len(node.outputs) == 1 and not node.is_list and self.hint(value) == node.op.name
        once = self.module.uses.get(id(value)) == 1 and id(value) not in self.state_keys
        return self.inlines and unnamed and once and len(expression) <= INLINE_WIDTH - 20

    def settle(self, text: str) -> str:
        """A text with the pending steps it reads written in, or written before it where they do not fit."""
        for mark in [m for m in self.pending if m in text]:
            value, step = self.pending.pop(mark)
            at = text.find(mark)
            before, after = text[:at], text[at + len(mark) :]
            inner = step if _stands_alone(before, step, after) else f"({step})"
            if text.count(mark) == 1 and len(before + inner + after) <= INLINE_WIDTH:
                text = before + inner + after
                self.texts.values[id(value)] = inner
            else:
                name = self.name(value)
                self.add_line(f"{name} = {step}", [value])
                text = text.replace(mark, name)
        return text

    def name(self, value: Value, hint: str = "") -> str:
        """A variable for a value: of its name, or the one that maps flow through, so that no longer needed ones are
        freed."""
        if self.inlines and self.flow.passes_on(value):
            name = self.flow_variable()
            self.flow.holds[name] = value
        else:
            name = self.texts.names.new(hint or self.hint(value))
        self.texts.values[id(value)] = name
        return name

    def flow_variable(self) -> str:
        """`x`, `y` or `z`: the first whose value nobody will read, or that is new."""
        waiting = " ".join(text for _, text in self.pending.values())
        for name in ("x", "y", "z"):
            if self.flow.is_over(name) and not re.search(rf"\b{name}\b", waiting):
                return name
            if name not in self.texts.names.taken:
                return self.texts.names.new(name)
        return self.texts.names.new("x")

    def hint(self, value: Value) -> str:
        """The author's name for it; inside a block, a name that belongs to the block's outside says nothing."""
        node = value.node
        assert node is not None
        hint = value.hint.removeprefix(self.region.name) if self.region.prefix else value.hint
        return hint.lstrip("_") or node.op.name

    # Blocks

    def write_call(self, region: Region) -> None:
        """A call of the region's function."""
        arguments = [self.settle(self.texts.values[id(v)]) for v in region.arguments]
        call = self.call_text(region, arguments, self.key_text(region.prefix.removesuffix("_")))
        self.flow.now = self.flow.places[id(region.nodes[0])]
        names = [self.name(value, value.hint or region.name) for value in region.results]
        self.add_line(f"{', '.join(names)} = {call}", region.results)

    def write_loop(self, run: list[Region]) -> None:
        """Alike regions one after the other, as a loop over their numbers."""
        first, last = run[0], run[-1]
        self.flow.now = self.flow.places[id(last.nodes[0])]
        place = next(i for i, v in enumerate(run[1].arguments) if v is first.results[0])
        name = self.loop_variable(first, first.arguments[place])
        _, number = numbered(first.label)
        assert number is not None, f"{first.label} has no number"
        self.counter = self.counter or self.texts.names.new("i")
        key = formatted(*self.key_parts(first.prefix.removesuffix(f"{number}_")), Variable(self.counter))
        arguments = [self.settle(self.texts.values[id(v)]) for v in first.arguments]
        arguments[place] = name
        call = self.call_text(first, arguments, key)
        for region in run[1:]:
            self.written |= {region.prefix + k for k, _ in region.new_state}
        span = f"{len(run)}" if number == 0 else f"{number}, {number + len(run)}"
        self.lines.append(f"for {self.counter} in range({span}):")
        same = all(r.results[0].shape == last.results[0].shape for r in run)
        self.add_line(f"    {name} = {call}", last.results if same else [])
        self.texts.values[id(last.results[0])] = name
        self.flow.holds[name] = last.results[0]

    def loop_variable(self, first: Region, start: Value) -> str:
        """The variable that a loop changes, set to its first value."""
        name = before = self.settle(self.texts.values[id(start)])
        if self.flow.holds.get(before) is not start or not self.flow.is_over(before):
            name = self.flow_variable()
        reads = sum(v is start for node in first.nodes for v in node.values())
        ends_here = bool(self.lines) and self.lines[-1].startswith(f"{before} = ")
        if before != name and ends_here and self.module.uses[id(start)] == reads:
            before, self.lines[-1] = name, name + self.lines[-1].removeprefix(before)
        if before != name:
            self.add_line(f"{name} = {before}", [start] if start.node is not None else [])
        self.texts.values[id(start)] = name
        return name

    def call_text(self, region: Region, arguments: list[str], key: str) -> str:
        """A call of a region's function for the parameters under `key`."""
        function = self.module.function(region)
        if function.needs_params:
            arguments = ["params", key, *arguments]
            self.uses_params = True
        arguments = arguments + [self.texts.symbol(s) for s in function.sizes]
        if function.new_state:
            self.uses_state = True
            arguments.append("new_state")
            self.written |= {region.prefix + key for key, _ in region.new_state}
        return f"{function.name}({', '.join(arguments)})"

    def key_text(self, key: str) -> str:
        """A parameter's key or a prefix as it is written here."""
        return formatted(*self.key_parts(key))

    def key_parts(self, key: str) -> list[str | Variable]:
        """A key or its beginning; inside of a block, what follows the block's own prefix."""
        if not self.region.prefix:
            return [key]
        rest = key.removeprefix(self.region.prefix)
        return [Variable("prefix")] if rest == key else [Variable("prefix"), f"_{rest}"]

    # Lines

    def add_line(self, text: str, values: Any) -> None:
        """A line with the shapes of what it computes, where they are the same at every use and there is room."""
        comment = shape_comment(values) if self.shapes_agree(values) else ""
        self.lines += [text + comment] if len(text + comment) <= WIDTH else wrap(text)

    def shapes_agree(self, values: Any) -> bool:
        """Whether all regions that this function stands for compute values of the same shapes here."""
        alike = self.module.alike.get(self.region.signature, [])
        if len(alike) < 2:
            return True
        if not self.places:
            self.places = {id(v): (i, j) for i, n in enumerate(self.region.nodes) for j, v in enumerate(n.outputs)}
        for value in values:
            if id(value) not in self.places:
                return False
            i, j = self.places[id(value)]
            if any(other.nodes[i].outputs[j].shape != value.shape for other in alike):
                return False
        return True

    def size_lines(self, sources: list[Value]) -> tuple[list[str], list[str]]:
        """Lines that read the sizes used here off the arguments' shapes, and the sizes that have to be passed in."""
        lines, missing = [], []
        alike = self.module.alike.get(self.region.signature, [self.region])
        for symbol, name in self.texts.symbols.items():
            for index, value in enumerate(sources):
                found = [a for a, size in enumerate(_sizes(value)) if isinstance(size, Dim) and size.name == symbol]
                uses = [r.arguments[index] for r in alike] if self.region.prefix else [value]
                if found and all(found[0] < len(_sizes(u)) and _sizes(u)[found[0]] == Dim(symbol) for u in uses):
                    lines.append(f"{name} = {self.texts.values[id(value)]}.shape[{found[0]}]")
                    break
            else:
                missing.append(symbol)
        return lines, missing


def wrap(text: str) -> list[str]:
    """A long line, with the arguments of its longest call on lines of their own."""
    if len(text) <= WIDTH:
        return [text]
    indent, source = " " * (len(text) - len(text.lstrip())), text.strip().encode()  # offsets are those of bytes
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and (n.args or n.keywords)]
    if not calls:
        return [text]
    call = max(calls, key=lambda call: _end(call) - _end(call.func))
    lines, line = [f"{indent}{source[: _end(call.func) + 1].decode()}"], ""
    for node in (*call.args, *call.keywords):
        argument = source[node.col_offset : _end(node)].decode()
        longer = f"{line} {argument}," if line else f"{indent}    {argument},"
        if line and len(longer) > WIDTH:
            lines.append(line)
            longer = f"{indent}    {argument},"
        line = longer
    return [*lines, line, f"{indent}{source[_end(call) - 1 :].decode()}"]


def _end(node: Any) -> int:
    return node.end_col_offset


def _stands_alone(before: str, text: str, after: str) -> bool:
    """Whether an expression means the same in its place without parentheses."""
    if isinstance(ast.parse(text, mode="eval").body, ATOMS):
        return True
    try:
        bare = ast.dump(ast.parse(before + text + after))
    except SyntaxError:  # `0.sum()`
        return False
    return bare == ast.dump(ast.parse(f"{before}({text}){after}"))


def _sizes(value: Value) -> tuple[Any, ...]:
    return () if isinstance(value.shape, Variadic) else value.shape


def define_function(name: str, arguments: list[str], lines: list[str]) -> str:
    return "\n".join([f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in lines)])
