"""Checking any source of images before it is trained on: every file opened, every fault named."""

from pathlib import Path
from typing import NamedTuple

from nexus.data.dataset import DataError
from nexus.data.datasets import load_dataset
from nexus.data.detection.check import NO_IMAGE, check_annotations
from nexus.data.detection.scene import Fault
from nexus.data.detection.sources import FORMATS, find_source
from nexus.data.images import ImageError
from nexus.data.places import SPLITS


class Checked(NamedTuple):
    """What a source holds, and what is wrong with it.

    Attributes:
        images: How many.
        objects: How many are annotated in them; None where there are no annotations.
        classes: How many.
        faults: Each with its file.
    """

    images: int
    objects: int | None
    classes: int
    faults: list[Fault]


def check_source(source: str, *, images: bool = True) -> Checked:
    """Returns what a source holds and every fault in it.

    Args:
        source: Such as "coco:PATH", "folder:PATH" or "digits", or a path whose kind is recognised.
        images: Whether to open every image too.
    """
    kind, colon, _ = source.partition(":")
    if not colon and Path(source).exists():
        try:
            kind, path = find_source(source)
        except DataError as error:
            return Checked(0, None, 0, [Fault(source, "", str(error).removeprefix(f"{source} "))])
        source = f"{kind}:{path}"
    if kind not in FORMATS:
        return _check_images(source, images)
    annotations, faults = check_annotations(source, images=images)
    if annotations is None:
        return Checked(0, 0, 0, faults)
    count = sum(len(scene.objects) for scene in annotations.scenes)
    return Checked(len(annotations.scenes), count, len(annotations.class_names), faults)


def _check_images(source: str, images: bool) -> Checked:
    """Opens the images of each split that there is."""
    count, classes, faults = 0, 0, []
    opened = []
    for split in SPLITS:
        try:
            opened.append(load_dataset(source, split))
        except (DataError, ImageError) as error:
            if split == "train":
                return Checked(0, None, 0, [Fault(source, "", str(error))])
        except ValueError:
            if split == "train":
                raise
    for data in opened:
        count, classes = count + len(data), len(data.class_names)
        for place in range(len(data)) if images else ():
            try:
                data[place]
            except (ImageError, DataError) as error:
                path = data.path(place)
                faults.append(Fault(path, "", str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")))
    if count == 0:
        faults.append(Fault(source, "", NO_IMAGE))
    return Checked(count, None, classes, faults)
