"""Annotation files of any of the three formats: which one it is, reading, converting, checking."""

from pathlib import Path
from typing import Literal

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.coco import read_coco, write_coco
from nexus.data.detection.scene import Annotations, Fault, Object, Report, Scene, refuse
from nexus.data.detection.voc import read_voc, write_voc
from nexus.data.detection.yolo import SETTINGS, read_yolo, write_yolo
from nexus.data.images import ImageError, image_size, load_image

Format = Literal["coco", "yolo", "voc"]

FAR = 2.0
"""Pixels by which a box may miss the extent of its mask; files round boxes and masks differently."""


def format_of(path: str | Path) -> Format:
    """Returns which format lies at a path: a json file is COCO's, a folder YOLO's or VOC's.

    Raises:
        DataError: It is none of them.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; name a COCO json file, a YOLO folder or a VOC folder.")
    if path.is_file() and path.suffix.lower() == ".json":
        return "coco"
    if (path / "Annotations").is_dir():
        return "voc"
    if (path / SETTINGS).is_file() or (path / "labels").is_dir():
        return "yolo"
    raise DataError(
        f"{path} is no annotation of a known format: COCO is a json file, a YOLO folder holds {SETTINGS} and labels/, a"
        " VOC folder holds Annotations/."
    )


def read_annotations(path: str | Path, report: Report = refuse) -> Annotations:
    """Returns annotations in whichever format they are.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and annotation.
    """
    kind = format_of(path)
    if kind == "coco":
        return read_coco(path, report=report)
    return read_yolo(path, report=report) if kind == "yolo" else read_voc(path, report=report)


def convert(source: str | Path, target: str | Path, to: Format, *, lossy: bool = False) -> Path:
    """Writes the annotations at `source` in another format. Returns what was written.

    Args:
        source: A COCO json file, a YOLO folder or a VOC folder.
        target: A json file for COCO, else a folder, which also gets copies of the images.
        to: The format.
        lossy: Whether what YOLO cannot hold may be dropped; see `nexus.data.detection.yolo`.

    Raises:
        DataError: There is a fault, or something would get lost.
    """
    annotations = read_annotations(source)
    if to == "coco":
        return write_coco(annotations, target)
    if to == "yolo":
        return write_yolo(annotations, target, lossy=lossy)
    if to == "voc":
        return write_voc(annotations, target)
    raise ValueError(f"to is {to!r}; it must be 'coco', 'yolo' or 'voc'.")


def check_annotations(path: str | Path, *, images: bool = True) -> tuple[Annotations | None, list[Fault]]:
    """Returns what can be read at a path, and every fault in it.

    Args:
        path: A COCO json file, a YOLO folder or a VOC folder.
        images: Whether to open the images too.
    """
    faults: list[Fault] = []
    try:
        annotations = read_annotations(path, faults.append)
    except DataError as error:
        return None, [*faults, Fault(str(path), "", str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "))]
    for scene in annotations.scenes:
        if images:
            faults += image_faults(scene)
        faults += object_faults(scene)
    return annotations, faults


def image_faults(scene: Scene) -> list[Fault]:
    """Opens the image of a scene: whether it is there, whole, and as large as its annotations say."""
    try:
        height, width = image_size(load_image(scene.path))
    except ImageError as error:
        return [Fault(scene.path, "", str(error).removeprefix(f"{scene.path}: ").removeprefix(f"{scene.path} "))]
    if (height, width) != scene.size:
        said = f"{scene.width} x {scene.height}"
        return [Fault(scene.path, "", f"the image has {width} x {height} pixels and its annotations say {said}.")]
    return []


def object_faults(scene: Scene) -> list[Fault]:
    """What can only be seen by comparing: masks beside their boxes, keypoints outside, the same object twice."""
    faults = []
    seen: dict[tuple[object, ...], int] = {}
    for place, one in enumerate(scene.objects):
        faults += [Fault(scene.path, f"object {place}", problem) for problem in _problems(one, scene)]
        key = (one.label, one.box, one.crowd, one.mask, None if one.keypoints is None else one.keypoints.tobytes())
        if key in seen:
            faults.append(Fault(scene.path, f"object {place}", f"it is a copy of object {seen[key]}; remove it."))
        seen.setdefault(key, place)
    return faults


def _problems(one: Object, scene: Scene) -> list[str]:
    problems = []
    rle = scene.rle(one)
    if rle is not None and rle.area == 0:
        problems.append("its mask covers no pixel.")
    elif rle is not None and np.abs(np.subtract(rle.box, one.box)).max() > FAR:
        extent = ", ".join(f"{side:g}" for side in rle.box)
        problems.append(f"its mask reaches over ({extent}) and its box is {tuple(round(s, 2) for s in one.box)}.")
    if one.keypoints is not None:
        outside = (one.keypoints[:, :2] < 0).any(axis=1) | (one.keypoints[:, :2] > scene.size[::-1]).any(axis=1)
        for place in np.flatnonzero(outside & (one.keypoints[:, 2] > 0)):
            problems.append(f"keypoint {place} at {one.keypoints[place, :2].tolist()} lies outside of the image.")
    return problems
