"""`nexus data check --sheet`: a look at a source, its images with what is said about them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nexus import visualization
from nexus.core.files import write_whole
from nexus.data import DataError, ImageError, load_dataset
from nexus.data.clips.check import LOOKS, looks_of
from nexus.data.clips.folders import is_clip_folder
from nexus.data.detection.check import check_splits
from nexus.data.detection.scene import AnnotatedFiles, Scene
from nexus.data.detection.sources import FORMATS, kinds_at
from nexus.data.facets import Annotated, Clips, Labelled
from nexus.visualization.objects import draw_objects
from nexus.visualization.pictures import to_picture

MOST = 24
TILE = 224


def draw_source(source: str, file: Path) -> bool:
    """Draws up to 24 images of a source, spread over it, into a picture; returns whether there was one to draw.

    What cannot be read is left out, so that a source with faults can be looked at too.
    """
    pictures, captions = [], []
    for data in _opened(source):
        if isinstance(data, Clips):
            pictures, captions = _of_clips(data)
            continue
        for place in sorted({round(place) for place in np.linspace(0, len(data) - 1, MOST)}):
            try:
                picture = to_picture(data[place].image)
            except (ImageError, DataError):
                continue
            pictures.append(_drawn(data, place, picture))
            captions.append(f"{truth_of(data, place)}\n{Path(data.path(place)).name}")
    if not pictures:
        return False
    sheet = visualization.contact_sheet(pictures[:MOST], captions[:MOST], columns=4, tile=TILE)
    write_whole(file, lambda part: sheet.save(part, "PNG"))
    return True


def _of_clips(data: Any) -> tuple[list[Any], list[str]]:
    """A row for each of some clips: frames spread over it, and the objects in them."""
    pictures, captions = [], []
    for place in sorted({round(place) for place in np.linspace(0, len(data) - 1, MOST // LOOKS)}):
        try:
            looks = looks_of(data[place])
        except (ImageError, DataError):
            continue
        pictures += [picture for picture, _ in looks]
        captions += [f"{Path(data.path(place)).name}\n{caption}" for _, caption in looks]
    return pictures, captions


def _opened(source: str) -> list[Any]:
    kind = source.partition(":")[0]
    source = f"clips:{source}" if is_clip_folder(Path(source)) else source
    if kind in FORMATS or kinds_at(Path(source)):
        splits, _ = check_splits(source, images=False)
        first = next(iter(splits.values()), None)
        scenes = [scene for one in splits.values() for scene in one.scenes]
        return [AnnotatedFiles(source, first.of(scenes))] if first is not None and scenes else []
    try:
        return [load_dataset(source, "train")]
    except (DataError, ImageError):
        return []


def _drawn(data: Any, place: int, picture: Any) -> Any:
    if not isinstance(data, Annotated):
        return picture
    scene: Scene = data.annotations.scenes[place]
    boxes = np.array([one.box for one in scene.objects], dtype=float).reshape(-1, 4)
    labels = [one.label for one in scene.objects]
    masks = [mask.decode() for one in scene.objects if (mask := scene.rle(one)) is not None]
    names = [data.class_names[label] for label in labels]
    return draw_objects(picture, boxes, names, labels, masks=masks if len(masks) == len(labels) else None, side=TILE)


def truth_of(data: Any, place: int) -> str:
    """Returns what a data set says about one of its images: its class, or how many objects of which classes it has."""
    if isinstance(data, Annotated):
        counts = Counter(data.class_names[one.label] for one in data.annotations.scenes[place].objects)
        return "has " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "no object")
    return f"is {data.class_names[data.labels[place]]}" if isinstance(data, Labelled) else f"image {place}"
