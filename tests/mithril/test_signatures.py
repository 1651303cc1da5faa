"""Signatures say what a function takes: how often they say `Any`, nested or not. The bound may only go down."""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "mithril"
BOUND = 266
"""1,112 were there once, 731 of them not nested in another type."""


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


def test_any_in_signatures_goes_down():
    found = Counter(
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for annotation in annotations(path)
        for part in ast.walk(annotation)
        if isinstance(part, ast.Name) and part.id == "Any"
    )
    assert found.total() <= BOUND, found.most_common(10)


def test_no_alias_means_any():
    """A name for `Any` would hide it from the count."""
    for path in PACKAGE.rglob("*.py"):
        for part in ast.parse(path.read_text()).body:
            if isinstance(part, ast.Assign | ast.AnnAssign) and isinstance(part.value, ast.Name):
                assert part.value.id != "Any", f"{path.name}:{part.lineno}"


def test_functions_are_short():
    lengths = sorted(
        (function.end_lineno or 0) - function.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[-1] <= 60
