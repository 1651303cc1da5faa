"""How commands speak: tables for people, JSON for programs, one line for mistakes."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import typer

from nexus.cli.table import lay_out
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
    """Prints rows that share their keys as a table, as wide as the screen, or as COLUMNS says."""
    if not rows:
        return
    known = "COLUMNS" in os.environ or sys.stdout.isatty()
    lines = lay_out(rows, shutil.get_terminal_size().columns if known else None)
    typer.echo("\n".join(["", *lines, ""]))
