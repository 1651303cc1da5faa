"""Commands that one kind of model alone has: its folder offers them, `nexus` finds them through the table of tasks."""

from typing import Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """The commands that are always there, and those of the kinds, which are looked for when another name is called."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command of this name; None if there is none."""
        return super().get_command(ctx, cmd_name) or _offered_command(cmd_name)


def _offered_command(name: str) -> Any:
    if not name.isidentifier():
        return None
    from nexus.tasks.table import offered_command

    function = offered_command(name)
    if function is None:
        return None
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
    alone.command(name)(function)
    return typer.main.get_command(alone)
