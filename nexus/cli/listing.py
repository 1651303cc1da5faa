"""`nexus models` without waiting for torch: the rows of all cards, kept in a file that `make docs` writes."""

import fnmatch
import json
from pathlib import Path
from typing import Any

FILE = "models.json"


def kept_rows(pattern: str = "*", task: str | None = None) -> list[dict[str, Any]]:
    """Returns the lines of the models whose names match a shell pattern; none if the file knows none."""
    rows = json.loads(Path(__file__).with_name(FILE).read_text(encoding="utf-8"))
    return [row for row in rows if fnmatch.fnmatch(row["name"], pattern) and task in (None, row["task"])]


def live_rows(pattern: str = "*", task: str | None = None) -> list[dict[str, Any]]:
    """Returns the same of the registry itself, with models of the user's own."""
    from nexus.cli.cards import card_row
    from nexus.models.registry import list_models, model_info

    return [card_row(model_info(name)) for name in list_models(pattern, task=task)]


def write_rows() -> str:
    """Returns what the file must hold: a line for each model."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in live_rows())
    return f"[\n{lines}\n]\n"
