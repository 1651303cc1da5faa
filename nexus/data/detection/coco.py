"""COCO's json: boxes, polygons, runs of both kinds, keypoints and crowds.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014. https://arxiv.org/abs/1405.0312
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, read_counts
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


def read_coco(path: str | Path, images: str | Path | None = None, report: Report = refuse) -> Annotations:
    """Returns the annotations of a COCO file.

    Args:
        path: The json file.
        images: Folder that `file_name` starts from; None is that of the file, or its `images` where there is one.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and annotation.
    """
    path = Path(path)
    content = _load(path)
    folder = Path(images) if images is not None else _image_folder(path)
    reader = _Reader(str(path), report)
    classes = reader.categories(content["categories"])
    scenes = reader.images(content["images"], folder)
    objects = reader.objects(content["annotations"], scenes, classes)
    body = next((one for one in content["categories"] if isinstance(one, dict) and one.get("keypoints")), {})
    pairs = tuple((int(a) - 1, int(b) - 1) for a, b in body.get("skeleton", ()))
    return Annotations(
        tuple(
            Scene(scene.path, scene.height, scene.width, tuple(objects.get(number, ())), number)
            for number, scene in scenes.items()
        ),
        tuple(str(one["name"]) for one in classes.values()),
        tuple(classes),
        tuple(map(str, body.get("keypoints", ()))),
        pairs,
    )


def write_coco(annotations: Annotations, path: str | Path, images: str | Path | None = None) -> Path:
    """Writes a COCO file; numbers of annotations count from 1. Returns its path.

    Args:
        annotations: What to write.
        path: The json file.
        images: Folder that the written `file_name` starts from; None is as in `read_coco`.
    """
    path = Path(path)
    folder = Path(images) if images is not None else _image_folder(path)
    rows = []
    for number, scene in _numbered(annotations.scenes):
        for one in scene.objects:
            rows.append({"id": len(rows) + 1, "image_id": number, **_annotation(scene, one, annotations)})
    categories: list[dict[str, Any]] = []
    for number, name in zip(annotations.class_ids, annotations.class_names):
        categories.append({"id": number, "name": name})
        if annotations.keypoint_names:
            categories[-1]["keypoints"] = list(annotations.keypoint_names)
            categories[-1]["skeleton"] = [[a + 1, b + 1] for a, b in annotations.skeleton]
    places = [
        {"id": number, "file_name": _relative(scene.path, folder), "height": scene.height, "width": scene.width}
        for number, scene in _numbered(annotations.scenes)
    ]
    text = json.dumps({"images": places, "annotations": rows, "categories": categories})
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def _numbered(scenes: Sequence[Scene]) -> list[tuple[int, Scene]]:
    """Scenes with their numbers; those of the file they came from if all have one and no two the same."""
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); export it again.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}; a COCO file is an object with images, annotations, categories."
            + (" A list of results is read by nexus.tasks.detection.coco_results." if isinstance(content, list) else "")
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path}: {key} is missing or no list; a COCO file has images, annotations, categories.")
    return content


def _image_folder(path: Path) -> Path:
    return path.parent / "images" if (path.parent / "images").is_dir() else path.parent


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(path).absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return path


class _Reader:
    """Reads the three lists and tells `report` about what is wrong in them."""

    def __init__(self, file: str, report: Report) -> None:
        self.file, self.report = file, report
        self.spoiled: set[int] = set()  # images that are there, and left out for a fault of their own

    def fault(self, place: str, problem: str) -> None:
        self.report(Fault(self.file, place, problem))

    def categories(self, rows: Sequence[Any]) -> dict[int, Mapping[str, Any]]:
        found: dict[int, Mapping[str, Any]] = {}
        for place, row in enumerate(rows):
            where = f"categories[{place}]"
            number = _get(row, "id")
            if not _is_int(number):
                self.fault(where, f"id is {number!r}; it must be a whole number.")
            elif not isinstance(_get(row, "name"), str) or not row["name"]:
                self.fault(where, f"name is {_get(row, 'name')!r}; a class needs a name.")
            elif number in found:
                self.fault(where, f"id {number} is that of {found[number]['name']!r} too; ids must differ.")
            elif row["name"] in [one["name"] for one in found.values()]:
                self.fault(where, f"the name {row['name']!r} occurs twice; names must differ.")
            else:
                found[number] = row
        return dict(sorted(found.items()))

    def images(self, rows: Sequence[Any], folder: Path) -> dict[int, Scene]:
        found: dict[int, Scene] = {}
        names: set[str] = set()
        for place, row in enumerate(rows):
            number, name = _get(row, "id"), _get(row, "file_name")
            where = f"images[{place}]" + (f" (id {number})" if _is_int(number) else "")
            sides = [_get(row, key) for key in ("height", "width")]
            before = len(found)
            if not _is_int(number):
                self.fault(where, f"id is {number!r}; it must be a whole number.")
            elif number in found:
                self.fault(where, f"id {number} is that of {found[number].path} too; ids must differ.")
            elif not isinstance(name, str) or not name:
                self.fault(where, f"file_name is {name!r}; it must name the image file.")
            elif name in names:
                self.fault(where, f"the file {name!r} occurs twice; list each image once.")
            elif not all(_is_int(side) and side > 0 for side in sides):
                self.fault(where, f"height and width are {sides[0]!r} and {sides[1]!r}; they must be pixels above 0.")
            else:
                names.add(name)
                found[number] = Scene(str(folder / name), sides[0], sides[1], id=number)
            if len(found) == before and _is_int(number):
                self.spoiled.add(number)
        return found

    def objects(
        self, rows: Sequence[Any], scenes: Mapping[int, Scene], classes: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, list[Object]]:
        labels = {number: label for label, number in enumerate(classes)}
        found: dict[int, list[Object]] = {}
        seen: set[int] = set()
        for place, row in enumerate(rows):
            number, image, kind = (_get(row, key) for key in ("id", "image_id", "category_id"))
            where = f"annotations[{place}]" + (f" (id {number})" if _is_int(number) else "")
            if not isinstance(row, dict):
                self.fault(where, f"it is {row!r}; an annotation is an object.")
                continue
            if number is not None and not _is_int(number):
                self.fault(where, f"id is {number!r}; it must be a whole number.")
            elif number in seen:
                self.fault(where, f"id {number} occurs twice; ids must differ.")
            seen.add(number)
            if _is_int(image) and image in self.spoiled - scenes.keys():
                continue
            if not _is_int(image) or image not in scenes:
                self.fault(where, f"image_id is {image!r}, and no image has that id.")
            elif not _is_int(kind) or kind not in labels:
                known = f"{min(labels)} to {max(labels)}" if labels else "none"
                self.fault(where, f"category_id is {kind!r}, and no category has that id (there are {known}).")
            else:
                one = self._object(where, row, scenes[image], labels[kind], classes[kind])
                if one is not None:
                    found.setdefault(image, []).append(one)
        return found

    def _object(
        self, where: str, row: Mapping[str, Any], scene: Scene, label: int, kind: Mapping[str, Any]
    ) -> Object | None:
        crowd, area = row.get("iscrowd", 0), row.get("area")
        if crowd not in (0, 1):
            self.fault(where, f"iscrowd is {crowd!r}; it must be 0 or 1.")
        if area is not None and not (_is_number(area) and area >= 0):
            self.fault(where, f"area is {area!r}; it must be a number of square pixels, 0 or more.")
            area = None
        mask = self._mask(where, row.get("segmentation"), scene)
        box = self._box(where, row.get("bbox"), scene, mask)
        if box is None:
            return None
        keypoints = self._keypoints(where, row, kind)
        area = None if area is None else float(area)
        return Object(label, box, mask, keypoints, crowd == 1, area, bool(row.get("difficult", 0)))

    def _box(self, where: str, value: Any, scene: Scene, mask: Mask | None) -> Box | None:
        if value is None and mask is not None:
            whole = scene.rle(Object(0, (0, 0, 1, 1), mask))
            assert whole is not None
            value = [whole.box[0], whole.box[1], whole.box[2] - whole.box[0], whole.box[3] - whole.box[1]]
        if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
            self.fault(where, f"bbox is {value!r}; it must be four numbers: left, top, width, height.")
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
        if value is None or value == []:
            return None
        if isinstance(value, dict):
            return self._runs(where, value, scene)
        if not isinstance(value, list):
            self.fault(where, f"segmentation is a {type(value).__name__}; it must be polygons (lists) or runs.")
            return None
        rings = []
        for place, ring in enumerate(value):
            problem = ring_problem(ring, scene)
            if problem is not None:
                self.fault(where, f"segmentation[{place}] {problem}")
                return None
            rings.append(np.array(ring, dtype=np.float64).reshape(-1, 2))
        return Polygons(tuple(rings))

    def _runs(self, where: str, value: Mapping[str, Any], scene: Scene) -> RLE | None:
        size, counts = value.get("size"), value.get("counts")
        if size != [scene.height, scene.width]:
            self.fault(where, f"segmentation.size is {size!r}; the image is {[scene.height, scene.width]} (h, w).")
            return None
        try:
            if isinstance(counts, list) and all(map(_is_int, counts)):
                runs = np.array(counts, dtype=np.int64)
            elif isinstance(counts, str):
                runs = read_counts(counts)
            else:
                raise ValueError(f"counts are {str(counts)[:40]!r}; they must be a list of whole numbers, or text")
            if (runs < 0).any():
                raise ValueError(f"counts hold {int(runs.min())}; a run cannot be below 0")
            if runs.sum() != scene.height * scene.width:
                raise ValueError(
                    f"counts add up to {int(runs.sum())}; the image has {scene.height * scene.width} pixels"
                )
        except (ValueError, OverflowError) as error:
            self.fault(where, f"segmentation.{error}.")
            return None
        return RLE(scene.height, scene.width, runs)

    def _keypoints(self, where: str, row: Mapping[str, Any], kind: Mapping[str, Any]) -> np.ndarray | None:
        value = row.get("keypoints")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) % 3 or not all(map(_is_number, value)):
            self.fault(where, "keypoints are not a list of numbers x, y, v, x, y, v, ...")
            return None
        points = np.array(value, dtype=np.float64).reshape(-1, 3)
        wanted = kind.get("keypoints")
        if isinstance(wanted, list) and len(wanted) != len(points):
            self.fault(where, f"there are {len(points)} keypoints; the class {kind['name']!r} has {len(wanted)}.")
            return None
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            self.fault(where, "a keypoint's visibility is neither 0 (not labelled), 1 (hidden) nor 2 (visible).")
            return None
        count, have = row.get("num_keypoints"), int((points[:, 2] > 0).sum())
        if count is not None and count != have:
            self.fault(where, f"num_keypoints is {count!r}, and {have} keypoints are labelled.")
        return points


def ring_problem(ring: Any, scene: Scene) -> str | None:
    """What is wrong with an outline x, y, x, y, ... in pixels, or None. One pixel beyond the border is forgiven."""
    if not isinstance(ring, list) or not all(map(_is_number, ring)):
        return f"is {str(ring)[:40]}; it must be a list of numbers x, y, x, y, ..."
    if len(ring) % 2:
        return f"has {len(ring)} numbers; they come in pairs x, y."
    if len(ring) < 6:
        return f"has {len(ring) // 2} points; an outline needs at least 3."
    points = np.array(ring, dtype=np.float64).reshape(-1, 2)
    if (points < -1).any() or (points > (scene.width + 1, scene.height + 1)).any():
        outside = points[((points < -1) | (points > (scene.width + 1, scene.height + 1))).any(axis=1)][0]
        return f"has the point {outside.tolist()} outside of the image of {scene.width} x {scene.height} pixels."
    return None


def _get(row: Any, key: str) -> Any:
    return row.get(key) if isinstance(row, dict) else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and bool(np.isfinite(float(value)))
