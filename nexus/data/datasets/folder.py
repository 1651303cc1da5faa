"""A folder of images, one class per folder or per line of a table.

Three layouts, the first that fits:

- `PATH/labels.csv` with the columns `file,label` (paths relative to the table), and `split` if wanted.
- `PATH/train/<class>/...` and `PATH/val/<class>/...`, maybe `PATH/test/...`; each may have a `labels.csv` instead.
  `Training`, `valid`, `validation`, `testing` and the like are read as these.
- `PATH/<class>/...`: about one image in five is held out as "val". Which ones is decided by a hash of each image's own
  path, so that an image never changes sides when others come or go.

Class names are sorted as text, in composed Unicode. Images may lie deeper in a class's folder. Hidden files and other
kinds are passed over, and a folder that links lead to again is read once.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nexus.core.config import nearest, shown
from nexus.data.dataset import DataError, Sample
from nexus.data.documents import read_table
from nexus.data.holding_out import HELD_OUT, held_out_draw
from nexus.data.images import EXTENSIONS, load_image, num_channels, open_image
from nexus.data.places import SPLITS, children, inside, split_folders, split_of, walk

TABLE = "labels.csv"
_PROBED = 8


class Entry(NamedTuple):
    """An image and what is said about it; `split` is None where nothing is."""

    file: Path
    label: str
    split: str | None = None


class ImageFolder:
    """The images of one split of a folder; see the module for the layouts."""

    def __init__(self, root: str | Path, split: str = "train"):
        """Lists the images; none is decoded, a few headers are read for the number of channels.

        Raises:
            DataError: The folder, the split, a class or the table is not as it should be; the message names the
                folder or the line.
            ImageError: One of the first images cannot be used.
        """
        self.root = Path(root).expanduser()
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}. {nearest(split, SPLITS)}")
        if not self.root.is_dir():
            raise DataError(f"There is no folder {self.root}; name one that holds a folder of images per class.")
        entries, self.class_names = _entries(self.root, split)
        positions = {name: position for position, name in enumerate(self.class_names)}
        self._files = [entry.file for entry in entries]
        self.labels = np.array([positions[entry.label] for entry in entries], dtype=np.int64)
        self.name = f"folder:{self.root}"
        # One colour image makes it a colour data set; grey ones are then repeated to three channels.
        probes = np.unique(np.linspace(0, len(self._files) - 1, _PROBED).astype(int))
        self.in_channels = max(num_channels(open_image(self._files[probe])) for probe in probes)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample with its image decoded."""
        return Sample(load_image(self._files[index]), int(self.labels[index]), self.path(index))

    def open(self, index: int) -> Sample:
        """Returns the sample; a JPEG may not be decoded yet, see `nexus.data.images.open_image`."""
        return Sample(open_image(self._files[index]), int(self.labels[index]), self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of a sample without reading it."""
        return str(self._files[index])


def _entries(root: Path, split: str) -> tuple[list[Entry], tuple[str, ...]]:
    """Returns the images of the split, sorted, and the class names of the training split."""
    folders = _split_folders(root)
    if "train" not in folders:
        listed = list(_listed(root))
        names = _class_names(root, listed)
        return _chosen(root, listed, split), names
    train = list(_listed(folders["train"]))
    names = _class_names(folders["train"], train)
    if split == "train":
        return train, names
    if split not in folders:
        there = ", ".join(folders)
        raise DataError(f"{root} has {there} but no {split}; add the folder {root / split} with one folder per class.")
    entries = list(_listed(folders[split]))
    for entry in entries:
        if entry.label not in names:
            raise DataError(
                f"{entry.file} is of the class {entry.label!r}, which {folders['train']} does not have. "
                f"{nearest(entry.label, names)}"
            )
    if not entries:
        raise _no_images(folders[split])
    return entries, names


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits with folders of classes in them; a class may be called "train", and has images instead."""
    if (root / TABLE).is_file():
        return {}
    try:
        folders = split_folders(root)
    except ValueError as error:
        raise DataError(str(error)) from None
    listed = {split: folder for split, folder in folders.items() if _is_listed(folder)}
    others = [child for child in _class_folders(root) if child not in folders.values()]
    if not listed and len(folders) > 1 and not others:
        names = ", ".join(folder.name for folder in folders.values())
        raise DataError(f"{root} has {names} with images, but no classes; make {root}/train/<class>/ and so on.")
    return listed


def _is_listed(folder: Path) -> bool:
    return (folder / TABLE).is_file() or any(_class_folders(folder))


def _class_folders(folder: Path) -> Iterator[Path]:
    return (child for child in children(folder) if child.is_dir())


def _listed(folder: Path) -> Iterator[Entry]:
    """Gives the images that a table or the class folders list."""
    if (folder / TABLE).is_file():
        yield from _table(folder / TABLE)
        return
    seen = {os.path.realpath(folder)}
    for class_folder in _class_folders(folder):
        real = os.path.realpath(class_folder)
        if any(Path(one).is_relative_to(real) for one in seen):
            continue  # a link to a folder above, or to another class
        seen.add(real)
        files = list(walk(class_folder))
        if not files:
            raise DataError(
                f"The class folder {class_folder} has no images; remove it, or add some of the kinds "
                f"{' '.join(sorted(EXTENSIONS))}."
            )
        name = unicodedata.normalize("NFC", class_folder.name)
        yield from (Entry(file, name) for file in files)


def _class_names(folder: Path, entries: list[Entry]) -> tuple[str, ...]:
    names = tuple(sorted({entry.label for entry in entries}))
    if not names:
        raise _no_images(folder)
    if len(names) == 1:
        raise DataError(
            f"{folder} has the single class {names[0]!r}; there is nothing to tell apart. Give each class a folder of "
            "its own, or name the folder above."
        )
    return names


def _no_images(folder: Path) -> DataError:
    return DataError(
        f"{folder} has no images in class folders. Expected {folder.name}/<class>/<image>, or {folder.name}/{TABLE} "
        "with the columns file,label."
    )


def _chosen(root: Path, entries: list[Entry], split: str) -> list[Entry]:
    """Returns the images of the split, as the table says, or by hash."""
    if any(entry.split for entry in entries):
        chosen = [entry for entry in entries if entry.split == split]
        if not chosen:
            there = ", ".join(name for name in SPLITS if any(entry.split == name for entry in entries))
            raise DataError(f"{root / TABLE} puts no image into the split {split!r}; it has {there}.")
        return chosen
    if split == "test":
        raise DataError(f"{root} has no test images; make the folders {root / 'train'} and {root / 'test'}.")
    draws = [held_out_draw(entry.file.relative_to(root).as_posix()) for entry in entries]
    # The last word against an empty class: its image with the highest draw stays in training.
    highest: dict[str, float] = {}
    for entry, draw in zip(entries, draws):
        highest[entry.label] = max(draw, highest.get(entry.label, 0.0))
    held_out = [draw < HELD_OUT and draw < highest[entry.label] for entry, draw in zip(entries, draws)]
    if split == "val" and not any(held_out):
        raise DataError(
            f"{root} has {len(entries)} images, too few to hold out one in five for validation; "
            f"make the folders {root / 'train'} and {root / 'val'}."
        )
    return [entry for entry, held in zip(entries, held_out) if held == (split == "val")]


def _table(path: Path) -> Iterator[Entry]:
    """Gives the lines of a labels.csv, each checked."""
    lines: dict[str, str] = {}
    for where, row in read_table(path, ("file", "label"), ("split",)):
        entry = _row(path.parent, row, where)
        if row["file"] in lines:
            before = lines[row["file"]].removeprefix(f"{path}, ")
            raise DataError(f"{where}: {row['file']!r} is in {before}, too; keep one of them.")
        lines[row["file"]] = where
        yield entry


def _row(folder: Path, row: dict, where: str) -> Entry:
    name, label = row["file"], row["label"].strip()
    if not name.strip() or not label:
        raise DataError(f"{where}: the {'label' if name.strip() else 'file'} is empty; fill it in or delete the line.")
    file = listed_file(folder, name, where)
    if file.suffix.lower() not in EXTENSIONS:
        raise DataError(f"{where}: {name!r} is not an image; its name must end in {', '.join(sorted(EXTENSIONS))}.")
    return Entry(file, unicodedata.normalize("NFC", label), listed_split(row.get("split"), where))


def listed_split(name: str | None, where: str) -> str | None:
    """The split that a line of a table names, in any of its spellings; None where it names none.

    Raises:
        DataError: There is no such split.
    """
    split = name and (split_of(name) or name)
    if split and split not in SPLITS:
        raise DataError(f"{where}: the split is {shown(split)}. {nearest(split, SPLITS)}")
    return split or None


def listed_file(folder: Path, name: str, where: str) -> Path:
    """The file that a line of a table names.

    Raises:
        DataError: It is not there, or leads outside of the folder of the table.
    """
    try:
        file = inside(folder, name)
    except ValueError:
        raise DataError(f"{where}: {name!r} leads outside of {folder}; paths are relative to the table.") from None
    if not file.is_file():
        there = [child.name for child in children(file.parent)]
        raise DataError(f"{where}: there is no file {name!r}. {nearest(file.name, there)}")
    return file
