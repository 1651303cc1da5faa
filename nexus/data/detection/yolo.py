"""YOLO's text files: one per image, one line per object, coordinates as shares of the image's sides.

A folder holds `data.yaml` with `names` (and, for keypoints, `kpt_shape: [j, 3]`), and for every `images/**/a.jpg` a
`labels/**/a.txt`, absent where there is nothing to see. A line is one of

    class cx cy w h                     a box
    class x1 y1 x2 y2 x3 y3 ...         one outline
    class cx cy w h x1 y1 v1 x2 y2 v2   a box and keypoints

The format has no crowds, areas, or boxes that differ from their outline: `write_yolo` refuses what would get lost.
A mask of several parts, or with holes, becomes one outline whose bridges have no width, and comes back exactly.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.detection.scene import (
    Annotations,
    Fault,
    Mask,
    Object,
    Polygons,
    Report,
    Scene,
    box_problem,
    refuse,
    ring_of,
)
from nexus.data.images import EXTENSIONS, ImageError, image_size, open_image

SETTINGS = "data.yaml"
SAME_BOX = 1e-6
"""Pixels by which a box may differ from its outline's extent, which is what a reader takes for it."""


def read_yolo(root: str | Path, split: str | None = None, report: Report = refuse) -> Annotations:
    """Returns the annotations of a YOLO folder.

    Args:
        root: The folder with `data.yaml`.
        split: Only the images below `images/<split>`, or the folder that `data.yaml` names for it.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and line.
    """
    root = Path(root)
    settings = _settings(root / SETTINGS)
    names = settings["names"]
    num_points = settings.get("kpt_shape", [0])[0]
    folder = root / str(settings.get(split) or f"images/{split}") if split else root / "images"
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; a YOLO data set has images/ and labels/ side by side.")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS)
    scenes = []
    for file in files:
        try:
            height, width = image_size(open_image(file))
        except ImageError as error:
            report(Fault(str(file), "", str(error).removeprefix(f"{file}: ").removeprefix(f"{file} ")))
            continue
        lines = _Lines(_label_file(file, root), Scene(str(file), height, width), len(names), num_points, report)
        scenes.append(Scene(str(file), height, width, tuple(lines.objects())))
    _report_strays(folder, root, files, report)
    return Annotations(tuple(scenes), tuple(names), keypoint_names=tuple(f"point{i}" for i in range(num_points)))


