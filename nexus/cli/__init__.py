"""The command line `nexus`. Commands import what they need when they run, so that `nexus --help` is instant."""

import os
import sys


def main() -> None:
    """Runs the command line; a caller's mistake ends in one line and exit status 2, not in a stack trace."""
    from nexus.cli.commands import app

    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("NEXUS_DEBUG"):
            raise
        sys.stderr.write(f"nexus: {error}\n")
        sys.exit(2)
