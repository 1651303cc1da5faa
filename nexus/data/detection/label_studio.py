"""Label Studio's json: a list of tasks. https://labelstud.io/guide/task_format

Coordinates are hundredths of the image's sides. Rectangles become boxes (turned ones, about their upper left corner,
outlines), polygons outlines. Brushes, ellipses, points and several annotations of one task are refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nexus.data.detection.scene import Annotations, Report, Scene
from nexus.data.detection.tools import Sheet, get, image_folders, numbers, outline_of, points_of, side_of, turned_box
from nexus.data.documents import read_json

UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that it was given."""


def read_label_studio(file: Path, root: Path, report: Report) -> Annotations:
    """Returns the annotations of a file; see the module."""
    sheet = Sheet(file, root, report)
    tasks = read_json(file)
    if not isinstance(tasks, list):
        sheet.fault("", "it is no list of tasks; export JSON, not JSON-MIN, from Label Studio.")
    for place, task in enumerate(tasks if isinstance(tasks, list) else ()):
        try:
            _task(sheet, task, f"task {place}", file)
        except ValueError as error:
            sheet.fault(f"task {place}", error)
    return sheet.annotations()


def _task(sheet: Sheet, task: Any, where: str, file: Path) -> None:
    rows = task.get("annotations", task.get("completions")) if isinstance(task, Mapping) else None
    if rows is not None and not isinstance(rows, list):
        raise ValueError(f"its annotations are a {type(rows).__name__}; they must be a list.")
    done = [row for row in rows or () if isinstance(row, Mapping) and not row.get("was_cancelled")]
    if len(done) > 1:
        raise ValueError(f"it has {len(done)} annotations by different people; keep one of them.")
    results = [item for row in done for item in get(row, "result", list)]
    first = next((item for item in results if isinstance(item, Mapping) and "original_width" in item), {})
    sides = side_of(first, "original_height"), side_of(first, "original_width")
    scene = _image(sheet, get(task, "data", Mapping), file, *sides)
    for place, item in enumerate(results):
        try:
            made = _shape(item, scene)
            if made is not None:
                sheet.add(scene, *made)
        except ValueError as error:
            sheet.fault(f"{where}, result {place}", error)


def _image(sheet: Sheet, data: Mapping[str, Any], file: Path, height: int | None, width: int | None) -> Scene:
    """The local file of an address: as its path says, or of its name, with or without what an upload put before it."""
    addresses = [
        value for key, value in data.items() if isinstance(value, str) and (key in ("image", "img") or "/" in value)
    ]
    if not addresses:
        raise ValueError("its data names no image.")
    parts = urlsplit(addresses[0])
    path = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
    name = path.rpartition("/")[2]
    problem: ValueError | None = None
    for one in dict.fromkeys((path.lstrip("/"), name, UPLOADED.sub("", name))):
        try:
            return sheet.image(one, image_folders(file), height, width)
        except ValueError as error:
            problem = problem if problem and one != name else error
    raise problem or ValueError("its data names no image.")


def _shape(item: Any, scene: Scene) -> tuple[str, Any] | None:
    kind, value = get(item, "type", str), get(item, "value", Mapping)
    if kind in ("choices", "textarea", "rating", "relation", "labels"):
        return None  # about the image, or about what another result says
    if item.get("image_rotation"):
        raise ValueError("its image was turned while it was drawn on, which is not read; turn the file itself.")
    labels = value.get(kind)
    if kind not in ("rectanglelabels", "polygonlabels"):
        raise ValueError(f"a result of the type {kind[:40]!r} is not read; draw rectangles or polygons with labels.")
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"its labels are {str(labels)[:60]}; there must be one.")
    across, down = scene.width / 100, scene.height / 100
    if kind == "polygonlabels":
        return labels[0], outline_of([[x * across, y * down] for x, y in points_of(value.get("points"))], scene)
    x, y, w, h, turn = numbers(
        [value.get("x"), value.get("y"), value.get("width"), value.get("height"), value.get("rotation", 0)]
    )
    return labels[0], turned_box((x * across, y * down), (w * across, h * down), turn, scene, "corner")
