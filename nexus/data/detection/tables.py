"""Tables of boxes and masks: Open Images' csv, and those that are usual on Kaggle.

Open Images (https://storage.googleapis.com/openimages/web/download_v7.html): boxes are shares of the sides, a
group is a crowd, and `class-descriptions*.csv` beside the table tells the names of `/m/...`.

Kaggle: `bbox` as [left, top, width, height], or `xmin ymin xmax ymax` in pixels; or `EncodedPixels`, runs "start length
start length" down the columns, where pixels count from 1, and nothing or -1 means nothing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, from_changes
from nexus.data.detection.scene import Annotations, Report, Scene
from nexus.data.detection.tools import UNLABELLED, Sheet, image_folders, numbers
from nexus.data.detection.values import number_of, whole_text
from nexus.data.documents import parse_json, read_table, read_text
from nexus.data.places import children, split_of

IMAGE_COLUMNS = ("image_id", "ImageId", "ImageID", "filename", "file_name", "image", "img")
CLASS_COLUMNS = ("class", "label", "class_name", "ClassId", "class_id", "category", "LabelName")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_open_images(file: Path, root: Path, report: Report) -> Annotations:
    """Returns the boxes of a table of Open Images."""
    sheet, names, missing = Sheet(file, root, report), _descriptions(file), set()
    for where, row in _rows(file):
        try:
            scene = sheet.image(row.get("ImageID"), _folders(file))
        except ValueError as error:
            if row.get("ImageID") not in missing:
                sheet.fault(where, error)
            missing.add(row.get("ImageID"))
            continue
        try:
            if "XMin" not in row:
                raise ValueError("masks of Open Images are not read; use its table of boxes.")
            x1, x2, y1, y2 = (number_of(row.get(key)) for key in ("XMin", "XMax", "YMin", "YMax"))
            box = (x1 * scene.width, y1 * scene.height, x2 * scene.width, y2 * scene.height)
            label = row.get("LabelName", "")
            sheet.add(scene, names.get(label, label), box, crowd=row.get("IsGroupOf") == "1")
        except ValueError as error:
            sheet.fault(where, error)
    return sheet.annotations()


def _descriptions(file: Path) -> dict[str, str]:
    """Names of classes by their code, of a table without columns beside the other one."""
    tables = [one for one in children(file.parent) if one.name.lower().startswith("class-descriptions")]
    lines = [line.partition(",") for table in tables for line in read_text(table).splitlines() if line.strip()]
    return {code.strip(): name.strip().strip('"') for code, _, name in lines}


def read_kaggle(file: Path, root: Path, report: Report) -> Annotations:
    """Returns the boxes or masks of a table as they are usual on Kaggle."""
    sheet, seen = Sheet(file, root, report), False
    for where, row in _rows(file):
        seen = True
        try:
            image, label = _first(row, IMAGE_COLUMNS), _first(row, CLASS_COLUMNS) or UNLABELLED
            if image is None:
                raise DataError(f"{file}: none of the columns {', '.join(IMAGE_COLUMNS)} names the image.")
            scene = sheet.image(image, _folders(file))
            for shape in _shapes(row, scene):
                sheet.add(scene, label, shape)
        except DataError:
            raise
        except ValueError as error:
            sheet.fault(where, error)
    if not seen:
        sheet.fault("", "it has no lines.")
    return sheet.annotations()


def _list(text: str) -> Any:
    try:
        return parse_json(text, "bbox")
    except DataError as error:  # not of the whole file: the caller knows the line
        raise ValueError(str(error)) from None


def _shapes(row: Mapping[str, str], scene: Scene) -> Iterator[Any]:
    if "EncodedPixels" in row:
        text = row["EncodedPixels"].strip()
        if text and text != "-1" and text.lower() != "nan":
            yield runs_of(text, scene)
    elif "bbox" in row:
        text = row["bbox"].strip()
        x, y, w, h = numbers(_list(text if text.startswith("[") else f"[{text}]"), 4)
        yield x, y, x + w, y + h
    else:
        x1, y1, x2, y2 = (number_of(row[side]) for side in SIDES)
        yield x1, y1, x2, y2


def runs_of(text: str, scene: Scene) -> RLE:
    """The mask of runs "start length start length ...", down the columns from pixel 1 on.

    Raises:
        ValueError: They overlap, are not whole numbers, or leave the image.
    """
    words = [whole_text(word) for word in text.split()]
    if len(words) % 2 or None in words:
        raise ValueError(f"its runs {text[:40]!r} are not pairs of whole numbers, start and length.")
    pairs = sorted((int(start or 0) - 1, int(length or 0)) for start, length in zip(words[::2], words[1::2]))
    ends = [0, *(start + length for start, length in pairs)]
    if any(start < end or length < 1 for (start, length), end in zip(pairs, ends)):
        raise ValueError("its runs overlap, are empty, or do not count from 1.")
    if ends[-1] > scene.width * scene.height:
        raise ValueError(f"its runs end at pixel {ends[-1]}; the image has {scene.width * scene.height}.")
    changes = np.array([side for start, length in pairs for side in (start, start + length)], dtype=np.int64)
    places, times = np.unique(changes, return_counts=True)  # where one run touches the next, nothing changes
    places = places[(times == 1) & (places < scene.width * scene.height)]
    return from_changes(places, scene.height, scene.width)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for where, row in read_table(file):
        yield where.removeprefix(f"{file}, "), row


def _first(row: Mapping[str, str], columns: tuple[str, ...]) -> str | None:
    return next((row[column] for column in columns if column in row), None)


def _folders(file: Path) -> list[Path]:
    """Where the images of a table lie; those of its own split first."""
    split = next((one for one in map(split_of, file.stem.replace("_", "-").split("-")) if one), None)
    folders = image_folders(file)
    return sorted(folders, key=lambda folder: split is None or split_of(folder.name.split("_")[0]) != split)
