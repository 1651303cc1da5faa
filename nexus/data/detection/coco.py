"""COCO's json: boxes, polygons, runs of both kinds, keypoints and crowds.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014. https://arxiv.org/abs/1405.0312
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE
from nexus.data.detection.scene import (
    Annotations,
    Box,
    Fault,
    Mask,
    Object,
    Polygons,
    Report,
    Scene,
    box_problem,
    refuse,
)
from nexus.data.detection.values import (
    MAX_KEYPOINTS,
    checked_runs,
    class_name,
    extent,
    is_number,
    ring_problem,
    size_problem,
    visibility_problem,
    whole,
)
from nexus.data.documents import read_json
from nexus.data.places import children, inside, split_of

TRIED = 50
"""Files, evenly among all, that tell which folder they lie in."""


def read_coco(path: str | Path, images: str | Path | None = None, report: Report = refuse) -> Annotations:
    """Returns the annotations of a COCO file.

    Args:
        path: The json file.
        images: Folder that `file_name` starts from; None is the usual one that has most of the files: `images` beside
            the json file, that file's own folder, or one that is called as its split is.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and annotation.
    """
    path = Path(path)
    content = _load(path)
    root = Path(images) if images is not None else root_of(path)
    folder = root if images is not None else image_folder(path, content["images"])
    reader = _Reader(str(path), report)
    classes = reader.categories(content["categories"])
    keypoints, skeleton = reader.body(classes)
    keypoints = keypoints or unnamed_keypoints(content["annotations"])
    scenes = reader.images(content["images"], root, folder)
    objects = reader.objects(content["annotations"], scenes, classes, len(keypoints))
    found = [replace(scene, objects=tuple(objects.get(number, ()))) for number, scene in scenes.items()]
    names = tuple(class_name(one["name"]) for one in classes.values())
    return Annotations(tuple(found), names, tuple(classes), keypoints, skeleton, reader.mirror(classes, len(keypoints)))


def unnamed_keypoints(rows: Sequence[Any]) -> tuple[str, ...]:
    """Names for keypoints whose classes name none: as many as the first object has that has some."""
    lists = (row.get("keypoints") for row in rows if isinstance(row, dict))
    first = next((points for points in lists if isinstance(points, list) and points), [])
    return tuple(f"point{place}" for place in range(min(len(first) // 3, MAX_KEYPOINTS)))


def write_coco(annotations: Annotations, path: str | Path, images: str | Path | None = None) -> Path:
    """Writes a COCO file; numbers of annotations count from 1. Returns its path.

    Args:
        annotations: What to write.
        path: The json file.
        images: Folder that the written `file_name` starts from; None is as in `read_coco`.
    """
    path = Path(path)
    folder = Path(images) if images is not None else _common_folder(path, annotations.scenes)
    rows = []
    for number, scene in numbered(annotations.scenes):
        for one in scene.objects:
            rows.append({"id": len(rows) + 1, "image_id": number, **_annotation(scene, one, annotations)})
    categories: list[dict[str, Any]] = []
    for number, name in zip(annotations.class_ids, annotations.class_names):
        categories.append({"id": number, "name": name})
        if annotations.keypoint_names:
            categories[-1]["keypoints"] = list(annotations.keypoint_names)
            categories[-1]["skeleton"] = [[a + 1, b + 1] for a, b in annotations.skeleton]
            if annotations.mirror:  # of YOLO; other readers pass it over
                categories[-1]["flip_idx"] = list(annotations.mirror)
    places = [
        {"id": number, "file_name": _relative(scene.path, folder), "height": scene.height, "width": scene.width}
        for number, scene in numbered(annotations.scenes)
    ]
    text = json.dumps({"images": places, "annotations": rows, "categories": categories})
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def numbered(scenes: Sequence[Scene]) -> list[tuple[int, Scene]]:
    """Scenes with their numbers: those of their file if all have one and no two the same, else 1, 2, ..."""
    numbers = [scene.id for scene in scenes]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(scenes) + 1))
    return [(number, scene) for number, scene in zip(numbers, scenes) if number is not None]


def _annotation(scene: Scene, one: Object, annotations: Annotations) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    row: dict[str, Any] = {
        "category_id": annotations.class_ids[one.label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": scene.area(one),
        "iscrowd": int(one.crowd),
    }
    if isinstance(one.mask, Polygons):
        row["segmentation"] = [ring.reshape(-1).tolist() for ring in one.mask.rings]
    elif one.mask is not None:
        row["segmentation"] = one.mask.to_json()
    if one.keypoints is not None:
        row["keypoints"] = one.keypoints.reshape(-1).tolist()
        row["num_keypoints"] = int((one.keypoints[:, 2] > 0).sum())
    if one.difficult:
        row["difficult"] = 1
    return row


def _load(path: Path) -> dict[str, list[Any]]:
    """The file's three lists; without them nothing else can be said, and so these faults always raise."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}; a COCO file is an object with images, annotations, categories."
            + (" A list of results is read by nexus.tasks.detection.coco_results." if isinstance(content, list) else "")
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path}: {key} is missing or no list; a COCO file has images, annotations, categories.")
    return content


