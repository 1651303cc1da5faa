"""Pascal VOC's XML: one file per image in `Annotations/`, images in `JPEGImages/`.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010.

Its boxes are pixels counted from 1, the last one included: xmin 1 is the left border. Nothing in a file tells of tools
that count from 0, whose boxes come one pixel too far left and up; their 0 is taken as the border, and is no fault.

What VOC has no place for (outlines, crowds, areas, keypoints) is written as further elements of an object, which other
readers pass over, so that nothing is lost.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

import numpy as np

from nexus.core.config import nearest
from nexus.data.dataset import DataError
from nexus.data.detection.copies import copy_image, write_text
from nexus.data.detection.rle import write_counts
from nexus.data.detection.scene import (
    Annotations,
    Box,
    Fault,
    Mask,
    Object,
    Polygons,
    Report,
    Scene,
    refuse,
)
from nexus.data.detection.values import (
    checked_box,
    checked_runs,
    class_name,
    number_of,
    polygons,
    size_problem,
    visibility_problem,
    whole_text,
)
from nexus.data.documents import read_json, read_text, read_xml
from nexus.data.holding_out import held_out
from nexus.data.images import EXTENSIONS
from nexus.data.places import children, inside, split_folders, split_of, walk

CLASSES = "classes.json"
"""Written beside the folders: names of classes and keypoints in their order, which VOC itself does not keep."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
ANNOTATIONS = "Annotations"
IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "img")


def read_voc(
    root: str | Path, split: str | None = None, class_names: Sequence[str] = (), report: Report = refuse
) -> Annotations:
    """Returns the annotations of a VOC folder.

    Args:
        root: The folder; see `voc_files` for its layouts.
        split: Only the images of this split.
        class_names: Of the objects; without them those of `classes.json`, or all names that occur in any split, sorted.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and object.
    """
    root = Path(root)
    splits = voc_files(root)
    if split is not None and split not in splits:
        there = ", ".join(str(name) for name in splits if name) or "none"
        table = root / "ImageSets" / "Main" / f"{split}.txt"
        raise DataError(f"{root} has no split {split!r} (there are {there}); {table} would list its images by name.")
    trees = {file: tree for file in _every(splits) if (tree := _parse(file, report)) is not None}
    known = _Known(root)
    found = {name for tree in trees.values() for name in _names(tree)}
    names = tuple(class_names) or known.names or tuple(sorted(found))
    chosen = _every(splits) if split is None else splits[split]
    pages = ((_Page(file, root, names, len(known.keypoints), report), trees[file]) for file in chosen if file in trees)
    scenes = [scene for page, tree in pages if (scene := page.scene(tree)) is not None]
    return Annotations(tuple(scenes), names, known.ids, known.keypoints, known.skeleton, known.mirror)


def _has_image_folder(root: Path) -> bool:
    return any(child.name.lower() in IMAGE_FOLDERS for child in children(root))


def voc_files(root: Path) -> dict[str | None, list[Path]]:
    """The annotation files of each split; of the split None where nothing says which is which.

    They lie in `Annotations`, with lists in `ImageSets/Main/<split>.txt`, or in folders that are called as splits are,
    or beside their images.

    Raises:
        DataError: There is none, or a list is not text.
    """
    if root.name.lower() == ANNOTATIONS.lower() and not any(walk(root)) and _has_image_folder(root.parent):
        raise DataError(f"{root} holds annotations without their images.")
    try:
        folders = split_folders(root)
    except ValueError as error:
        raise DataError(str(error)) from None
    folder = next((child for child in children(root) if child.name.lower() == ANNOTATIONS.lower()), None)
    if folder is not None and folder.is_dir():
        files = list(walk(folder, [".xml"]))
        lists = _lists(root)
        return {split: _listed(folder, files, table) for split, table in lists.items()} if lists else {None: files}
    beside = {split: list(walk(place, [".xml"])) for split, place in folders.items()}
    if any(beside.values()):
        return {split: files for split, files in beside.items() if files}
    files = list(walk(root, [".xml"]))
    if not files:
        raise DataError(f"{root} has no annotations of VOC: neither a folder {ANNOTATIONS}/, nor .xml files by images.")
    return {None: files}


