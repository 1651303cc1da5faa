"""Checking annotations: every fault in them, and beside their images."""

from pathlib import Path

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.scene import Annotations, Fault, Object, Report, Scene, all_labels, refuse
from nexus.data.detection.sources import find_source, open_source
from nexus.data.detection.yolo_folder import label_file, open_yolo
from nexus.data.images import ImageError, image_size, load_image

NO_IMAGE = "there is no image in it that can be used; name another folder, or add images."
FAR = 2.0
"""Pixels by which a box may miss the extent of its mask; files round boxes and masks differently."""


def read_annotations(source: str | Path, report: Report = refuse) -> Annotations:
    """Returns all annotations of a source, those of its splits one after another.

    Args:
        source: Such as "coco:PATH", or a path whose kind is recognised.
        report: Told about each fault.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and annotation.
    """
    splits = read_splits(source, report)
    first = next(iter(splits.values()))
    return first.of([scene for annotations in splits.values() for scene in annotations.scenes])


def read_splits(source: str | Path, report: Report = refuse) -> dict[str | None, Annotations]:
    """Returns the annotations of each split; of the split None where the source tells none apart.

    Raises:
        DataError: As in `read_annotations`; or the splits have other classes.
    """
    opened = open_source(*find_source(source))
    splits = {part.split: part.read(report) for part in opened.parts}
    names = {split: annotations.class_names for split, annotations in splits.items()}
    first = next(iter(names))
    for split, one in names.items():
        if one != names[first]:
            differ = sorted(set(one) ^ set(names[first])) or ["the order"]
            report(Fault(str(source), str(split), f"its classes are not those of {first}: {', '.join(differ[:5])}."))
    return splits


def check_annotations(source: str | Path, *, images: bool = True) -> tuple[Annotations | None, list[Fault]]:
    """Returns what can be read of a source, and every fault in it.

    Args:
        source: Such as "coco:PATH", or a path whose kind is recognised.
        images: Whether to open the images too.
    """
    splits, faults = check_splits(source, images=images)
    if not splits:
        return None, faults
    first = next(iter(splits.values()))
    return first.of([scene for one in splits.values() for scene in one.scenes]), faults


def check_splits(source: str | Path, *, images: bool = True) -> tuple[dict[str | None, Annotations], list[Fault]]:
    """Returns what can be read of each split, as in `check_annotations`; nothing where the source cannot be opened."""
    faults: list[Fault] = []
    try:
        splits = read_splits(source, faults.append)
    except DataError as error:
        said = str(error).removeprefix(f"{source}: ").removeprefix(f"{source} ")
        return {}, [*faults, Fault(str(source), "", said)]
    scenes = [scene for one in splits.values() for scene in one.scenes]
    for scene in scenes:
        wrong = image_faults(scene) if images else []
        faults += wrong or object_faults(scene)
    if not scenes and not faults:
        faults.append(Fault(str(source), "", NO_IMAGE))
    faults += [] if faults else _unlabelled(source, splits)
    return splits, list(dict.fromkeys([*faults, *_shared(splits), *_untrained(splits)]))


def _unlabelled(source: str | Path, splits: dict[str | None, Annotations]) -> list[Fault]:
    """Splits in which nothing is annotated: their labels are empty, or lie elsewhere."""
    faults = []
    for split, one in splits.items():
        if one.scenes and split != "test" and not any(scene.objects for scene in one.scenes):
            said = f"there is not one object in {len(one.scenes)} images{_where_labels_lie(source, one.scenes[0])}."
            faults.append(Fault(str(source), split or "", said))
    return faults


def _where_labels_lie(source: str | Path, scene: Scene) -> str:
    kind, path = find_source(source)
    if kind != "yolo":
        return ""
    return f"; labels of {scene.path} are looked for in {label_file(Path(scene.path), open_yolo(path).root)}"


def _untrained(splits: dict[str | None, Annotations]) -> list[Fault]:
    """Classes that are held out and never trained on: a name was mistyped, or the splits were badly drawn."""
    train = splits.get("train")
    learnt = set(all_labels(train.scenes)) if train is not None else set()
    faults = []
    for one in splits.values() if learnt else ():
        for scene in one.scenes:
            new = {thing.label for thing in scene.objects} - learnt
            learnt |= new
            said = "no image of train has an object of this class; correct the name, or move some there."
            faults += [Fault(scene.path, f"class {one.class_names[label]!r}", said) for label in sorted(new)]
    return faults


def _shared(splits: dict[str | None, Annotations]) -> list[Fault]:
    """Images that are in two splits: what is measured on them means nothing."""
    seen: dict[str, str | None] = {}
    faults = []
    for split, annotations in splits.items():
        twice = [scene.path for scene in annotations.scenes if scene.path in seen]
        if twice:
            said = f"{len(twice)} images are in {seen[twice[0]]} and in {split}; keep each in one of them."
            faults.append(Fault(twice[0], "", said))
        seen.update(dict.fromkeys((scene.path for scene in annotations.scenes), split))
    return faults


def image_faults(scene: Scene) -> list[Fault]:
    """Opens the image of a scene: whether it is there, whole, and as large as its annotations say."""
    try:
        height, width = image_size(load_image(scene.path))
    except ImageError as error:
        return [Fault(scene.path, "", str(error).removeprefix(f"{scene.path}: ").removeprefix(f"{scene.path} "))]
    if (height, width) != scene.size:
        said = f"{scene.width} x {scene.height}"
        swapped = " Width and height are swapped." if (width, height) == scene.size else ""
        return [
            Fault(scene.path, "", f"the image has {width} x {height} pixels and its annotations say {said}.{swapped}")
        ]
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
