"""What the files of annotation tools have in common: images found by name, shapes that become objects, classes by name.

Every shape is converted exactly, or refused by name: a turned box is its four corners, an ellipse the pixels whose
centre lies in it.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, encode
from nexus.data.detection.scene import Annotations, Box, Fault, Mask, Object, Polygons, Report, Scene
from nexus.data.detection.values import checked_box, class_name, extent, is_number, polygons, size_problem, whole
from nexus.data.images import EXTENSIONS, ImageError, file_size
from nexus.data.places import children, inside

ANNOTATION_FOLDERS = ("annotations", "labels", "json", "csv", "xml")

UNLABELLED = "object"
"""The class where a format has none."""


class Sheet:
    """Images and objects of one split, as they are read one after another."""

    def __init__(self, file: Path, root: Path, report: Report) -> None:
        self.file, self.root, self.report = file, root, report
        self._scenes: dict[str, Scene] = {}
        self._objects: dict[str, list[tuple[str, Object]]] = {}

    def fault(self, where: str, problem: object) -> None:
        """Tells about something wrong at a place of the file."""
        self.report(Fault(str(self.file), where, str(problem)))

    def image(self, name: Any, folders: Sequence[Path], height: Any = None, width: Any = None) -> Scene:
        """The image of that name in the first of the folders that has it; without sides they are the file's.

        Raises:
            ValueError: It is not there, leads outside of the root, or its sides are wrong.
        """
        if not isinstance(name, str):
            raise ValueError(f"the image's name is {str(name)[:40]!r}; it must be a text.")
        path = find_image(self.root, name, folders)
        if str(path) in self._scenes:
            return self._scenes[str(path)]
        if height is None and width is None:
            try:
                height, width = file_size(path)
            except ImageError as error:
                raise ValueError(str(error)) from None
        problem = size_problem(height, width)
        if problem is not None:
            raise ValueError(problem)
        scene = Scene(str(path), int(height), int(width))
        self._scenes[str(path)], self._objects[str(path)] = scene, []
        return scene

    def add(self, scene: Scene, name: Any, shape: Mask | Box, *, crowd: bool = False) -> None:
        """Adds an object, whose box is the extent of its mask where it has one.

        Raises:
            ValueError: Its class has no name, or it leaves the image.
        """
        mask = None if isinstance(shape, tuple) else shape
        box = shape if isinstance(shape, tuple) else extent(shape) if isinstance(shape, Polygons) else shape.box
        x1, y1, x2, y2 = box
        if mask is not None:  # an outline may lie a pixel outside
            x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, scene.width), min(y2, scene.height)
        one = Object(0, checked_box((x1, y1, x2, y2), scene), mask, crowd=crowd)
        self._objects[scene.path].append((class_name(name), one))

    def annotations(self, names: Iterable[str] = ()) -> Annotations:
        """All that was read; classes are `names` and what else occurs, sorted."""
        found = {name for objects in self._objects.values() for name, _ in objects}
        classes = tuple(sorted(found | set(names)))
        labels = {name: label for label, name in enumerate(classes)}
        scenes = []
        for path, scene in self._scenes.items():
            objects = tuple(replace(one, label=labels[name]) for name, one in self._objects[path])
            scenes.append(replace(scene, objects=objects))
        return Annotations(tuple(scenes), classes)


def find_image(root: Path, name: str, folders: Sequence[Path]) -> Path:
    """The image of a name, with or without its ending, in the first of the folders that has it.

    Raises:
        ValueError: It is in none of them.
    """
    for folder in folders:
        place = inside(root, name, folder)
        if place.is_file():
            return place
        for ending in sorted(EXTENSIONS) if place.suffix.lower() not in EXTENSIONS else ():
            for one in (ending, ending.upper()):
                other = place.with_name(place.name + one)
                if other.is_file():
                    return other
    raise ValueError(f"there is no image {name[:200]!r} in {' or '.join(str(folder) for folder in folders[:3])}.")


def home_of(file: Path) -> Path:
    """The data set's folder of a file: its own, or the one above where that is named after annotations."""
    return file.parent.parent if file.parent.name.lower() in ANNOTATION_FOLDERS else file.parent


