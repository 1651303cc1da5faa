"""Checking any source of images before it is trained on: every file opened, every fault named."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nexus.data.clips.check import check_clips
from nexus.data.clips.folders import is_clip_folder
from nexus.data.dataset import DataError
from nexus.data.datasets import load_dataset
from nexus.data.detection.check import NO_IMAGE, check_splits
from nexus.data.detection.scene import Fault, all_labels
from nexus.data.detection.sources import FORMATS, find_source
from nexus.data.facets import Clips, class_names_of
from nexus.data.images import ImageError, image_size
from nexus.data.places import SPLITS


class Checked(NamedTuple):
    """What a source holds, and what is wrong with it.

    Attributes:
        images: How many.
        objects: How many are annotated in them; None where there are no annotations.
        classes: How many.
        faults: Each with its file.
        sizes: The least and the largest height and width, as "48 x 64 to 120 x 90"; empty where no image was opened.
        counts: Of each class its objects (without annotations, its images) in each split.
    """

    images: int
    objects: int | None
    classes: int
    faults: list[Fault]
    sizes: str = ""
    counts: Sequence[Mapping[str, Any]] = ()


def check_source(source: str, *, images: bool = True) -> Checked:
    """Returns what a source holds and every fault in it.

    Args:
        source: Such as "coco:PATH", "folder:PATH" or "digits", or a path whose kind is recognised.
        images: Whether to open every image too.
    """
    kind, colon, _ = source.partition(":")
    if not colon and is_clip_folder(Path(source)):
        kind, source = "clips", f"clips:{source}"
    elif not colon and Path(source).exists():
        try:
            kind, path = find_source(source)
        except DataError as error:
            return Checked(0, None, 0, [Fault(source, "", str(error).removeprefix(f"{source} "))])
        source = f"{kind}:{path}"
    if kind not in FORMATS:
        return _check_images(source, images)
    splits, faults = check_splits(source, images=images)
    if not splits:
        return Checked(0, 0, 0, faults)
    scenes = [scene for one in splits.values() for scene in one.scenes]
    names = next(iter(splits.values())).class_names
    counts = _counts(names, {split: all_labels(one.scenes) for split, one in splits.items()})
    if images:
        faults += _same_files({split: [scene.path for scene in one.scenes] for split, one in splits.items()})
    sizes = _range([scene.size for scene in scenes])
    return Checked(len(scenes), len(all_labels(scenes)), len(names), faults, sizes, counts)


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    least, most = ([pick(side) for side in zip(*sizes)] for pick in (min, max)) if sizes else ("", "")
    texts = dict.fromkeys(" x ".join(map(str, one)) for one in (least, most) if one)
    return " to ".join(texts)


def _counts(names: Sequence[str], labels: Mapping[str | None, np.ndarray]) -> list[dict[str, Any]]:
    """How often each class is in each split."""
    numbers = {split or "all": np.bincount(one, minlength=len(names)).tolist() for split, one in labels.items()}
    return [{"class": name, **{split: n[k] for split, n in numbers.items()}} for k, name in enumerate(names)]


def _same_files(paths: Mapping[str | None, Sequence[str]]) -> list[Fault]:
    """Copies of a file in another split: what is measured on them means nothing."""
    seen: dict[bytes, tuple[str | None, str]] = {}
    faults = []
    for split, files in paths.items():
        for file in dict.fromkeys(file for file in files if Path(file).is_file()):
            split_there, there = seen.setdefault(_digest(file), (split, file))
            if split_there != split and there != file:
                faults.append(Fault(file, "", f"it is a copy of {there}, which is in {split_there}; keep one of them."))
    return faults


def _digest(file: str) -> bytes:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "blake2b").digest()


def _check_images(source: str, images: bool) -> Checked:
    """Opens the images of each split that there is."""
    count, names, faults, sizes = 0, (), [], []
    opened: dict[str | None, Any] = {}
    for split in SPLITS:
        try:
            opened[split] = load_dataset(source, split)
        except (DataError, ImageError) as error:
            if split == "train":
                return Checked(0, None, 0, [Fault(source, "", str(error))])
        except ValueError:
            if split == "train":
                raise
    if all(isinstance(data, Clips) for data in opened.values()):
        return _check_clips(source, opened, images)
    for data in opened.values():
        count, names = count + len(data), class_names_of(data)
        for place in range(len(data)) if images else ():
            try:
                item = data[place]
                sizes += map(image_size, getattr(item, "images", None) or [item.image])
            except (ImageError, DataError) as error:
                path = data.path(place)
                faults.append(Fault(path, "", str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")))
    if count == 0:
        faults.append(Fault(source, "", NO_IMAGE))
    if images:
        faults += _same_files({split: list(map(data.path, range(len(data)))) for split, data in opened.items()})
    counts = _counts(names, {split: data.labels for split, data in opened.items()}) if names else []
    return Checked(count, None, len(names), faults, _range(sizes), counts)


def _check_clips(source: str, opened: Mapping[Any, Any], images: bool) -> Checked:
    """Clips are counted by their frames."""
    found = check_clips(opened, images=images)
    names = next(iter(opened.values())).class_names
    faults = found.faults + ([] if found.frames else [Fault(source, "", NO_IMAGE)])
    counts = _counts(names, found.labels) if names else []
    return Checked(found.frames, found.objects, len(names), faults, _range(found.sizes), counts)
