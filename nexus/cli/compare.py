"""`nexus compare`: runs side by side, where their settings differ and what came of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexus.cli.runs import recipe_of
from nexus.training.kept import figures_at, read_result
from nexus.training.recipe import leaves
from nexus.visualization.curves import read_metrics


def compare_runs(runs: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Returns the settings that differ and the figures of `model/`, a column per run.

    Raises:
        ValueError: There are fewer than two runs, or a folder holds none.
    """
    if len(runs) < 2:
        raise ValueError("compare needs two runs or more: nexus compare runs/a runs/b")
    recipes = [recipe_of(run) for run in runs]
    for run, recipe in zip(runs, recipes):
        if recipe is None:
            raise ValueError(f"{run} is no run: there is no recipe.yaml in it.")
    names = [str(run) for run in runs]
    settings = _rows("setting", [leaves(recipe.to_dict()) for recipe in recipes if recipe is not None], names)
    return {
        "settings": [row for row in settings if any(row[name] != row[names[0]] for name in names)],
        "figures": _rows("figure", [_figures(run) for run in runs], names),
    }


def _rows(title: str, columns: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for column in columns for key in column))
    return [{title: key, **{name: column.get(key) for name, column in zip(names, columns)}} for key in keys]


def _figures(run: Path) -> dict[str, Any]:
    """The figures of the weights that were kept; of a run under way, those of its last validation."""
    if (told := read_result(run)) is not None:
        step, metrics = told
        return {"step of model/": step, **metrics}
    lines = read_metrics(run)
    if not lines:
        return {}
    return {"last step": lines[-1]["step"], **figures_at(lines, lines[-1]["step"])}