def _lists(root: Path) -> dict[str, Path]:
    for folder in (root / "ImageSets" / "Main", root / "ImageSets" / "Segmentation", root / "ImageSets"):
        found: dict[str, Path] = {}
        for file in children(folder):
            split = split_of(file.stem) if file.suffix.lower() == ".txt" else None
            if split in found:
                raise DataError(f"{found[split]} and {file} both list {split!r}; remove or rename one of them.")
            if split is not None:
                found[split] = file
        if found:
            return found
    return {}


def _listed(folder: Path, files: Sequence[Path], table: Path) -> list[Path]:
    """The files that a list names: by their stem or the image's file, and a flag of the class may follow."""
    known = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    found = []
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        whole, word = line.strip(), (line.split() or [""])[0]
        if whole:
            names = [whole, word, *(os.path.splitext(name)[0] for name in (whole, word)), Path(whole).stem]
            file = next((known[name] for name in names if name in known), None)
            found.append(_named(folder, f"{whole}.xml", f"{table}, line {number}") if file is None else file)
    return list(dict.fromkeys(found))


def _named(folder: Path, name: str, where: str) -> Path:
    try:
        return inside(folder, name)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _every(splits: Mapping[str | None, Sequence[Path]]) -> list[Path]:
    return list(dict.fromkeys(file for files in splits.values() for file in files))


def _names(tree: XML.Element) -> list[str]:
    names = []
    for item in tree.iterfind("object/name"):
        with contextlib.suppress(ValueError):
            names.append(class_name(item.text))
    return names


class _Known:
    """What `classes.json` keeps: names in their order, numbers, keypoints."""

    def __init__(self, root: Path) -> None:
        path = root / CLASSES
        stored = read_json(path) if path.is_file() else {}
        stored = stored if isinstance(stored, dict) else {"names": None}
        try:
            self.names = tuple(class_name(name) for name in _list(stored, "names"))
            self.ids = tuple(int(number) for number in _list(stored, "ids"))
            self.keypoints = tuple(class_name(name) for name in _list(stored, "keypoints"))
            self.mirror = tuple(int(place) for place in _list(stored, "mirror"))
            self.skeleton = tuple((int(a), int(b)) for a, b in _list(stored, "skeleton"))
            if (self.ids and len(self.ids) != len(self.names)) or len(set(self.names)) < len(self.names):
                raise ValueError("names and ids must be as many, and differ")
            if self.mirror and sorted(self.mirror) != list(range(len(self.keypoints))):
                raise ValueError("mirror does not give each keypoint another")
            if any(not 0 <= one < len(self.keypoints) for pair in self.skeleton for one in pair):
                raise ValueError("skeleton joins keypoints that do not exist")
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is not as convert writes it: {error}; correct it or remove it.") from None


def _list(stored: Mapping[str, Any], key: str) -> list[Any]:
    value = stored.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} is no list")
    return value


def write_voc(annotations: Annotations, root: str | Path) -> Path:
    """Writes `Annotations/`, `JPEGImages/` (copies), `ImageSets/Main/` and `classes.json`. Returns the folder.

    Raises:
        DataError: Two images have one name.
    """
    return write_voc_splits({None: annotations}, root)


def write_voc_splits(splits: Mapping[str | None, Annotations], root: str | Path) -> Path:
    """Writes several splits of one data set, each listed in `ImageSets/Main`; see `write_voc`.

    Of the split None about one image in five is listed as held out.
    """
    root = Path(root)
    written: dict[str, str] = {}
    for split, annotations in splits.items():
        for scene in annotations.scenes:
            image = Path(scene.path)
            if image.stem in written:
                raise DataError(f"{scene.path} and {written[image.stem]} would share {image.stem}.xml; rename one.")
            written[image.stem] = scene.path
            copy_image(scene, root, root / "JPEGImages" / image.name)
            text = XML.tostring(_page(scene, annotations.class_names), encoding="unicode")
            write_text(root, root / ANNOTATIONS / f"{image.stem}.xml", text + "\n")
        _write_lists(root, split, [Path(scene.path).stem for scene in annotations.scenes])
    first = next(iter(splits.values()))
    known = {
        "names": first.class_names,
        "ids": first.class_ids,
        "keypoints": first.keypoint_names,
        "skeleton": first.skeleton,
        "mirror": first.mirror,
    }
    write_text(root, root / CLASSES, json.dumps(known, ensure_ascii=False, indent=2) + "\n")
    return root


