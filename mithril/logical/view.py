"""Logical models to look at: a table, graphviz's text format, and a drawing."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from mithril.errors import MithrilError
from mithril.logical.connection import MISSING, Connection, Node, connections_in
from mithril.logical.wires import Wires

BOX = (150, 34)  # pixels
GAP = (30, 40)


def summary(model: Wires, depth: int, opened: type[Wires]) -> str:
    """Submodels with their wires, nested ones indented down to `depth`; inputs with what is declared; outputs.

    Args:
        opened: the class of those that are opened; layers, which are subclasses of it, are one line.
    """
    rows = [("name", "type", "reads", "gives")]
    _rows(model, depth, 0, rows, opened)
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    rule = "-" * max(map(len, lines))
    open_ends = [c for c in model.connections.values() if c.producer is None and c.value is MISSING]
    free = (c for c in open_ends if c.named or (c.readers and not c.hint))
    inputs = ", ".join(map(_declared, free)) or "none"
    outputs = ", ".join(c.key if c.named else "output" for c in model.outputs)
    title = f"{model.name or 'unnamed'} ({model.type_name}), {sum(1 for _ in _operators(model))} operators"
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, f"inputs: {inputs}", f"outputs: {outputs}"])


def _rows(model: Wires, depth: int, level: int, rows: list[tuple[str, str, str, str]], opened: type[Wires]) -> None:
    for node in model.nodes:
        reads = [_wire(key, value) for key, value in node.bindings.items()]
        gives = ", ".join(_label(c) for c in node.outputs.values())
        rows.append(("  " * level + node.name, node.model.type_name, ", ".join(reads), gives))
        if level + 1 < depth and type(node.model) is opened:
            _rows(node.model, depth, level + 1, rows, opened)


def _wire(key: str, value: object) -> str:
    found = [_label(c) for c in connections_in(value)]
    text = found[0] if isinstance(value, Connection) else f"[{', '.join(found)}]" if found else repr(value)
    return key if text == key else f"{key}={text}"


def _label(connection: Connection) -> str:
    if connection.named:
        return connection.key
    if connection.producer is not None:
        return connection.producer.name
    return "_".join(connection.hint) or "input"


def _declared(connection: Connection) -> str:
    shape = "" if connection.pattern is None else str(list(connection.pattern))
    kind = "" if connection.type is None else f" {getattr(connection.type, '__name__', connection.type)}"
    return f"{_label(connection)}{kind}{shape}"


def _operators(model: Wires) -> Iterator[Node]:
    for node in model.nodes:
        yield from (node,) if not node.model.nodes else _operators(node.model)


def draw(model: Wires, path: str | Path | None) -> str:
    """Graphviz text, or an SVG if `path` ends in `.svg`; written to `path` if one is given."""
    if path is None:
        return dot(model)
    path = Path(path)
    if path.suffix not in (".svg", ".dot"):
        raise MithrilError(f"'{path}' must end in .svg or .dot.")
    text = svg(model) if path.suffix == ".svg" else dot(model)
    path.write_text(text)
    return text


def _edges(model: Wires) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Boxes by name with their text, and edges (from, to, key)."""
    boxes: dict[str, str] = {}
    edges: list[tuple[str, str, str]] = []
    for node in model.nodes:
        boxes[node.name] = f"{node.name}: {node.model.type_name}"
        for key, value in node.bindings.items():
            for source in connections_in(value):
                start = source.producer.name if source.producer is not None else f"in {_label(source)}"
                if source.producer is None:
                    boxes.setdefault(start, _label(source))
                edges.append((start, node.name, key))
    for connection in model.outputs:
        if connection.producer is not None:
            name = connection.key if connection.named else "output"
            boxes[f"out {name}"] = name
            edges.append((connection.producer.name, f"out {name}", ""))
    return boxes, edges


def dot(model: Wires) -> str:
    """The graph in graphviz's text format."""
    boxes, edges = _edges(model)
    lines = [
        f"digraph {_quoted(model.name or model.type_name)} {{",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
    ]
    for name, text in boxes.items():
        shape = ", shape=plaintext" if name[:3] in ("in ", "out") and name not in model.submodels else ""
        lines.append(f"  {_quoted(name)} [label={_quoted(text)}{shape}];")
    lines += [f"  {_quoted(a)} -> {_quoted(b)} [label={_quoted(key)}];" for a, b, key in edges]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """A text as graphviz reads it."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else " " for c in text) + '"'


def svg(model: Wires) -> str:
    """The graph as a drawing: rows by distance from the inputs."""
    boxes, edges = _edges(model)
    level: dict[str, int] = dict.fromkeys(boxes, 0)
    for _ in range(len(boxes)):
        moved = False
        for start, end, _key in edges:
            if level[end] <= level[start]:
                level[end], moved = level[start] + 1, True
        if not moved:
            break
    rows: dict[int, list[str]] = {}
    for name in boxes:
        rows.setdefault(level[name], []).append(name)
    width = max(map(len, rows.values())) * (BOX[0] + GAP[0]) + GAP[0]
    height = len(rows) * (BOX[1] + GAP[1]) + GAP[1]
    at: dict[str, tuple[float, float]] = {}
    for row, names in rows.items():
        left = (width - len(names) * (BOX[0] + GAP[0])) / 2
        middle = GAP[1] + row * (BOX[1] + GAP[1]) + BOX[1] / 2
        at |= {name: (left + (i + 0.5) * (BOX[0] + GAP[0]), middle) for i, name in enumerate(names)}
    size = f'width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    for start, end, key in edges:
        (x1, y1), (x2, y2) = at[start], at[end]
        y1, y2 = y1 + BOX[1] / 2, y2 - BOX[1] / 2
        middle = (y1 + y2) / 2
        curve = f"M {x1} {y1} C {x1} {middle}, {x2} {middle}, {x2} {y2}"
        parts.append(f'<path d="{curve}" fill="none" stroke="#888"><title>{escape(key)}</title></path>')
    for name, (x, y) in at.items():
        frame = "#456" if name in model.submodels else "none"
        corner = f'x="{x - BOX[0] / 2}" y="{y - BOX[1] / 2}" width="{BOX[0]}" height="{BOX[1]}" rx="6"'
        parts.append(f'<rect {corner} fill="white" stroke="{frame}"/>')
        text = boxes[name] if len(boxes[name]) <= 26 else boxes[name][:25] + "…"
        parts.append(f'<text x="{x}" y="{y + 4}" text-anchor="middle">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"])
