"""Images with captions: one or several sentences about each image.

`captions:PATH` names

- a `.csv` with the columns `file,caption`, and `split` if wanted; an image with several captions has several lines;
- a `.jsonl` with a mapping a line: `file`, and `caption` or `captions`, and `split` if wanted;
- a folder with COCO's `annotations/captions_<split>*.json`, and images in `<split>*/`, as it comes; or one such `.json`
  of a single split, with its images beside it or in `images/` there.

Paths in a table are relative to it. Where it says nothing of splits, images are held out as those of `folder:PATH` are.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nexus.core.config import nearest
from nexus.data.dataset import DataError, Sample
from nexus.data.datasets.folder import SPLITS
from nexus.data.holding_out import HELD_OUT, held_out_draw
from nexus.data.images import EXTENSIONS, load_image, num_channels, open_image


class Line(NamedTuple):
    """A caption, and where it stands."""

    file: str
    caption: str
    split: str | None
    where: str


class Captions:
    """The images of one split with their captions. There are no classes: every label is 0.

    Attributes:
        captions: The sentences about each image.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, path: str | Path, split: str = "train"):
        """Reads the captions; no image is decoded, the first one's header is read for the number of channels.

        Raises:
            DataError: The file, a line, an image or the split is not as it should be; the message says where.
            ImageError: The first image cannot be used.
        """
        path = Path(path).expanduser()
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}. {nearest(split, SPLITS)}")
        folder, lines = _read(path, split)
        for line in lines:
            _check(folder, line)
        found: dict[str, list[str]] = {}
        for line in _chosen(lines, split):
            found.setdefault(line.file, []).append(line.caption.strip())
        self.name = f"captions:{path}"
        if not found:
            raise DataError(f"{path} has no captions of the split {split!r}.")
        self._files = [folder / file for file in found]
        self.captions = tuple(tuple(sentences) for sentences in found.values())
        self.labels = np.zeros(len(found), dtype=np.int64)
        self.in_channels = num_channels(open_image(self._files[0]))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample with its image decoded."""
        return Sample(load_image(self._files[index]), 0, self.path(index))

    def open(self, index: int) -> Sample:
        """Returns the sample; a JPEG may not be decoded yet, see `nexus.data.images.open_image`."""
        return Sample(open_image(self._files[index]), 0, self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of a sample without reading it."""
        return str(self._files[index])


def _read(path: Path, split: str) -> tuple[Path, list[Line]]:
    """Returns the folder that paths start from, and all lines; of COCO, whose splits are files, those of the split."""
    if path.is_dir():
        return _coco(path, split)
    if not path.is_file():
        raise DataError(f"There is no file {path}; captions are in a .csv, a .jsonl, or COCO's .json.")
    if path.suffix == ".json":
        beside = path.parent / "images"
        return _coco_file(path, beside if beside.is_dir() else path.parent, None)
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"{path} ends in {path.suffix!r}; captions are in a .csv, a .jsonl, or COCO's .json.")
    return path.parent, list(_table(path) if path.suffix == ".csv" else _json_lines(path))


def _chosen(lines: list[Line], split: str) -> list[Line]:
    """Returns the lines of the split, as they say, or by hash."""
    if any(line.split for line in lines):
        return [line for line in lines if line.split == split]
    wanted = [(held_out_draw(line.file) < HELD_OUT) == (split == "val") for line in lines]
    return [line for line, chosen in zip(lines, wanted) if chosen and split != "test"]


def _table(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = list(reader.fieldnames or ())
        if not {"file", "caption"} <= set(columns) <= {"file", "caption", "split"}:
            raise DataError(
                f"{path}, line 1: the columns are {', '.join(columns) or 'missing'}; they must be file,caption, and "
                "split if wanted."
            )
        try:
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where}: not as many values as columns. Quote captions that hold a comma.")
                yield Line(row["file"], row["caption"], row.get("split"), where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; correct the line.") from error


def _json_lines(path: Path) -> Iterator[Line]:
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}, line {number}"
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            sentences = row["captions"] if "captions" in row else [row["caption"]]
            for sentence in sentences:
                yield Line(str(row["file"]), str(sentence), row.get("split"), where)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f'{where} is no caption ({type(error).__name__}: {error}); a line is {{"file": "a.jpg", "caption": '
                '"..."}, or has "captions": [...].'
            ) from error


def _coco(folder: Path, split: str) -> tuple[Path, list[Line]]:
    """Returns the folder of the images, and the captions, of one split of COCO."""
    patterns = (f"annotations/captions_{split}*.json", f"captions_{split}*.json")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    if not files:
        raise DataError(f"{folder} has no captions of {split!r}: none of {', '.join(patterns)} exists.")
    images = next((child for child in sorted(folder.glob(f"{split}*")) if child.is_dir()), folder)
    return _coco_file(files[0], images, split)


def _coco_file(path: Path, images: Path, split: str | None) -> tuple[Path, list[Line]]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [(one.get("id"), one["image_id"], one["caption"]) for one in content["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} has no captions as COCO writes them ({type(error).__name__}: {error}).") from error
    for number, image, _ in rows:
        if image not in names:
            raise DataError(f"{path}, annotation {number}: there is no image {image}.")
    return images, [Line(names[image], text, split, f"{path}, annotation {number}") for number, image, text in rows]


def _check(folder: Path, line: Line) -> None:
    """Raises DataError with what is wrong with a line."""
    if not line.caption.strip():
        raise DataError(f"{line.where}: the caption is empty; fill it in or delete the line.")
    if Path(line.file).is_absolute() or ".." in Path(line.file).parts:
        raise DataError(f"{line.where}: {line.file!r} leads outside of {folder}; paths are relative to the file.")
    file = folder / line.file
    if not file.is_file():
        there = [child.name for child in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{line.where}: there is no file {line.file!r}. {nearest(file.name, there)}")
    if file.suffix.lower() not in EXTENSIONS:
        raise DataError(f"{line.where}: {line.file!r} is not an image; use {', '.join(sorted(EXTENSIONS))}.")
