"""The command line `nexus`. Commands import what they need when they run, so that `nexus --help` is instant."""

import os
import sys
import warnings
from typing import Any

from nexus.core.text import one_line


def main() -> None:
    """Runs the command line; a caller's mistake ends in one line and exit status 2, not in a stack trace."""
    from typer import Abort, BadParameter

    from nexus.cli.commands import app

    UsageError: Any = BadParameter.__base__  # click's own, which newer typers hold inside

    if not os.environ.get("NEXUS_DEBUG"):
        warnings.formatwarning = _one_line
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Abort:
        sys.exit("nexus: Stopped.")
    except UsageError as error:
        sys.stderr.write(_usage(error))
        sys.exit(2)
    except Exception as error:
        if os.environ.get("NEXUS_DEBUG") or not _is_answer(error):
            raise
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            sys.stderr.write(f"nexus: {one_line(str(error) or type(error).__name__)}\n")
        sys.exit(2)


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where its help is; a group without a command is its help."""
    message = error.format_message()
    if error.ctx is not None and message == error.ctx.get_help():
        return f"{message}\n"
    words = error.ctx.command_path.removeprefix(error.ctx.find_root().command_path) if error.ctx is not None else ""
    said = one_line(message).rstrip(".")
    return f"nexus: {said}{'' if said.endswith('?') else '.'} `nexus{words} --help` shows what there is.\n"


def _is_answer(error: Exception) -> bool:
    """Whether an error is meant for a person: a mistake, a file, a missing package, or one of the library's own."""
    ours = type(error).__module__.partition(".")[0] in ("nexus", "mithril")
    return ours or isinstance(error, ValueError | OSError | ImportError)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Returns what a warning says, without the line of code that gave it."""
    return f"nexus: {one_line(str(message))}\n"
