"""Annotated images of the user, by the name of their format and a path: one place that all commands ask.

A source has parts, one for each split that its files tell apart. Where they tell none apart there is one part without
a name, and about one image in five of it is held out as "val", as of `folder:PATH`.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nexus.core.config import nearest
from nexus.data.dataset import DataError
from nexus.data.detection.coco import root_of
from nexus.data.detection.coco_folder import coco_files, read_split, split_in
from nexus.data.detection.cvat import cvat_files, read_cvat
from nexus.data.detection.label_images import looks_like_label_images, open_label_images
from nexus.data.detection.label_studio import read_label_studio
from nexus.data.detection.labelme import labelme_classes, labelme_files, read_labelme
from nexus.data.detection.scene import AnnotatedFiles, Annotations, Fault, Polygons, Report, Scene, refuse
from nexus.data.detection.sniff import kind_of_file
from nexus.data.detection.tables import read_kaggle, read_open_images
from nexus.data.detection.tools import home_of, nothing
from nexus.data.detection.via import read_via
from nexus.data.detection.voc import read_voc, voc_files
from nexus.data.detection.yolo import read_yolo
from nexus.data.detection.yolo_folder import CLASS_LISTS, SETTINGS, open_yolo
from nexus.data.holding_out import held_out
from nexus.data.places import children, split_of, walk

MAX_OUTLINES = 10_000_000_000
"""Pixels that all outlines of a split may be long together; those of COCO's 118,287 images are about 500,000,000."""


class Part(NamedTuple):
    """One split of a source.

    Attributes:
        split: "train", "val", "test", or None where the source is not split.
        read: Returns its annotations, and tells about each fault.
    """

    split: str | None
    read: Callable[[Report], Annotations]


class Source(NamedTuple):
    """A data set of annotated images as it lies on the disk.

    Attributes:
        name: Such as "coco:PATH".
        root: The folder that all its files lie in.
        parts: Its splits.
    """

    name: str
    root: Path
    parts: tuple[Part, ...]


def open_source(kind: str, path: Path) -> Source:
    """Returns the splits of a source of annotated images; its annotations are not read yet.

    Raises:
        DataError: There is nothing of that kind at the path.
    """
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist; check the path.")
    try:
        root, parts = FORMATS[kind](path)
    except DataError as error:
        raise DataError(f"{error}{what_is_meant(kind, path)}") from None
    name = f"{kind}:{path}"
    return Source(name, root, tuple(Part(part.split, partial(_bounded, name, part.read)) for part in parts))


def _bounded(name: str, read: Callable[[Report], Annotations], report: Report) -> Annotations:
    """What is read, unless drawing its outlines would not end. Shares of the sides for pixels are a fault."""
    annotations = read(report)
    boxes = [one.box for scene in annotations.scenes if min(scene.size) > 1 for one in scene.objects]
    if boxes and max(map(max, boxes)) <= 1:
        report(Fault(name, "", "no box reaches beyond 1 pixel: they seem to be shares of the sides; write pixels."))
    length = sum(map(_outlines, annotations.scenes))
    if length > MAX_OUTLINES:
        raise DataError(
            f"{name}: its outlines are about {length:,.0f} pixels long together; at most {MAX_OUTLINES:,} are read."
            " Simplify them, or split the data set."
        )
    return annotations


def _outlines(scene: Scene) -> float:
    """About how long the outlines of an image are; from one to the next counts too, which is less than they are."""
    masks = [one.mask for one in scene.objects if isinstance(one.mask, Polygons)]
    if not masks:
        return 0.0
    points = np.concatenate([ring for mask in masks for ring in mask.rings])
    return float(np.abs(np.diff(points, axis=0)).max(axis=1).sum())


def open_annotated(kind: str, path: Path, split: str) -> AnnotatedFiles:
    """Returns one split of a source as a data set.

    Raises:
        DataError: It is not there, or there is a fault in it; the message names file and annotation.
    """
    source = open_source(kind, path)
    parts = {part.split: part for part in source.parts}
    if split in parts:
        return AnnotatedFiles(source.name, parts[split].read(refuse))
    if None not in parts or split == "test":
        there = ", ".join(name for name in parts if name) or "no splits, so that train and val are drawn"
        raise DataError(f"{path} has no annotations of {split!r}; there are {there}.")
    return AnnotatedFiles(source.name, _side(parts[None].read(refuse), source.root, split))


def _side(annotations: Annotations, root: Path, split: str) -> Annotations:
    """The images that are held out, or the others."""
    held = held_out([os.path.relpath(scene.path, root) for scene in annotations.scenes])
    scenes = [scene for scene, one in zip(annotations.scenes, held) if one == (split == "val")]
    return annotations.of(scenes)


def find_source(text: str | Path) -> tuple[str, Path]:
    """Returns the kind and the path that "kind:PATH" or a plain path means.

    Raises:
        DataError: The path does not exist, or what lies there is of no kind that is known, or of two.
    """
    kind, colon, rest = str(text).partition(":")
    if colon and kind in FORMATS and rest:
        return kind, Path(rest).expanduser()
    path = Path(text)
    if not os.path.lexists(path):
        hint = f" {nearest(kind, tuple(FORMATS))}" if colon else ""
        raise DataError(f"{path} does not exist; name a file or folder, or a source as in coco:PATH.{hint}")
    found = kinds_at(path)
    if len(found) > 1:
        raise DataError(f"{path} is of two kinds; write {' or '.join(f'{kind}:{path}' for kind in found)}.")
    if not found:
        raise DataError(f"{path} is no annotation of a known format: {', '.join(FORMATS)}. COCO is a json file, {HINT}")
    return found[0], path


