"""Which weights of a run are kept in `model/`, and how that is said."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus.core.documents import read_json
from nexus.core.files import write_whole
from nexus.core.foreign import ForeignSettings

RESULT = "result.json"


def figures_at(records: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Returns the figures of the validation at a step, or of the last one where there was none."""
    for wanted in (step, None):
        for record in reversed(records):
            if record["kind"] == "val" and wanted in (None, record["step"]):
                return {name: value for name, value in record.items() if name not in ("kind", "step", "epoch")}
    return {}


def read_result(run_dir: Path) -> tuple[int, Mapping[str, Any]] | None:
    """Returns the step that `model/` is of, and its figures; None of a run that has not ended.

    Raises:
        FileError: The file says something else.
    """
    file = run_dir / RESULT
    if not file.exists() and not file.is_symlink():
        return None
    told = ForeignSettings(read_json(file), str(file))
    metrics = told.get("metrics", {})
    if not isinstance(metrics, Mapping):
        raise told.refuse("metrics", "it must be a mapping of figures")
    if told.get("step") is None:
        raise told.refuse("step", "it must be the step that model/ is of")
    return told.integer("step", 0), metrics


def write_result(run_dir: Path, step: int, epoch: Mapping[str, float], figures: Mapping[str, float]) -> None:
    """Writes `result.json`: the step that `model/` is of, and its figures."""
    text = json.dumps({"step": step, **epoch, "metrics": figures}, indent=1) + "\n"
    write_whole(run_dir / RESULT, lambda part: part.write_text(text, encoding="utf-8"))


def kept_sentence(step: int, steps: int, epoch: Mapping[str, float], headline: str, value: float) -> str:
    """Returns which weights `model/` holds, of a run that keeps the best ones."""
    place = "".join(f"epoch {number:g}, " for number in epoch.values())
    return (
        f"model/ holds the best weights, of {place}step {step} of {steps} ({headline} {value:.4g});"
        " training.keep=last keeps the last."
    )
