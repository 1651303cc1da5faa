"""The help of every command fits a screen and says what its values are."""

import re

import pytest
import typer
from typer.testing import CliRunner

from nexus.cli.commands import app

GROUP = typer.main.get_command(app)


def commands(group=GROUP, path=()):
    yield path
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield from commands(command, (*path, name))


def help_of(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return CliRunner().invoke(app, [*path, "--help"], prog_name="nexus", catch_exceptions=False).stdout


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_fits_a_screen_and_names_values(path, monkeypatch):
    text = help_of(path, monkeypatch)
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert not re.search(r"--[a-z-]+ <", text), "an option's value has no name but its type"


def test_no_first_line_is_cut_in_the_list_of_commands(monkeypatch):
    for group in ((), ("data",)):
        listed = help_of(group, monkeypatch).partition("Commands:")[2]
        assert listed.strip()
        assert not re.search(r"\.\.\.$", listed, re.MULTILINE)
