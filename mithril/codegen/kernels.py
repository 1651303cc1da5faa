"""Sources of kernels, as they are pasted into generated modules."""

import dis
import inspect
import re
from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import Any

from mithril.ops.table import HELPERS

CONSTANTS = (int, float, str, tuple)


def paste(kernels: Iterable[Callable[..., Any]], xp: str) -> list[str]:
    """Sources of the kernels and of every function and constant that they use, what is used before its use."""
    done: dict[int, str] = {}
    for function in kernels:
        _collect(function, xp, done)
    return list(done.values())


def _collect(function: Any, xp: str, done: dict[int, str]) -> None:
    if id(function) in done:
        return
    done[id(function)] = ""  # kernels may call each other
    for name in _globals_used(function.__code__):
        used = HELPERS.get((xp, name)) or function.__globals__.get(name)
        if isinstance(used, FunctionType) and used.__module__.startswith("mithril."):
            _collect(used, xp, done)
        elif name.isupper() and isinstance(used, CONSTANTS):
            done.setdefault(id(used), f"{name} = {used!r}")
    text = source(function, xp)
    del done[id(function)]
    done[id(function)] = text


def _globals_used(code: Any) -> list[str]:
    names = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    return names + [name for inner in code.co_consts if hasattr(inner, "co_names") for name in _globals_used(inner)]


@cache
def source(function: Callable[..., Any], xp: str) -> str:
    """The function without decorators, written for one framework."""
    text = inspect.getsource(function)
    text = text[re.search(r"^def ", text, re.MULTILINE).start() :]  # type: ignore[union-attr]
    return re.sub(r"\bxp\b", xp, text).rstrip()