def _write_lists(root: Path, split: str | None, names: Sequence[str]) -> None:
    held = held_out(names) if split is None else [split == "val"] * len(names)
    lists = {"train": False, "val": True} if split is None else {split: split == "val"}
    for name, wanted in lists.items():
        chosen = "".join(f"{one}\n" for one, side in zip(names, held) if side == wanted)
        if chosen:
            write_text(root, root / "ImageSets" / "Main" / f"{name}.txt", chosen)


def _page(scene: Scene, class_names: Sequence[str]) -> XML.Element:
    page = XML.Element("annotation")
    _add(page, "folder", "JPEGImages")
    _add(page, "filename", Path(scene.path).name)
    if scene.id is not None:
        _add(page, "id", scene.id)
    size = XML.SubElement(page, "size")
    for key, value in (("width", scene.width), ("height", scene.height), ("depth", 3)):
        _add(size, key, value)
    for one in scene.objects:
        item = XML.SubElement(page, "object")
        _add(item, "name", class_names[one.label])
        _add(item, "difficult", int(one.difficult))
        box = XML.SubElement(item, "bndbox")
        for key, value in zip(SIDES, one.box):
            _add(box, key, _plain(Decimal(repr(value)) + (1 if key.endswith("min") else 0)))
        _add_extras(item, one)
    XML.indent(page)
    return page


def _add_extras(item: XML.Element, one: Object) -> None:
    if one.crowd:
        _add(item, "iscrowd", 1)
    if one.area is not None:
        _add(item, "area", repr(one.area))
    if isinstance(one.mask, Polygons):
        for ring in one.mask.rings:
            _add(item, "polygon", " ".join(map(repr, ring.reshape(-1).tolist())))
    elif one.mask is not None:
        _add(item, "rle", write_counts(one.mask.counts))
    if one.keypoints is not None:
        _add(item, "keypoints", " ".join(map(repr, one.keypoints.reshape(-1).tolist())))


def _add(parent: XML.Element, tag: str, value: object) -> None:
    XML.SubElement(parent, tag).text = str(value)


