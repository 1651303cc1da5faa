"""The command line `nexus`. Commands import what they need when they run, so that `nexus --help` is instant."""

import os
import sys
import warnings


def main() -> None:
    """Runs the command line; a caller's mistake ends in one line and exit status 2, not in a stack trace."""
    from nexus.cli.commands import app

    if not os.environ.get("NEXUS_DEBUG"):
        warnings.formatwarning = _one_line
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("NEXUS_DEBUG"):
            raise
        sys.stderr.write(f"nexus: {error}\n")
        sys.exit(2)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Returns what a warning says, without the line of code that gave it."""
    return f"nexus: {message}\n"