def root_of(path: Path) -> Path:
    """The folder of the data set that a json file belongs to: the one above where it lies in `annotations`."""
    return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent


def image_folder(path: Path, rows: Sequence[Any] = ()) -> Path:
    """The folder that `file_name` starts from; of the usual ones the first that has most of some files."""
    root = root_of(path)
    words = re.split(r"[^a-z0-9]+", path.stem.lower())
    folders = [path.parent / "images", path.parent, root]
    for word in words:
        folders += [child for child in children(root) if child.name.lower() == word and child.is_dir()]
    for split in filter(None, map(split_of, words)):
        folders += [child for child in children(root) if child.is_dir() and split_of(child.name) == split]
    folders += [folder / "images" for folder in folders[3:]]
    folders += [root / above / folder.name for above in ("images", "data") for folder in folders[3:]]
    folders += [root / "images", root / "data", root / "train"]
    some = [row["file_name"] for row in rows[:: max(1, len(rows) // TRIED)] if isinstance(_get(row, "file_name"), str)]
    found = [sum(_is_there(root, name, folder) for name in some) for folder in dict.fromkeys(folders)]
    if any(found):
        return list(dict.fromkeys(folders))[found.index(max(found))]
    return folders[0] if folders[0].is_dir() else folders[1]


def _is_there(root: Path, name: str, folder: Path) -> bool:
    with contextlib.suppress(ValueError, OSError):
        return inside(root, name, folder).is_file()
    return False


def _common_folder(path: Path, scenes: Sequence[Scene]) -> Path:
    """Where written names start from: `images` beside the json file where all images lie there, else its folder."""
    images = (path.parent / "images").absolute()
    return images if all(Path(scene.path).absolute().is_relative_to(images) for scene in scenes) else path.parent


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(path).absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return path


class _Reader:
    """Reads the three lists and tells `report` about what is wrong in them. A field that is null says nothing."""

    def __init__(self, file: str, report: Report) -> None:
        self.file, self.report = file, report
        self.spoiled: set[int] = set()  # images that are there, and left out for a fault of their own

    def fault(self, place: str, problem: str) -> None:
        self.report(Fault(self.file, place, problem))

    def categories(self, rows: Sequence[Any]) -> dict[int, Mapping[str, Any]]:
        found: dict[int, Mapping[str, Any]] = {}
        names: set[str] = set()
        for place, row in enumerate(rows):
            where, number = f"categories[{place}]", whole(_get(row, "id"))
            try:
                name = class_name(_get(row, "name"))
            except ValueError as error:
                self.fault(where, f"name is {error}")
                continue
            if number is None:
                self.fault(where, f"id is {_short(_get(row, 'id'))}; it must be a whole number.")
            elif number in found:
                self.fault(where, f"id {number} is that of {found[number]['name']!r} too; ids must differ.")
            elif name in names:
                self.fault(where, f"the name {name!r} occurs twice; names must differ.")
            else:
                found[number] = row
                names.add(name)
        return dict(sorted(found.items()))

    def body(self, classes: Mapping[int, Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """The names of keypoints and the pairs that are joined, which all classes that have some must share."""
        names: tuple[str, ...] = ()
        pairs: tuple[tuple[int, int], ...] = ()
        for number, row in classes.items():
            where, points = f"the category of id {number}", row.get("keypoints") or []
            if not isinstance(points, list) or not all(isinstance(one, str) for one in points):
                self.fault(where, f"keypoints are {_short(points)}; they must be a list of names.")
            elif len(points) > MAX_KEYPOINTS:
                self.fault(where, f"it has {len(points)} keypoints; at most {MAX_KEYPOINTS} are read.")
            elif points and names and tuple(points) != names:
                self.fault(where, "its keypoints are not those of the classes before; one list must do for all.")
            elif points and not names:
                names, pairs = tuple(points), self._pairs(where, row.get("skeleton") or [], len(points))
        return names, pairs

    def mirror(self, classes: Mapping[int, Mapping[str, Any]], count: int) -> tuple[int, ...]:
        """For each keypoint its mirror image, where a class has YOLO's `flip_idx`."""
        value = next((row["flip_idx"] for row in classes.values() if row.get("flip_idx")), [])
        places = [whole(one) for one in value] if isinstance(value, list) else [None]
        known = [place for place in places if place is not None and 0 <= place < count]
        if value and not (len(known) == len(places) == count and all(known[known[i]] == i for i in range(count))):
            self.fault("categories", f"flip_idx is {_short(value)}; it must pair the {count} keypoints.")
            return ()
        return tuple(known)

    def _pairs(self, where: str, rows: Any, count: int) -> tuple[tuple[int, int], ...]:
        pairs = [tuple(map(whole, row)) if isinstance(row, list) else () for row in rows] if _is_list(rows) else [()]
        if not all(len(pair) == 2 and all(one is not None and 1 <= one <= count for one in pair) for pair in pairs):
            self.fault(where, f"skeleton is {_short(rows)}; it must list pairs of keypoints, which count from 1.")
            return ()
        return tuple((int(a or 0) - 1, int(b or 0) - 1) for a, b in pairs)

    def images(self, rows: Sequence[Any], root: Path, folder: Path) -> dict[int, Scene]:
        found: dict[int, Scene] = {}
        names: set[str] = set()
        for place, row in enumerate(rows):
            number, name = whole(_get(row, "id")), _get(row, "file_name")
            where = f"images[{place}]" + ("" if number is None else f" (id {number})")
            try:
                if number is None:
                    raise ValueError(f"id is {_short(_get(row, 'id'))}; it must be a whole number.")
                if number in found:
                    raise ValueError(f"id {number} is that of {found[number].path} too; ids must differ.")
                found[number] = _scene(row, name, names, number, root, folder)
            except ValueError as error:
                self.fault(where, str(error))
                if number is not None:
                    self.spoiled.add(number)
        return found

    def objects(
        self,
        rows: Sequence[Any],
        scenes: Mapping[int, Scene],
        classes: Mapping[int, Mapping[str, Any]],
        num_keypoints: int,
    ) -> dict[int, list[Object]]:
        labels = {number: label for label, number in enumerate(classes)}
        found: dict[int, list[Object]] = {}
        seen: set[int] = set()
        for place, row in enumerate(rows):
            number, image, kind = (whole(_get(row, key)) for key in ("id", "image_id", "category_id"))
            where = f"annotations[{place}]" + ("" if number is None else f" (id {number})")
            if not isinstance(row, dict):
                self.fault(where, f"it is {_short(row)}; an annotation is an object.")
                continue
            if number is None and row.get("id") is not None:
                self.fault(where, f"id is {_short(row['id'])}; it must be a whole number.")
            elif number in seen:
                self.fault(where, f"id {number} occurs twice; ids must differ.")
            if number is not None:
                seen.add(number)
            if image in self.spoiled - scenes.keys():
                continue
            if image is None or image not in scenes:
                self.fault(where, f"image_id is {_short(row.get('image_id'))}, and no image has that id.")
            elif kind is None or kind not in labels:
                known = f"{min(labels)} to {max(labels)}" if labels else "none"
                said = _short(row.get("category_id"))
                self.fault(where, f"category_id is {said}, and no category has that id (there are {known}).")
            else:
                one = self._object(where, row, scenes[image], labels[kind], classes[kind], num_keypoints)
                if one is not None:
                    found.setdefault(image, []).append(one)
        return found

    def _object(
        self, where: str, row: Mapping[str, Any], scene: Scene, label: int, kind: Mapping[str, Any], num_keypoints: int
    ) -> Object | None:
        crowd, area = row.get("iscrowd") or 0, row.get("area")
        if crowd not in (0, 1):
            self.fault(where, f"iscrowd is {_short(crowd)}; it must be 0 or 1.")
        if area is not None and not (is_number(area) and area >= 0):
            self.fault(where, f"area is {_short(area)}; it must be a number of square pixels, 0 or more.")
            area = None
        mask = self._mask(where, row.get("segmentation"), scene)
        box = self._box(where, row.get("bbox"), scene, mask)
        if box is None:
            return None
        keypoints = self._keypoints(where, row, kind, num_keypoints)
        area = None if area is None else float(area)
        return Object(label, box, mask, keypoints, crowd == 1, area, bool(row.get("difficult", 0)))

    def _box(self, where: str, value: Any, scene: Scene, mask: Mask | None) -> Box | None:
        if value in (None, []) and mask is not None:
            whole_box = extent(mask) if isinstance(mask, Polygons) else mask.box
            value = [whole_box[0], whole_box[1], whole_box[2] - whole_box[0], whole_box[3] - whole_box[1]]
        if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
            self.fault(where, f"bbox is {_short(value)}; it must be four numbers: left, top, width, height.")
            return None
        x, y, width, height = map(float, value)
        box = (x, y, x + width, y + height)
        problem = box_problem(box, scene.height, scene.width)
        if problem is None:
            return box
        if box_problem((x, y, width, height), scene.height, scene.width) is None and width > x and height > y:
            problem += " As corners x1, y1, x2, y2 it would fit; COCO wants left, top, width, height."
        self.fault(where, problem)
        return None

    def _mask(self, where: str, value: Any, scene: Scene) -> Mask | None:
        if isinstance(value, dict) and value:
            return self._runs(where, value, scene)
        if value and not isinstance(value, list):
            self.fault(where, f"segmentation is a {type(value).__name__}; it must be polygons (lists) or runs.")
        if not isinstance(value, list):
            return None
        rings = []
        for place, ring in enumerate(value):
            if ring == []:
                continue
            problem = ring_problem(ring, scene)
            if problem is not None:
                self.fault(where, f"segmentation[{place}] {problem}")
                return None
            rings.append(np.array(ring, dtype=np.float64).reshape(-1, 2))
        return Polygons(tuple(rings)) if rings else None

    def _runs(self, where: str, value: Mapping[str, Any], scene: Scene) -> RLE | None:
        size = value.get("size")
        if not isinstance(size, list) or list(map(whole, size)) != [scene.height, scene.width]:
            said = f"the image is {[scene.height, scene.width]} (h, w)."
            return self.fault(where, f"segmentation.size is {_short(size)}; {said}")
        try:
            return checked_runs(value.get("counts"), scene.height, scene.width)
        except ValueError as error:
            return self.fault(where, f"segmentation.{error}.")

    def _keypoints(
        self, where: str, row: Mapping[str, Any], kind: Mapping[str, Any], num_keypoints: int
    ) -> np.ndarray | None:
        value = row.get("keypoints")
        if value is None or value == []:
            return None
        if not isinstance(value, list) or len(value) % 3 or not all(map(is_number, value)):
            return self.fault(where, "keypoints are not a list of numbers x, y, v, x, y, v, ...")
        points = np.array(value, dtype=np.float64).reshape(-1, 3)
        if len(points) != num_keypoints:
            said = f"the class {kind['name']!r} has {num_keypoints}"
            return self.fault(where, f"there are {len(points)} keypoints; {said}.")
        problem = visibility_problem(points)
        if problem is not None:
            return self.fault(where, problem)
        count, have = row.get("num_keypoints"), int((points[:, 2] > 0).sum())
        if count is not None and whole(count) != have:
            self.fault(where, f"num_keypoints is {_short(count)}, and {have} keypoints are labelled.")
        return points


def _scene(row: Mapping[str, Any], name: Any, names: set[str], number: int, root: Path, folder: Path) -> Scene:
    """An image without its objects. Raises ValueError with what is wrong."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name is {_short(name)}; it must name the image file.")
    if name in names:
        raise ValueError(f"the file {name!r} occurs twice; list each image once.")
    problem = size_problem(row.get("height"), row.get("width"))
    if problem is not None:
        raise ValueError(problem)
    place = inside(root, name, folder)
    names.add(name)
    return Scene(str(place), int(row["height"]), int(row["width"]), id=number)


def _get(row: Any, key: str) -> Any:
    return row.get(key) if isinstance(row, dict) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _short(value: Any) -> str:
    """A value of a file in a message, which stays one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
