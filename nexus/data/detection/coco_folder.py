"""Which json files of a folder are COCO's annotations of objects, and of which split.

A folder may hold many: captions, panoptic segments, keypoints, other years, backups. The plain name wins
(`instances_train2017.json`, `train.json`), files of keypoints are taken where there is nothing else, and where two
files are as good as each other both are named and none is taken.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nexus.data.dataset import DataError
from nexus.data.detection.coco import read_coco
from nexus.data.detection.scene import Annotations, Report
from nexus.data.detection.sniff import kind_of_file
from nexus.data.places import SPELLINGS, children, split_folders, split_of

PLAIN = frozenset(["", "instances", "annotations", "annotation", "coco", "labels", "label", "default", "detection"])
OTHER = frozenset(["captions", "panoptic", "stuff", "info", "results", "result", "predictions", "stuffthing"])
BACKUP = frozenset(["bak", "backup", "old", "copy", "orig", "original", "tmp", "temp", "save", "draft", "test2"])


def coco_files(path: Path) -> dict[str | None, list[Path]]:
    """The equally good files of each split; of the split None where no name says one.

    Args:
        path: A folder, or one file; then the files of other splits have its name but for the split.

    Raises:
        DataError: There is none.
    """
    if path.is_file() or path.suffix.lower() == ".json":
        return {split: [file] for split, file in _siblings(path)}
    found: dict[str | None, list[tuple[int, Path]]] = {}
    passed: list[Path] = []
    for split, file in _candidates(path):
        rank = _rank(file, split)
        if rank is None:
            passed.append(file)
        else:
            found.setdefault(split, []).append((rank, file))
    if not found:
        also = f" (passed over: {', '.join(file.name for file in passed[:3])})" if passed else ""
        raise DataError(
            f"{path} has no annotations of objects{also}: COCO keeps them in annotations/instances_train2017.json, or"
            " train.json, or train/_annotations.coco.json; one file is named by coco:FILE."
        )
    if len(found) > 1:
        found.pop(None, None)
    return {split: [file for rank, file in ranked if rank == min(ranked)[0]] for split, ranked in found.items()}


def read_split(files: Sequence[Path], report: Report) -> Annotations:
    """The annotations of the only one of the files that are equally good.

    Raises:
        DataError: There are more, or there is a fault and `report` does not take it.
    """
    if len(files) > 1:
        names = " and ".join(str(file) for file in files[:2]) + (f" and {len(files) - 2} more" if files[2:] else "")
        raise DataError(f"{names} could both be meant; name one, as in coco:{files[0]}, or move the other away.")
    return read_coco(files[0], report=report)


def _candidates(root: Path) -> Iterator[tuple[str | None, Path]]:
    for folder in (*(child for child in children(root) if child.name.lower() == "annotations"), root):
        for file in _json_files(folder):
            yield split_in(file.stem), file
    try:
        folders = split_folders(root)
    except ValueError as error:
        raise DataError(str(error)) from None
    for split, folder in folders.items():
        for file in _json_files(folder):
            yield split_in(file.stem) or split, file


def _json_files(folder: Path) -> list[Path]:
    files = [child for child in children(folder) if child.suffix.lower() == ".json" and child.is_file()]
    return [file for file in files if kind_of_file(file) in ("coco", None)]


def _words(stem: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", stem.lower())


def split_in(stem: str) -> str | None:
    """The split that a word of a file's name means, or None."""
    return next((split for split in map(split_of, _words(stem)) if split is not None), None)


def _rank(file: Path, split: str | None) -> int | None:
    """How well a name says that the file holds objects: 0 best, None not at all."""
    rest = {word for word in _words(file.stem) if split_of(word) is None and not re.fullmatch(r"\d{4}", word)}
    if rest & OTHER or rest & BACKUP or any(word.isdigit() for word in rest) or file.name == "classes.json":
        return None
    if "keypoints" in rest:
        return 2
    if split is None and kind_of_file(file) != "coco":
        return None
    return 0 if rest <= PLAIN else 1


def _siblings(path: Path) -> Iterator[tuple[str | None, Path]]:
    """The file itself, and files beside it whose name says another split."""
    match = next((one for one in re.finditer(r"[A-Za-z]+", path.stem) if split_of(one[0])), None)
    if match is None:
        yield None, path
        return
    own = split_of(match[0])
    yield own, path
    for spelling, split in SPELLINGS.items():
        for word in (spelling, spelling.capitalize()):
            other = path.with_name(f"{path.stem[: match.start()]}{word}{path.stem[match.end() :]}{path.suffix}")
            if split != own and other.is_file():
                yield split, other
