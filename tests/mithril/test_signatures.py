"""Signatures say what a function takes: how often they say `Any` in the rooms of the compiler. A bound may only go down.

Rooms without a bound here (the operator table, backends, ready models, mappings of torch's operators) say it still.
"""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "mithril"
BOUNDS = {
    "logical": 65,
    "physical": 63,
    "codegen": 13,
    "compile": 34,
    "interop": 40,
    "training.py": 4,
    "types.py": 2,
    "__init__.py": 1,
    "errors.py": 0,
}


def annotations(path: Path):
    """Yields the annotations of all arguments and results of a file."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            a = function.args
            for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg):
                if argument is not None and argument.annotation is not None:
                    yield argument.annotation
            if function.returns is not None:
                yield function.returns


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return "/".join(parts[:2]) if parts[:2] == ("interop", "mapping") else parts[0]


def test_any_in_signatures_goes_down():
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        for annotation in annotations(path):
            found[room(path)] += sum(isinstance(n, ast.Name) and n.id == "Any" for n in ast.walk(annotation))
    assert not {where: count for where, count in found.items() if count > BOUNDS.get(where, count)}


def test_functions_are_short():
    lengths = sorted(
        (function.end_lineno or 0) - function.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[-1] <= 60