def image_folders(file: Path, *more: Path) -> list[Path]:
    """Where tools keep the images of a file: beside it, in folders beside it, in those beside its folder."""
    home = file.parent
    above = [home.parent] if home.name.lower() in ANNOTATION_FOLDERS else []
    return [*more, home, *(child for folder in (home, *above) for child in children(folder) if child.is_dir()), *above]


def numbers(values: Any, count: int | None = None) -> list[float]:
    """A list of finite numbers.

    Raises:
        ValueError: It is something else, or has another length.
    """
    if not isinstance(values, list | tuple) or not all(map(is_number, values)):
        raise ValueError(f"{str(values)[:60]} are no numbers.")
    if count is not None and len(values) != count:
        raise ValueError(f"{str(values)[:60]} are {len(values)} numbers; there must be {count}.")
    return [float(value) for value in values]


def points_of(values: Any) -> list[list[float]]:
    """A list of points x, y. Raises ValueError where it is something else."""
    if not isinstance(values, list):
        raise ValueError(f"points are {str(values)[:40]}; they must be a list of pairs.")
    return [numbers(point, 2) for point in values]


def outline_of(points: Sequence[Sequence[float]], scene: Scene) -> Polygons:
    """The mask inside of an outline through points x, y."""
    return polygons([[side for point in points for side in point]], scene)


def upright(x1: float, y1: float, x2: float, y2: float) -> Box:
    """The box with these two corners, whichever they are."""
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def turned_box(
    corner: tuple[float, float], sides: tuple[float, float], degrees: float, scene: Scene, about: str
) -> Any:
    """A box turned clockwise about its "corner" (the upper left one) or "centre": its four corners as an outline."""
    (x, y), (w, h) = corner, sides
    if degrees % 360 == 0:
        return x, y, x + w, y + h
    px, py = (x, y) if about == "corner" else (x + w / 2, y + h / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    return outline_of(
        [(px + (a - px) * cos - (b - py) * sin, py + (a - px) * sin + (b - py) * cos) for a, b in corners], scene
    )


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float, scene: Scene) -> RLE:
    """The pixels whose centre lies in an ellipse that is turned clockwise about its centre.

    Raises:
        ValueError: It covers none.
    """
    if min(radii) <= 0:
        raise ValueError(f"an ellipse has the radii {radii[0]:g} and {radii[1]:g}; they must be above 0.")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = np.arange(scene.width)[None, :] + 0.5 - centre[0]
    y = np.arange(scene.height)[:, None] + 0.5 - centre[1]
    mask = ((x * cos + y * sin) / radii[0]) ** 2 + ((y * cos - x * sin) / radii[1]) ** 2 <= 1
    return solid(mask)


def solid(mask: np.ndarray) -> RLE:
    """The runs of a mask. Raises ValueError where it covers no pixel."""
    if not mask.any():
        raise ValueError("its mask covers no pixel of the image.")
    return encode(mask)


def placed(part: np.ndarray, left: int, top: int, scene: Scene) -> RLE:
    """A mask that covers a part of the image only. Raises ValueError where it does not fit into the image."""
    height, width = part.shape
    if left < 0 or top < 0 or left + width > scene.width or top + height > scene.height:
        raise ValueError(f"its mask of {width} x {height} at ({left}, {top}) leaves the image.")
    mask = np.zeros(scene.size, dtype=bool)
    mask[top : top + height, left : left + width] = part
    return solid(mask)


def get(row: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """A value of a mapping that must be of a kind. Raises ValueError with what stands there instead."""
    value = row.get(key) if isinstance(row, Mapping) else None
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {str(value)[:40]}, which it cannot be.")
    return value


def side_of(row: Any, key: str) -> int | None:
    """A side of the image as a mapping gives it; None where it is absent."""
    return whole(row.get(key)) if isinstance(row, Mapping) and row.get(key) is not None else None


def relative_folder(path: Path, root: Path) -> str:
    """The first folder below the root on the way to a file, or an empty text."""
    parts = Path(os.path.relpath(path, root)).parts
    return parts[0] if len(parts) > 1 else ""


def nothing(path: Path, what: str) -> DataError:
    """The error of a path that holds nothing of a kind."""
    return DataError(f"{path} holds no {what}; name its file, or the folder that holds it.")
