"""`nexus predict --model mine.onnx`: an exported classifier or detector answers in ONNX Runtime, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexus.cli.output import fail, show_json, show_table

OTHERS = (
    *("--output", "--data", "--draw", "--tile", "--overlap", "--prompt"),
    *("--classes", "--tokenizer", "--device", "--every", "--strict", "--long"),
)
"""Options of `nexus predict` that exported models do not have."""


def is_exported(model: str | None) -> bool:
    """Returns whether a model is a file that `nexus export` wrote, or a folder of them."""
    path = Path(model or "")
    return path.suffix == ".onnx" or (model is not None and path.is_dir() and any(path.glob("*.onnx")))


def predict_exported(
    model: str,
    images: Sequence[str] | None,
    batch_size: int,
    top: int | None,
    min_score: float | None,
    *,
    as_json: bool,
    others: Sequence[Any],
) -> None:
    """Prints what an exported model says about files; options that it does not have are refused by name."""
    from nexus.deploy.onnx_model import OnnxModel

    given = [name for name, value in zip(OTHERS, others, strict=True) if value]
    if given:
        fail(f"{given[0]} is not for exported models, whose answers are printed, or written by --json; leave it out.")
    opened = OnnxModel(model)
    if opened.takes("points"):
        fail(f"{model} answers prompts; from Python: OnnxModel({model!r})(photo, prompts={{'points': [[500, 375]]}}).")
    answers = [_limited(one, top, min_score) for one in opened(list(images or ()), batch_size=batch_size)]
    if as_json:
        show_json(answers)
    else:
        show_table([row for one in answers for row in _rows(one)])


def _limited(answer: dict[str, Any], top: int | None, min_score: float | None) -> dict[str, Any]:
    key = "top" if "top" in answer else "objects"
    if key == "top" and min_score is not None:
        fail("--min-score is for detectors, and this model classifies; leave it out.")
    kept = [one for one in answer[key] if min_score is None or one["score"] >= min_score]
    return {**answer, key: kept[:top]}


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = answer.get("top", answer.get("objects", ()))
    rows = []
    for rank, one in enumerate(found, start=1):
        box = dict(zip(("x1", "y1", "x2", "y2"), one.get("box", ())))
        rows.append({"path": answer["path"], "rank": rank, "label": one["label"], "score": one["score"], **box})
    return rows