def _plain(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else str(value)


def _parse(file: Path, report: Report) -> XML.Element | None:
    if not file.exists():
        report(Fault(str(file), "", "the file does not exist, and the split lists it."))
        return None
    try:
        return read_xml(file)
    except DataError as error:
        report(Fault(str(file), "", str(error).removeprefix(f"{file}: ").removeprefix(f"{file} ")))
    return None


class _Page:
    """One annotation file."""

    def __init__(self, file: Path, root: Path, class_names: Sequence[str], num_keypoints: int, report: Report) -> None:
        self.file, self.root, self.class_names, self.report = file, root, class_names, report
        self.num_keypoints = num_keypoints

    def fault(self, place: str, problem: str) -> None:
        self.report(Fault(str(self.file), place, problem))

    def scene(self, tree: XML.Element) -> Scene | None:
        sides = [tree.findtext(f"size/{key}") for key in ("height", "width")]
        height, width = (_pixels(side) for side in sides)
        problem = size_problem(height, width)
        if problem is not None:
            return self.fault("size", problem)
        try:
            path = str(self._image((tree.findtext("filename") or "").strip()))
        except ValueError as error:
            return self.fault("filename", str(error))
        number = whole_text(tree.findtext("id"))
        scene = Scene(path, int(height or 0), int(width or 0), id=number)
        objects = [self._object(place, item, scene) for place, item in enumerate(tree.iterfind("object"))]
        return replace(scene, objects=tuple(one for one in objects if one is not None))

    def _image(self, name: str) -> Path:
        """The image that the page is about: of the name that it gives, else of its own."""
        above = self.file.parent.parent if self.file.parent.name.lower() == ANNOTATIONS.lower() else self.file.parent
        folders = [child for child in children(above) if child.name.lower() in IMAGE_FOLDERS and child.is_dir()]
        folders += [self.file.parent] if self.file.parent == above else [above, self.file.parent]
        if not name:
            raise ValueError("it is missing; it must name the image file.")
        places = [inside(self.root, name, folder) for folder in folders]
        beside = [folder / f"{self.file.stem}{ending}" for folder in folders for ending in sorted(EXTENSIONS)]
        return next((place for place in (*places, *beside) if place.is_file()), places[0])

    def _object(self, place: int, item: XML.Element, scene: Scene) -> Object | None:
        where = f"object {place} ({str(item.findtext('name'))[:40]})"
        try:
            name = class_name(item.findtext("name")) if item.findtext("name") else None
            if name is None or name not in self.class_names:
                hint = nearest(name, self.class_names) if name else "An object needs a name."
                raise ValueError(f"there is no class {name!r}. {hint}")
            mask, box = self._mask(item, scene), self._box(item, scene)
            keypoints = self._keypoints(item)
            area = None if item.find("area") is None else number_of(item.findtext("area"))
        except ValueError as error:
            return self.fault(where, str(error))
        flags = [(item.findtext(key) or "0").strip() in ("1", "true", "True") for key in ("iscrowd", "difficult")]
        return Object(list(self.class_names).index(name), box, mask, keypoints, flags[0], area, flags[1])

    def _box(self, item: XML.Element, scene: Scene) -> Box:
        if item.find("robndbox") is not None:
            raise ValueError("its robndbox is a turned box, which is not read; draw it upright, or as a polygon.")
        texts = {side: item.findtext(f"bndbox/{side}") for side in SIDES}
        missing = [side for side, text in texts.items() if text is None]
        if missing:
            raise ValueError(f"its bndbox lacks {', '.join(missing)}.")
        try:
            x1, y1, x2, y2 = (Decimal(str(text).strip()) for text in texts.values())
        except InvalidOperation:
            raise ValueError(f"its bndbox {list(texts.values())} is not made of numbers.") from None
        # Some tools count from 0: their boxes at the border begin one pixel outside.
        left, top = (0.0 if 0 <= side < 1 else float(side - 1) for side in (x1, y1))
        return checked_box((left, top, float(x2), float(y2)), scene)

    def _mask(self, item: XML.Element, scene: Scene) -> Mask | None:
        rings = [_ring(ring) for ring in item.iterfind("polygon")]
        if any(rings):
            return polygons([ring for ring in rings if ring], scene)
        text = item.findtext("rle")
        return None if text is None else checked_runs(text.strip(), scene.height, scene.width)

    def _keypoints(self, item: XML.Element) -> np.ndarray | None:
        text = item.findtext("keypoints")
        if text is None:
            return None
        numbers = [number_of(word) for word in text.split()]
        if len(numbers) != 3 * self.num_keypoints:
            raise ValueError(f"its keypoints are {len(numbers)} numbers; {CLASSES} names {self.num_keypoints}.")
        points = np.array(numbers).reshape(-1, 3)
        problem = visibility_problem(points)
        if problem is not None:
            raise ValueError(problem)
        return points


def _ring(item: XML.Element) -> list[float]:
    """The numbers x, y, x, y, ... of an outline: in a text, or in elements x1, y1, x2, y2, ..."""
    texts = (item.text or "").split() or [child.text or "" for child in item]
    if not (item.text or "").strip() and len(item):
        wanted = [f"{axis}{place}" for place in range(1, len(item) // 2 + 1) for axis in "xy"]
        if [child.tag for child in item] != wanted:
            raise ValueError("its polygon is not made of x1, y1, x2, y2, ... in this order.")
    return [number_of(word) for word in texts]


def _pixels(text: str | None) -> int | float | str | None:
    """A side of an image; some tools write 64.0."""
    try:
        return None if text is None else number_of(text.strip())
    except ValueError:
        return text
