"""Files of detections: COCO's results and YOLO's text files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nexus.core.files import write_whole

if TYPE_CHECKING:
    from nexus.tasks.detection.detections import Detections


def write_coco_results(predictions: "Sequence[Detections]", path: Path) -> None:
    """Writes COCO's results. Image ids are those of a data set where `numbered`, else what files are called by."""
    rows = [row for number, one in zip(_image_ids(predictions), predictions) for row in one.to_coco(number)]
    _write(path, json.dumps(rows) + "\n")


def _image_ids(predictions: "Sequence[Detections]") -> list[int]:
    """Those of a data set, or the numbers that files are called by; 1, 2, ... unless every file has one of its own."""
    given = [one.image_id for one in predictions if one.image_id is not None]
    if len(given) == len(predictions):
        return given
    stems = [Path(one.path).stem for one in predictions]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(set(numbers)) == len(stems) else list(range(1, len(stems) + 1))


def write_yolo(predictions: "Sequence[Detections]", folder: Path) -> None:
    """Writes a text file per image: class, centre, size, score."""
    seen: dict[str, str] = {}
    for one in predictions:
        stem = Path(one.path).stem
        if stem in seen:
            raise ValueError(f"{one.path} and {seen[stem]} would share {stem}.txt; write .json instead.")
        seen[stem] = one.path
        _write(folder / f"{stem}.txt", "".join(f"{line}\n" for line in one.to_yolo()))


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
