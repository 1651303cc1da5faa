"""Values that readers stumble over, and texts that are code in the languages that files can end up in."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

MARKER = Path(tempfile.gettempdir()) / f"nexus-fuzz-marker-{os.getuid() if hasattr(os, 'getuid') else 0}"
"""A folder that only code out of a file would make."""

_CALL = f"__import__('os').makedirs({str(MARKER)!r},exist_ok=True)"

PAYLOADS = (
    _CALL,
    f"a, {_CALL}",
    f"a': {_CALL}, 'b",
    f'a": {_CALL}, "b',
    f"a'+str({_CALL})+'",
    f'a"+str({_CALL})+"',
    f'"""\n{_CALL}\n"""',
    f"'''\n{_CALL}\n'''",
    f'"""+str({_CALL})+"""',
    f"a\n{_CALL}",
    f"a\n    {_CALL}\n    #",
    f"a\r{_CALL}",
    f"a\x0c\n{_CALL}",
    f"a\\\n{_CALL}",
    f"a):\n    {_CALL}\ndef b(",
    f"a = {_CALL}  #",
    f"{{{_CALL}}}",
    f"{{0.__class__}}{{{_CALL}}}",
    f"]; {_CALL}; [",
    f"a; {_CALL}",
    f"a # \n{_CALL}",
    f"$(mkdir -p {MARKER})",
    f"`mkdir -p {MARKER}`",
    f"; mkdir -p {MARKER}",
    f"!!python/object/apply:os.makedirs [{str(MARKER)!r}]",
    f"{{{{ {_CALL} }}}}",
    f"{{% set x = {_CALL} %}}",
)

DEEP = "@deep@"
"""Stands for lists within lists; the writer of a format puts them in."""
DEEP_LEVELS = 100_000

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**32, 2**63, 2**64, 10**9, 10**30, -(10**30), 0.5, -0.0),
    *(1e308, -1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", " ", "0", "-1", "1e9", "no", "null", "NaN", "infinity", "~", "*", "&a", "a: b", "#", "%s", "{}", "{0}", "\\"),
    *("../../../../etc/passwd", "/etc/passwd", "..", ".", "/dev/zero", "C:\\x", "a/../../b", "file:///etc/passwd"),
    *("\0", "a\nb", "\r", "\t", "\x1b[31mred", "[/x]", "[bold]", "\u202e", "\ufeff", "ﬁ", "é", "e\u0301", "ß", "١٢"),
    *("\ud800", "x" * 5000, "9" * 5000, "class", "lambda", "None", "__class__", "__init__", "os", "constructor"),
    *([], {}, [[]], [None], {"": None}, [0] * 1000, [[0] * 4] * 100, {"a": {"b": {"c": []}}}),
    *PAYLOADS[::3],
    DEEP,
]


def as_text(value: Any) -> str:
    """The value as it would stand in a text."""
    return value if isinstance(value, str) else json.dumps(value)
