"""What was marked, as data sets that other tools read: COCO, YOLO and PNG.

Each format is a folder of its own below the output folder, with copies of the images. It is made anew at each export,
and appears when it is complete; a folder that was not made here is never removed.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image as PIL

from nexus.app.annotate.marks import Marks, coco_runs
from nexus.app.annotate.project import Project
from nexus.core.config import nearest
from nexus.data.dataset import DataError
from nexus.data.detection.coco import write_coco
from nexus.data.detection.scene import Annotations, Object, Scene
from nexus.data.detection.yolo import write_yolo_splits
from nexus.data.holding_out import held_out

MADE_HERE = ".made-by-nexus-annotate"
"""A file in each folder of an export: without it, the folder is somebody else's."""
MOST_CLASSES = 255
"""Of a PNG of classes, whose pixels are bytes; 0 is the background."""


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: The folder.
        images: How many; those with objects, and those that are done.
        objects: How many.
        left_out: Copies of an object, of which one was written.
        check: What `nexus data check` is given to look at it; empty for what it does not read.
    """

    path: str
    images: int
    objects: int
    left_out: int
    check: str


class Format(NamedTuple):
    """A kind of export.

    Attributes:
        says: What it is, for a person.
        write: Called with the project, the annotations, whose images lie in `images` of the folder, and the folder.
        check: What its source is called; empty if it cannot be read back.
    """

    says: str
    write: Callable[[Project, Annotations, Path], None]
    check: str


def export(project: Project, name: str) -> Exported:
    """Writes what is marked into `<output>/<name>`.

    Raises:
        ValueError: There is no such format, nothing is marked, or something cannot be written in it.
    """
    if name not in FORMATS:
        raise ValueError(f"There is no format {name!r:.40}. {nearest(name, FORMATS)}")
    marked = [(number, project.marks(number)) for number in sorted(project.status)]
    marked = [(number, marks) for number, marks in marked if marks.objects or marks.done]
    if not any(marks.objects for _, marks in marked):
        raise DataError("Nothing is marked yet: there is no object to export.")
    target = project.output / name
    if target.exists() and not (target / MADE_HERE).is_file():
        raise DataError(f"{target} was not made by an export; move it away.")
    part = Path(tempfile.mkdtemp(dir=project.output, prefix=f".{name}.", suffix=".incomplete"))
    try:
        annotations, left_out = _annotations(project, marked, part / "images")
        FORMATS[name].write(project, annotations, part)
        (part / MADE_HERE).touch()
        part.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    objects = sum(len(scene.objects) for scene in annotations.scenes)
    check = FORMATS[name].check
    return Exported(str(target), len(annotations.scenes), objects, left_out, check and f"{check}:{target}")


def _annotations(project: Project, marked: Sequence[tuple[int, Marks]], images: Path) -> tuple[Annotations, int]:
    """Copies the images into a folder; returns what is marked in the copies, and how many objects were left out."""
    places = {label.id: place for place, label in enumerate(project.labels)}
    names = flat_names([project.names[number] for number, _ in marked])
    images.mkdir()
    scenes, left_out = [], 0
    for (number, marks), name in zip(marked, names):
        shutil.copyfile(project.path(number), images / name)
        objects = dict.fromkeys((mark.label, mark.counts) for mark in marks.objects)
        left_out += len(marks.objects) - len(objects)
        found = tuple(_object(places[label], counts, marks) for label, counts in objects)
        scenes.append(Scene(str(images / name), marks.height, marks.width, found))
    return Annotations(tuple(scenes), tuple(label.name for label in project.labels)), left_out


def _object(label: int, counts: tuple[int, ...], marks: Marks) -> Object:
    runs = coco_runs(counts, marks.height, marks.width)
    return Object(label, runs.box, runs)


def flat_names(names: Sequence[str]) -> list[str]:
    """Returns names without folders, of which no two have the same stem: `cam1/a.jpg` becomes `cam1_a.jpg`."""
    taken: set[str] = set()
    found = []
    for name in names:
        path = PurePosixPath(name.replace("/", "_"))
        stem, number = path.stem, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        found.append(f"{stem}{path.suffix}")
    return found


def _write_coco(_: Project, annotations: Annotations, root: Path) -> None:
    write_coco(annotations, root / "annotations" / "instances.json", root / "images")


def _write_yolo(_: Project, annotations: Annotations, root: Path) -> None:
    images = root / "images"
    splits: dict[str | None, Annotations] = {}
    for split, one in sides(annotations).items():
        splits[split] = annotations.of(_moved(one.scenes, images / split))
    write_yolo_splits(splits, root)


def _moved(scenes: Sequence[Scene], folder: Path) -> list[Scene]:
    """Moves the images of scenes into another folder."""
    folder.mkdir()
    return [replace(scene, path=str(Path(scene.path).rename(folder / Path(scene.path).name))) for scene in scenes]


def _write_boxes(project: Project, annotations: Annotations, root: Path) -> None:
    scenes = []
    for scene in annotations.scenes:
        boxes = dict.fromkeys((one.label, one.box) for one in scene.objects)
        scenes.append(replace(scene, objects=tuple(Object(label, box) for label, box in boxes)))
    _write_yolo(project, annotations.of(scenes), root)


def sides(annotations: Annotations) -> dict[str, Annotations]:
    """Returns what is trained on, and what is held out: about one image in five.

    No class is held out alone, and something to find is: where that cannot be, nothing is held out.
    """
    scenes = annotations.scenes
    held = held_out([Path(scene.path).name for scene in scenes])
    learnt = {one.label for scene, out in zip(scenes, held) if not out for one in scene.objects}
    train, val = [], []
    for scene, out in zip(scenes, held):
        labels = {one.label for one in scene.objects}
        known = out and bool(labels) and labels <= learnt
        learnt |= labels
        (val if known else train).append(scene)
    found: dict[str, Annotations] = {"train": annotations.of(train)}
    return found | ({"val": annotations.of(val)} if val else {})


def _write_png(project: Project, annotations: Annotations, root: Path) -> None:
    """Writes the classes (a palette of their colours) and the objects (numbers from 1) of each image, pixel by pixel.

    Where objects lie over each other, the topmost one is seen.
    """
    if len(annotations.class_names) > MOST_CLASSES:
        raise DataError(
            f"There are {len(annotations.class_names)} classes; a PNG of classes has at most {MOST_CLASSES}."
        )
    palette = [0, 0, 0, *(int(label.color[at : at + 2], 16) for label in project.labels for at in (1, 3, 5))]
    for folder in ("classes", "objects"):
        (root / folder).mkdir()
    for scene in annotations.scenes:
        classes, objects = np.zeros(scene.size, np.uint8), np.zeros(scene.size, np.uint16)
        for number, one in enumerate(scene.objects, start=1):
            mask = scene.rle(one)
            assert mask is not None
            inside = mask.decode()
            classes[inside], objects[inside] = one.label + 1, number
        name = f"{Path(scene.path).stem}.png"
        picture = PIL.frombytes("P", (scene.width, scene.height), classes.tobytes())
        picture.putpalette(palette)
        picture.save(root / "classes" / name)
        PIL.fromarray(objects).save(root / "objects" / name)
    names = dict(enumerate(["background", *annotations.class_names]))
    (root / "classes.json").write_text(json.dumps(names, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


FORMATS = {
    "coco": Format("COCO: masks as runs, in one json file", _write_coco, "coco"),
    "yolo": Format("YOLO: an outline for each object", _write_yolo, "yolo"),
    "yolo-boxes": Format("YOLO: a box for each object", _write_boxes, "yolo"),
    "png": Format("PNG: classes and objects, pixel by pixel", _write_png, ""),
}
"""What can be exported."""
