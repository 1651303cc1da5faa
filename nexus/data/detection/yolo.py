"""YOLO's text files: one per image, one line per object, coordinates as shares of the image's sides.

A folder holds `data.yaml` with `names` (and, for keypoints, `kpt_shape: [j, 3]`, or `[j, 2]` where all are visible and
no v1, v2, ... follow), and for every `images/**/a.jpg` a
`labels/**/a.txt`, absent where there is nothing to see. A line is one of

    class cx cy w h                     a box
    class x1 y1 x2 y2 x3 y3 ...         one outline
    class cx cy w h x1 y1 v1 x2 y2 v2   a box and keypoints

The format has no crowds, areas, or boxes that differ from their outline: `write_yolo` refuses what would get lost.
A mask of several parts, or with holes, becomes one outline whose bridges have no width, and comes back exactly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.copies import copy_image, flat_names, write_text
from nexus.data.detection.mirror import mirror_of
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
from nexus.data.detection.values import extent, ring_problem, visibility_problem, whole_text
from nexus.data.detection.yolo_folder import CLASS_LISTS, SETTINGS, YoloFolder, label_file, open_yolo
from nexus.data.documents import read_text
from nexus.data.holding_out import held_out
from nexus.data.images import ImageError, file_size
from nexus.data.places import walk

OTHERS = "read them as voc:PATH or labelme:PATH"
SAME_BOX = 1e-6
"""Pixels by which a box may differ from its outline's extent, which is what a reader takes for it."""


def read_yolo(root: str | Path, split: str | None = None, report: Report = refuse) -> Annotations:
    """Returns the annotations of a YOLO folder.

    Args:
        root: The folder, or its settings file; see `nexus.data.detection.yolo_folder` for the layouts.
        split: Only the images of this split.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and line.
    """
    folder = open_yolo(Path(root))
    if split is not None and split not in folder.images:
        there = ", ".join(str(name) for name in folder.images if name) or "none"
        raise DataError(f"{root} has no split {split!r} (there are {there}); there is no folder images/{split} in it.")
    every = sorted({file for files in folder.images.values() for file in files})
    files = every if split is None else folder.images[split]
    scenes = []
    for file in files:
        try:
            height, width = file_size(file)
        except ImageError as error:
            report(Fault(str(file), "", str(error).removeprefix(f"{file}: ").removeprefix(f"{file} ")))
            continue
        scene = Scene(str(file), height, width)
        lines = _Lines(label_file(file, folder.root), scene, folder, report)
        scenes.append(replace(scene, objects=tuple(lines.objects())))
    _report_strays(folder, report)
    return Annotations(
        tuple(scenes),
        folder.names,
        keypoint_names=folder.keypoint_names,
        skeleton=folder.skeleton,
        mirror=folder.mirror,
    )


def write_yolo(annotations: Annotations, root: str | Path, *, lossy: bool = False) -> Path:
    """Writes `data.yaml`, `images/` (copies) and `labels/`. Returns the folder.

    Args:
        annotations: What to write; the images must be files.
        root: The folder.
        lossy: Whether crowds, areas, ids of classes and the like, which the format cannot hold, may be dropped.

    Raises:
        DataError: Something would get lost and `lossy` is not set; the message names the first such object.
    """
    return write_yolo_splits({None: annotations}, root, lossy=lossy)