def what_is_meant(kind: str, path: Path) -> str:
    """Returns in a sentence which source a path seems to be that is none of `kind`; nothing where that is not seen."""
    for place in (path, path.parent):
        kinds = [one for one in kinds_at(place) if place != path or one != kind] if place.is_dir() else []
        if kinds and (place == path or path.name.lower() in INNER):
            return f" {place} looks like {kinds[0]}: write {kinds[0]}:{place}."
    return ""


INNER = ("annotations", "images", "jpegimages", "labels")
"""Folders within a data set that are taken for it."""
HINT = f"a YOLO folder holds {SETTINGS} and labels/, a VOC folder holds Annotations/."


def kinds_at(path: Path) -> list[str]:
    """The kinds of source that a path seems to be: of a file by its beginning, of a folder by what lies in it."""
    if not path.is_dir():
        return [kind_of_file(path) or ("coco" if path.suffix.lower() == ".json" else "")] if path.suffix else []
    names = {child.name.lower() for child in children(path)}
    found = {kind for kind in map(kind_of_file, _telling_files(path)) if kind in FORMATS}
    if any(child.name.lower() == "annotations" and any(walk(child, [".xml"])) for child in children(path)):
        found.add("cvat" if "cvat" in found else "voc")
    if {SETTINGS, "labels", *CLASS_LISTS} & names or any(_has_labels(child) for child in children(path)):
        found.add("yolo")
    if looks_like_label_images(path):
        labels = any(file.name not in CLASS_LISTS for file in walk(path, [".txt"]))
        found = {"label-images", *(found if labels else found - {"yolo"})}
    return sorted(found)


def _has_labels(folder: Path) -> bool:
    return split_of(folder.name) is not None and (folder / "labels").is_dir()


def _telling_files(root: Path) -> list[Path]:
    """The first file of each ending in the folder and in those below it that annotations are kept in."""
    folders = [root, *(child for child in children(root) if child.is_dir())]
    files = []
    for folder in folders:
        for ending in (".json", ".xml", ".csv"):
            here = (child for child in children(folder) if child.suffix.lower() == ending and child.is_file())
            first = next((file for file in here if kind_of_file(file) in FORMATS), None)
            files += [first] if first is not None else []
    return files


Opened = tuple[Path, list[Part]]


def _coco(path: Path) -> Opened:
    files = coco_files(path)
    root = path if path.is_dir() else root_of(path)
    return root, [Part(split, partial(read_split, same)) for split, same in files.items()]


def _yolo(path: Path) -> Opened:
    folder = open_yolo(path)
    return folder.root, [Part(split, partial(read_yolo, path, split)) for split in folder.images]


def _voc(path: Path) -> Opened:
    if path.is_file():
        raise DataError(f"{path} is one page of VOC; name the folder that holds Annotations/.")
    return path, [Part(split, partial(read_voc, path, split, ())) for split in voc_files(path)]


def _labelme(path: Path) -> Opened:
    splits = labelme_files(path)
    names = labelme_classes([file for files in splits.values() for file in files])
    root = path if path.is_dir() else home_of(path)
    return root, [Part(split, partial(read_labelme, root, files, names)) for split, files in splits.items()]


def _cvat(path: Path) -> Opened:
    root = path if path.is_dir() else home_of(path)
    return root, [Part(split, partial(read_cvat, root, files, split)) for split, files in cvat_files(path).items()]


def _label_images(path: Path, *, classes: bool) -> Opened:
    root, readers = open_label_images(path, classes=classes)
    return root, [Part(split, read) for split, read in readers.items()]


def _each(kind: str, read: Callable[[Path, Path, Report], Annotations], endings: Sequence[str], path: Path) -> Opened:
    """The parts of a tool that keeps all images of a split in one file."""
    files = [path] if path.is_file() else [file for file in walk(path, endings) if kind_of_file(file) == kind]
    root = path if path.is_dir() else home_of(path)
    if not files:
        raise nothing(path, f"{' or '.join(endings)} of {kind}")
    named = [split_in(file.stem) or split_of(file.parent.name) for file in files]
    if len(files) > 1 and (None in named or len(set(named)) < len(named)):
        raise DataError(f"{files[0]} and {files[1]} could both be meant; name one, as in {kind}:{files[0]}.")
    return root, [Part(split, partial(read, file, root)) for split, file in zip(named, files)]


FORMATS: dict[str, Callable[[Path], Opened]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
    "labelme": _labelme,
    "cvat": _cvat,
    "label-studio": partial(_each, "label-studio", read_label_studio, (".json",)),
    "label-images": partial(_label_images, classes=False),
    "class-images": partial(_label_images, classes=True),
    "via": partial(_each, "via", read_via, (".json", ".csv")),
    "open-images": partial(_each, "open-images", read_open_images, (".csv",)),
    "kaggle": partial(_each, "kaggle", read_kaggle, (".csv", ".tsv")),
}
"""What a source may be called, and what finds its parts."""
