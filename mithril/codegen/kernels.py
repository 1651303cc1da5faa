"""Sources of kernels, as they are pasted into generated modules."""

import dis
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import Any

from mithril.errors import OperatorError
from mithril.ops.table import HELPERS

CONSTANTS = (int, float, str, tuple)


def pasted_name(name: str, function: Callable[..., Any]) -> str:
    """What a kernel is called in generated modules: its own name in mithril; what users wrote is called as it was
    registered, since two of their functions may bear one name."""
    return function.__name__ if function.__module__.startswith("mithril.") else name


def paste(kernels: Iterable[tuple[str, str]], xp: str) -> list[str]:
    """Sources of the kernels (by their keys in the table) and of every function and constant that they use, what is
    used before its use.

    Raises:
        OperatorError: two constants of one name have different values.
    """
    done: dict[str, str] = {}
    for key in kernels:
        _collect(pasted_name(key[1], HELPERS[key]), HELPERS[key], xp, done)
    return list(done.values())


def _collect(name: str, function: Any, xp: str, done: dict[str, str]) -> None:
    if name in done:
        return
    done[name] = ""  # kernels may call each other
    for used_name in _globals_used(function.__code__):
        used = HELPERS.get((xp, used_name)) or function.__globals__.get(used_name)
        if isinstance(used, FunctionType) and used.__module__.startswith("mithril."):
            _collect(used_name, used, xp, done)
        elif used_name.isupper() and isinstance(used, CONSTANTS):
            text = f"{used_name} = {used!r}"
            if done.setdefault(used_name, text) != text:
                raise OperatorError(f"{name} and another operator's function mean different values by {used_name}.")
    text = source(function, xp, name)
    del done[name]
    done[name] = text


def _globals_used(code: Any) -> list[str]:
    names = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    return names + [name for inner in code.co_consts if hasattr(inner, "co_names") for name in _globals_used(inner)]


@cache
def source(function: Callable[..., Any], xp: str, name: str) -> str:
    """The function without decorators, written for one framework."""
    text = textwrap.dedent(inspect.getsource(function))
    text = re.sub(r"\A.*?^def \w+", f"def {name}", text, count=1, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\bxp\b", xp, text).rstrip()