def write_yolo(annotations: Annotations, root: str | Path, *, lossy: bool = False) -> Path:
    """Writes `data.yaml`, `images/` (copies) and `labels/`. Returns the folder.

    Args:
        annotations: What to write; the images must be files.
        root: The folder.
        lossy: Whether crowds, areas, ids of classes and the like, which the format cannot hold, may be dropped.

    Raises:
        DataError: Something would get lost and `lossy` is not set; the message names the first such object.
    """
    import yaml

    root = Path(root)
    if not lossy:
        _check_lossless(annotations)
    num_points = len(annotations.keypoint_names)
    for name, scene in zip(_flat_names(annotations.scenes), annotations.scenes):
        target = root / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or not target.samefile(scene.path):
            shutil.copyfile(scene.path, target)
        lines = [_line(one, scene, num_points) for one in scene.objects if not one.crowd]
        label = (root / "labels" / name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        _write(label, "".join(f"{line}\n" for line in lines))
    settings: dict[str, Any] = {"train": "images", "val": "images", "names": dict(enumerate(annotations.class_names))}
    if num_points:
        settings["kpt_shape"] = [num_points, 3]
    _write(root / SETTINGS, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return root


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _flat_names(scenes: Sequence[Scene]) -> list[str]:
    names = [Path(scene.path).name for scene in scenes]
    stems = [Path(name).stem for name in names]
    for place, stem in enumerate(stems):
        if stem in stems[:place]:
            other = scenes[stems.index(stem)].path
            raise DataError(f"{scenes[place].path} and {other} would share the label file {stem}.txt; rename one.")
    return names


def _check_lossless(annotations: Annotations) -> None:
    if annotations.class_ids != tuple(range(1, len(annotations.class_names) + 1)):
        raise DataError(
            f"YOLO has no class ids, which are {annotations.class_ids}; write with lossy=True to drop them."
        )
    for scene in annotations.scenes:
        for place, one in enumerate(scene.objects):
            lost = _what_is_lost(one, scene)
            if lost is not None:
                raise DataError(
                    f"{scene.path}: object {place} has {lost}, which YOLO cannot hold; lossy=True drops it."
                )


def _what_is_lost(one: Object, scene: Scene) -> str | None:
    if one.crowd or one.difficult:
        return "the mark of a crowd" if one.crowd else "the mark of a difficult object"
    if one.mask is not None and one.keypoints is not None:
        return "a mask and keypoints at once"
    if one.mask is not None:
        ring = ring_of(_single(one.mask, scene))
        extent = np.concatenate([ring.min(axis=0), ring.max(axis=0)]) if len(ring) else np.zeros(4)
        if np.abs(extent - one.box).max() > SAME_BOX:
            return "a box that is not the extent of its outline"
    if one.area is not None and one.area != scene.area(Object(one.label, one.box, one.mask)):
        return "an area that is not that of its mask or box"
    return None


def _single(mask: Mask, scene: Scene) -> Mask:
    """A mask of several outlines as runs, whose one outline is exact."""
    if isinstance(mask, Polygons) and len(mask.rings) > 1:
        runs = scene.rle(Object(0, (0, 0, 1, 1), mask))
        assert runs is not None
        return runs
    return mask


def _line(one: Object, scene: Scene, num_points: int) -> str:
    sides = np.array([scene.width, scene.height], dtype=np.float64)
    if one.mask is not None and not num_points:
        numbers = (ring_of(_single(one.mask, scene)) / sides).reshape(-1)
        if len(numbers) >= 6:
            return " ".join(map(str, [one.label, *numbers.tolist()]))
    x1, y1, x2, y2 = one.box
    box = [(x1 + x2) / 2 / scene.width, (y1 + y2) / 2 / scene.height, (x2 - x1) / scene.width, (y2 - y1) / scene.height]
    points = np.zeros((num_points, 3)) if one.keypoints is None else one.keypoints.astype(np.float64)
    points = points / [scene.width, scene.height, 1] if len(points) else points
    shown = [f"{x!r} {y!r} {int(v)}" for x, y, v in points.tolist()]
    return " ".join([str(one.label), *map(str, box), *shown])


def _settings(path: Path) -> dict[str, Any]:
    """The content of data.yaml with `names` as a list."""
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it must hold `names`, the names of the classes.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    names = settings.get("names") if isinstance(settings, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names is {names!r}; it must list the classes, or number them 0, 1, ...")
    shape = settings.get("kpt_shape", [0, 3])
    if not (isinstance(shape, list) and len(shape) == 2 and isinstance(shape[0], int) and shape[1] in (2, 3)):
        raise DataError(f"{path}: kpt_shape is {shape!r}; it must be [number of keypoints, 3].")
    if shape[1] == 2:
        raise DataError(f"{path}: kpt_shape is {shape!r}; keypoints without visibility are not read, use [j, 3].")
    return {**settings, "names": [str(name) for name in names]}


def _label_file(image: Path, root: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    parts[parts.index("images")] = "labels"
    return (root / Path(*parts)).with_suffix(".txt")


def _report_strays(folder: Path, root: Path, files: Sequence[Path], report: Report) -> None:
    known = {_label_file(file, root) for file in files}
    labels = root / "labels" / folder.relative_to(root / "images")
    for file in sorted(labels.rglob("*.txt")) if labels.is_dir() else ():
        if file not in known:
            report(Fault(str(file), "", "there is no image for these labels; add it, or remove the file."))


class _Lines:
    """The lines of one label file."""

    def __init__(self, file: Path, scene: Scene, num_classes: int, num_points: int, report: Report) -> None:
        self.file, self.scene, self.report = file, scene, report
        self.num_classes, self.num_points = num_classes, num_points

    def objects(self) -> list[Object]:
        if not self.file.is_file():
            return []
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            self.report(Fault(str(self.file), "", f"it is not text in UTF-8 ({error})."))
            return []
        found, seen = [], set()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            one: Object | str = "is a copy of another line; remove it." if line in seen else self._object(line.split())
            seen.add(line)
            if isinstance(one, str):
                self.report(Fault(str(self.file), f"line {number}", one))
            else:
                found.append(one)
        return found

    def _object(self, words: list[str]) -> Object | str:
        """The object of a line, or what is wrong with it."""
        try:
            label, numbers = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            return f"{' '.join(words)[:60]!r} is not a class (a whole number) and numbers."
        if not 0 <= label < self.num_classes:
            return f"the class is {label}; {SETTINGS} names {self.num_classes}, 0 to {self.num_classes - 1}."
        if not all(map(math.isfinite, numbers)):
            return "a coordinate is not a finite number."
        points = numbers[4:] if self.num_points else []
        if self.num_points and len(numbers) not in (4, 4 + 3 * self.num_points):
            return f"has {len(numbers)} numbers; with {self.num_points} keypoints it must be {4 + 3 * self.num_points}."
        if not self.num_points and (len(numbers) < 4 or (len(numbers) != 4 and (len(numbers) % 2 or len(numbers) < 6))):
            return f"has {len(numbers)} numbers; a box has 4, an outline an even number from 6 on."
        places = numbers[: 4 if self.num_points else None] + [c for i, c in enumerate(points) if i % 3 < 2]
        # An outline may touch the border; a rounded box may exceed it by the last digit.
        wild = next((value for value in places if not -1e-3 <= value <= 1 + 1e-3), None)
        if wild is not None:
            return f"the coordinate {wild:g} is not a share from 0 to 1; divide pixels by the image's width or height."
        return self._checked(label, numbers, points)

    def _checked(self, label: int, numbers: list[float], points: list[float]) -> Object | str:
        sides = np.array([self.scene.width, self.scene.height], dtype=np.float64)
        mask = keypoints = None
        if len(numbers) == 4 or self.num_points:
            centre, half = np.array(numbers[:2]) * sides, np.array(numbers[2:4]) * sides / 2
            corners = np.concatenate([centre - half, centre + half])
        else:
            ring = np.array(numbers).reshape(-1, 2) * sides
            mask = Polygons((ring,))
            corners = np.concatenate([ring.min(axis=0), ring.max(axis=0)])
        x1, y1, x2, y2 = corners.tolist()
        problem = box_problem((x1, y1, x2, y2), self.scene.height, self.scene.width)
        if problem is not None:
            return problem
        if points:
            keypoints = np.array(points).reshape(-1, 3) * [*sides, 1]
            if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
                return "a keypoint's visibility is neither 0 (not labelled), 1 (hidden) nor 2 (visible)."
        return Object(label, (x1, y1, x2, y2), mask, keypoints)
