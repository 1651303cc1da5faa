"""How commands speak: tables for people, JSON for programs, one line for mistakes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import typer

from nexus.core.text import one_line


def fail(message: str) -> NoReturn:
    """Ends the command with a message on standard error and exit status 2."""
    typer.echo(f"nexus: {one_line(message)}", err=True)
    raise typer.Exit(2)


def show_json(value: Any) -> None:
    """Prints a value of mappings, lists, numbers and text as JSON; what is no text in a file's name as an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(text if text.isascii() or _is_text(text) else json.dumps(value, indent=2))


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows that share their keys as a table; numbers stand right, text left."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        table.add_column(Text(one_line(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(_text(value))) for value in row.values()))  # names of files are no markup
    console = Console()
    if not console.is_terminal:  # a pipe has no width: keep every row on one line
        console.width = max(console.width, 200)
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
