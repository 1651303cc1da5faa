"""No circle of files: not by imports at the top, not by imports inside functions, not by modules named in strings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Circles that stand until they are cut: where all of their files are, and why.
KNOWN: dict[str, dict[tuple[str, ...], str]] = {
    "nexus": {},
    "mithril": {
        ("mithril/logical/",): "to_json and from_json are methods of a model, and have to know every kind of model",
    },
}


def file_of(module: str) -> str | None:
    """Returns the file of a module of this repository."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return str(file.relative_to(ROOT))
    return None


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walks a tree, except for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from statements(other)
            continue
        yield child
        yield from statements(child)


def used_files(path: Path, package: str) -> set[str]:
    """Returns the files that a file imports, anywhere in it, or names in a string."""
    found: set[str | None] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {file_of(f"{node.module}.{alias.name}") or file_of(node.module) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if text.startswith(f"{package}.") and all(part.isidentifier() for part in text.split(".")):
                found.add(file_of(text))
    return {file for file in found if file and file.startswith(f"{package}/")} - {
        path.as_posix().removeprefix(f"{ROOT.as_posix()}/")
    }


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Returns the groups of files that reach each other (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(file: str) -> None:
        order[file] = low[file] = len(order)
        stack.append(file)
        for other in sorted(graph.get(file, ())):
            if other not in order:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], order[other])
        if low[file] == order[file]:
            place = stack.index(file)
            groups.append(set(stack[place:]))
            del stack[place:]

    for file in sorted(graph):
        if file not in order:
            visit(file)
    return [group for group in groups if len(group) > 1]


def test_a_circle_is_seen_however_it_is_closed(tmp_path):
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    source = tmp_path / "one.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nexus.core import hub\n"
        "def f():\n    from nexus.core.config import Config\n    return g('nexus.core.module'), 'nexus.core.weights is'\n"
    )
    assert used_files(source, "nexus") == {"nexus/core/config.py", "nexus/core/module.py"}


@pytest.mark.parametrize("package", ["nexus", "mithril"])
def test_files_form_no_circle(package):
    graph = {str(p.relative_to(ROOT)): used_files(p, package) for p in sorted((ROOT / package).rglob("*.py"))}
    found = circles(graph)
    new = [group for group in found if not any(all(f.startswith(places) for f in group) for places in KNOWN[package])]
    assert not new, "\n".join(" <-> ".join(sorted(group)) for group in new)
    gone = [p for p in KNOWN[package] if not any(all(f.startswith(p) for f in group) for group in found)]
    assert not gone, f"no circle there any more, take it out of KNOWN: {gone}"
