"""Images with captions: one or several sentences about each image.

`captions:PATH` names

- a `.csv` with the columns `file,caption`, and `split` if wanted; an image with several captions has several lines;
- a `.jsonl` with a mapping a line: `file`, and `caption` or `captions`, and `split` if wanted;
- a folder with COCO's `annotations/captions_<split>*.json`, and images in `<split>*/`, as it comes; or one such `.json`
  of a single split, with its images beside it or in `images/` there.

Paths in a table are relative to it. Where it says nothing of splits, images are held out as those of `folder:PATH` are.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nexus.core.config import nearest
from nexus.data.dataset import DataError, Sample
from nexus.data.datasets.folder import listed_file, listed_split
from nexus.data.detection.coco import image_folder
from nexus.data.documents import parse_json, read_json, read_table, read_text
from nexus.data.holding_out import HELD_OUT, held_out_draw
from nexus.data.images import EXTENSIONS, load_image, num_channels, open_image
from nexus.data.places import SPLITS, children, split_of


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
        return _coco_file(path, None, None)
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"{path} ends in {path.suffix!r}; captions are in a .csv, a .jsonl, or COCO's .json.")
    return path.parent, list(_table(path) if path.suffix == ".csv" else _json_lines(path))


def _chosen(lines: list[Line], split: str) -> list[Line]:
    """Returns the lines of the split, as they say, or by hash."""
    if any(line.split for line in lines):
        return [line for line in lines if listed_split(line.split, line.where) == split]
    wanted = [(held_out_draw(line.file) < HELD_OUT) == (split == "val") for line in lines]
    return [line for line, chosen in zip(lines, wanted) if chosen and split != "test"]


def _table(path: Path) -> Iterator[Line]:
    for where, row in read_table(path, ("file", "caption"), ("split",)):
        yield Line(row["file"], row["caption"], row.get("split"), where)


def _json_lines(path: Path) -> Iterator[Line]:
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if not text.strip():
            continue
        row = parse_json(text, where)
        sentences = row.get("captions", [row.get("caption")]) if isinstance(row, dict) else None
        split = row.get("split") if isinstance(row, dict) else None
        texts = sentences if isinstance(sentences, list) else [None]
        if not all(isinstance(one, str) for one in [row.get("file") if isinstance(row, dict) else None, *texts]):
            raise DataError(
                f'{where} is no caption; a line is {{"file": "a.jpg", "caption": "..."}}, or has "captions": [...].'
            )
        if split is not None and not isinstance(split, str):
            raise DataError(f"{where}: the split is {str(split)[:40]}; it must be train, val or test.")
        for sentence in texts:
            yield Line(row["file"], sentence, split, where)


def _coco(folder: Path, split: str) -> tuple[Path, list[Line]]:
    """Returns the folder of the images, and the captions, of one split of COCO."""
    places = [*(child for child in children(folder) if child.name.lower() == "annotations"), folder]
    files = [file for place in places for file in children(place) if file.suffix.lower() == ".json"]
    named = [file for file in files if re.fullmatch(r"captions_(.+)", file.stem) and _split(file) == split]
    if not named:
        raise DataError(f"{folder} has no captions of {split!r}: no annotations/captions_{split}*.json exists.")
    if len(named) > 1:
        raise DataError(f"{named[0]} and {named[1]} could both be meant; name one: captions:{named[0]}.")
    return _coco_file(named[0], None, split)


def _split(file: Path) -> str | None:
    return split_of(file.stem.partition("_")[2])


def _coco_file(path: Path, images: Path | None, split: str | None) -> tuple[Path, list[Line]]:
    content = read_json(path)
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(one, list) for one in lists):
        raise DataError(f"{path} has no captions as COCO writes them: it needs the lists images and annotations.")
    rows, annotations = lists
    names: dict[int, str] = {}
    for place, row in enumerate(rows or ()):
        number, name = (row.get("id"), row.get("file_name")) if isinstance(row, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str):
            raise DataError(f"{path}, images[{place}]: it needs a whole number id and a text file_name.")
        names[number] = name
    folder = images or image_folder(path, rows or ())
    return folder, [_coco_line(path, place, row, names, split) for place, row in enumerate(annotations or ())]


def _coco_line(path: Path, place: int, row: Any, names: dict[int, str], split: str | None) -> Line:
    where = f"{path}, annotation {row.get('id', place) if isinstance(row, dict) else place}"
    text = row.get("caption") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: the caption is {str(text)[:40]}; it must be a text.")
    image = row.get("image_id")
    if not isinstance(image, int) or image not in names:
        raise DataError(f"{where}: there is no image {str(image)[:40]}.")
    return Line(names[image], text, split, where)


def _check(folder: Path, line: Line) -> None:
    """Raises DataError with what is wrong with a line."""
    if not line.caption.strip():
        raise DataError(f"{line.where}: the caption is empty; fill it in or delete the line.")
    file = listed_file(folder, line.file, line.where)
    if file.suffix.lower() not in EXTENSIONS:
        raise DataError(f"{line.where}: {line.file!r} is not an image; use {', '.join(sorted(EXTENSIONS))}.")