def write_yolo_splits(splits: Mapping[str | None, Annotations], root: str | Path, *, lossy: bool = False) -> Path:
    """Writes several splits of one data set, each into `images/<split>` and `labels/<split>`; see `write_yolo`.

    The split None goes into `images` itself, and lists say which of its images are held out.
    """
    import yaml

    root = Path(root)
    for annotations in splits.values() if not lossy else ():
        _check_lossless(annotations)
    settings: dict[str, Any] = {}
    for split, annotations in splits.items():
        files = _write_split(annotations, root, split or ".")
        if split is None:
            settings.update(_write_lists(root, annotations.scenes, files))
        else:
            settings[split] = f"images/{split}"
    settings.update(_described(next(iter(splits.values()))))
    write_text(root, root / SETTINGS, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return root


def _write_split(annotations: Annotations, root: Path, split: str) -> list[Path]:
    files = []
    for name, scene in zip(flat_names(annotations.scenes), annotations.scenes):
        image = root / "images" / split / name
        copy_image(scene, root, image)
        lines = [_line(one, scene, len(annotations.keypoint_names)) for one in scene.objects if not one.crowd]
        label = (root / "labels" / split / name).with_suffix(".txt")
        write_text(root, label, "".join(f"{line}\n" for line in lines))
        files.append(image)
    return files


def _write_lists(root: Path, scenes: Sequence[Scene], files: Sequence[Path]) -> dict[str, str]:
    """Writes which images are trained on and which are held out; returns the keys that name the lists."""
    held = held_out([file.name for file in files])
    names = {}
    for split, wanted in (("train", False), ("val", True)):
        chosen = [file for file, one in zip(files, held) if one == wanted]
        if chosen:
            text = "".join(f"./{file.relative_to(root).as_posix()}\n" for file in chosen)
            write_text(root, root / f"{split}.txt", text)
            names[split] = f"{split}.txt"
    return names


def _described(annotations: Annotations) -> dict[str, Any]:
    """The keys of `data.yaml` that describe classes and keypoints."""
    settings: dict[str, Any] = {"names": dict(enumerate(annotations.class_names))}
    if annotations.keypoint_names:
        names, mirror = list(annotations.keypoint_names), mirror_of(annotations)
        settings["kpt_shape"] = [len(names), 3]
        settings["kpt_names"] = {label: list(names) for label in range(len(annotations.class_names))}
        if mirror is not None:
            settings["flip_idx"] = list(mirror)
        if annotations.skeleton:
            settings["skeleton"] = [list(pair) for pair in annotations.skeleton]
    return settings


def _check_lossless(annotations: Annotations) -> None:
    if annotations.class_ids != tuple(range(1, len(annotations.class_names) + 1)):
        raise DataError(f"YOLO has no class ids, which are {annotations.class_ids}; --lossy (lossy=True) drops them.")
    for scene in annotations.scenes:
        for place, one in enumerate(scene.objects):
            lost = _what_is_lost(one, scene)
            if lost is not None:
                raise DataError(
                    f"{scene.path}: object {place} has {lost}, which YOLO cannot hold; --lossy (lossy=True) drops it."
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


def _report_strays(folder: YoloFolder, report: Report) -> None:
    """Names labels without an image, in the folders where labels of images are looked for."""
    known = {label_file(file, folder.root) for files in folder.images.values() for file in files}
    places = {file.parent for file in known if "labels" in (part.lower() for part in file.parts)}
    tops = [place for place in sorted(places) if not any(above in places for above in place.parents)]
    for file in dict.fromkeys(file for top in tops if top.is_dir() for file in walk(top, [".txt"])):
        if file not in known and file.name not in CLASS_LISTS:
            report(Fault(str(file), "", "there is no image for these labels; add it, or remove the file."))


class _Lines:
    """The lines of one label file."""

    def __init__(self, file: Path, scene: Scene, folder: YoloFolder, report: Report) -> None:
        self.file, self.scene, self.report = file, scene, report
        self.num_classes, self.num_points = len(folder.names), len(folder.keypoint_names)
        self.per_point = 3 if folder.has_visibility else 2

    def objects(self) -> list[Object]:
        if not self.file.exists() and not self.file.is_symlink():  # a link that leads nowhere is a fault
            for other in (self.file.with_suffix(ending) for ending in (".xml", ".json")):
                if other.is_file():
                    self.report(
                        Fault(str(other), "", f"these are no labels of YOLO; write {self.file.name}, or {OTHERS}.")
                    )
            return []
        try:
            lines = read_text(self.file).splitlines()
        except DataError as error:
            self.report(Fault(str(self.file), "", str(error).removeprefix(f"{self.file} ")))
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
            label, numbers = whole_text(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            label, numbers = None, []
        if label is None:
            return f"{' '.join(words)[:60]!r} is not a class (a whole number) and numbers, with spaces between."
        if not 0 <= label < self.num_classes:
            return f"the class is {label}; {SETTINGS} names {self.num_classes}, from 0 to {self.num_classes - 1}."
        if not all(map(math.isfinite, numbers)):
            return "a coordinate is not a finite number."
        points = numbers[4:] if self.num_points else []
        wanted = 4 + self.per_point * self.num_points
        if self.num_points and len(numbers) not in (4, wanted):
            return f"has {len(numbers)} numbers; with {self.num_points} keypoints it must be {wanted}."
        if not self.num_points and len(numbers) == 5:
            return "has 5 numbers; a box has 4, an outline an even number from 6 on. Remove a score at the end."
        if not self.num_points and (len(numbers) < 4 or (len(numbers) != 4 and (len(numbers) % 2 or len(numbers) < 6))):
            return f"has {len(numbers)} numbers; a box has 4, an outline an even number from 6 on."
        places = numbers[: 4 if self.num_points else None] + [c for i, c in enumerate(points) if i % self.per_point < 2]
        # An outline may touch the border; a rounded box may exceed it by the last digit.
        wild = next((value for value in places if not -1e-3 <= value <= 1 + 1e-3), None)
        if wild is not None and max(map(abs, places)) <= 2:
            return f"the coordinate {wild:g} lies outside of the image (0 to 1); correct it, or remove the line."
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
            problem = ring_problem(ring.reshape(-1).tolist(), self.scene)
            if problem is not None:
                return f"its outline {problem}"
            mask = Polygons((ring,))
            corners = np.array(extent(mask))
        x1, y1, x2, y2 = corners.tolist()
        problem = box_problem((x1, y1, x2, y2), self.scene.height, self.scene.width)
        if problem is not None:
            corners = len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]
            return problem + (
                " As corners it would fit; YOLO wants centre x, centre y, width, height." if corners else ""
            )
        if points:
            given = np.array(points).reshape(-1, self.per_point)
            shown = given[:, 2:] if self.per_point == 3 else np.full((len(given), 1), 2.0)
            keypoints = np.hstack([given[:, :2] * sides, shown])
            problem = visibility_problem(keypoints)
            if problem is not None:
                return problem
        return Object(label, (x1, y1, x2, y2), mask, keypoints)
