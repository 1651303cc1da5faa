"""`nexus models` reads kept lines: they are those of the registry, and torch is not waited for."""

import subprocess
import sys
from importlib.resources import files

from nexus.cli.listing import FILE, kept_rows, live_rows, write_rows


def test_the_kept_lines_are_those_of_the_registry():
    """Write them anew with `make docs`."""
    assert (files("nexus.cli") / FILE).read_text(encoding="utf-8") == write_rows()
    assert kept_rows("vit_*", "classification") == live_rows("vit_*", "classification") != []


def test_torch_is_not_imported():
    code = (
        "import sys; from typer.testing import CliRunner; from nexus.cli.commands import app;"
        "print(CliRunner().invoke(app, ['models', 'resnet*', '--json']).stdout); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"name": "resnet18"' in done.stdout
