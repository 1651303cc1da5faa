"""Pascal VOC's XML: one file per image in `Annotations/`, images in `JPEGImages/`.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010.

Its boxes are pixels counted from 1, the last one included. What VOC has no place for (outlines, crowds, areas,
keypoints) is written as further elements of an object, which other readers pass over, so that nothing is lost.
"""

import json
import shutil
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from xml.etree import ElementTree as XML

import numpy as np

from nexus.core.config import nearest
from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, read_counts, write_counts
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

CLASSES = "classes.json"
"""Written beside the folders: names of classes and keypoints in their order, which VOC itself does not keep."""

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    root: str | Path, split: str | None = None, class_names: Sequence[str] = (), report: Report = refuse
) -> Annotations:
    """Returns the annotations of a VOC folder.

    Args:
        root: The folder that holds `Annotations` and `JPEGImages`.
        split: Only the images that `ImageSets/Main/<split>.txt` lists.
        class_names: Of the objects; without them those of `classes.json`, or all names that occur, sorted.
        report: Told about each fault; what a fault spoils is left out.

    Raises:
        DataError: There is a fault, and `report` is not given; the message names file and object.
    """
    root = Path(root)
    files = _files(root, split)
    trees = [(file, tree) for file in files if (tree := _parse(file, report)) is not None]
    stored = json.loads((root / CLASSES).read_text(encoding="utf-8")) if (root / CLASSES).is_file() else {}
    found = {str(name.text) for _, tree in trees for name in tree.iterfind("object/name") if name.text}
    names = tuple(class_names) or tuple(stored.get("names", ())) or tuple(sorted(found))
    scenes = [scene for file, tree in trees if (scene := _Page(file, root, names, report).scene(tree)) is not None]
    return Annotations(
        tuple(scenes),
        names,
        tuple(stored.get("ids", ())),
        tuple(stored.get("keypoints", ())),
        tuple((a, b) for a, b in stored.get("skeleton", ())),
    )


def write_voc(annotations: Annotations, root: str | Path) -> Path:
    """Writes `Annotations/`, `JPEGImages/` (copies) and `classes.json`. Returns the folder.

    Raises:
        DataError: Two images have one name.
    """
    root = Path(root)
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "JPEGImages").mkdir(exist_ok=True)
    written: dict[str, str] = {}
    for scene in annotations.scenes:
        image = Path(scene.path)
        if image.stem in written:
            raise DataError(f"{scene.path} and {written[image.stem]} would share {image.stem}.xml; rename one.")
        written[image.stem] = scene.path
        target = root / "JPEGImages" / image.name
        if not target.exists() or not target.samefile(image):
            shutil.copyfile(image, target)
        text = XML.tostring(_page(scene, annotations.class_names), encoding="unicode")
        _write(root / "Annotations" / f"{image.stem}.xml", text + "\n")
    known = {
        "names": annotations.class_names,
        "ids": annotations.class_ids,
        "keypoints": annotations.keypoint_names,
        "skeleton": annotations.skeleton,
    }
    _write(root / CLASSES, json.dumps(known, ensure_ascii=False, indent=2) + "\n")
    return root


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


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


def _files(root: Path, split: str | None) -> list[Path]:
    folder = root / "Annotations"
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; a VOC data set has Annotations/ and JPEGImages/ side by side.")
    if split is None:
        return sorted(folder.glob("*.xml"))
    table = root / "ImageSets" / "Main" / f"{split}.txt"
    if not table.is_file():
        raise DataError(f"{table} does not exist; it lists the images of the split {split!r}, one name per line.")
    names = [line.split()[0] for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [folder / f"{name}.xml" for name in names]


def _parse(file: Path, report: Report) -> XML.Element | None:
    try:
        data = file.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("it declares entities, which annotations do not need; remove the DOCTYPE")
        return XML.fromstring(data)  # noqa: S314  entities, the danger of XML, are refused above
    except FileNotFoundError:
        report(Fault(str(file), "", "the file does not exist, and the split lists it."))
    except (XML.ParseError, ValueError) as error:
        report(Fault(str(file), "", f"it is not XML ({error})."))
    return None


class _Page:
    """One annotation file."""

    def __init__(self, file: Path, root: Path, class_names: Sequence[str], report: Report) -> None:
        self.file, self.root, self.class_names, self.report = file, root, class_names, report

    def fault(self, place: str, problem: str) -> None:
        self.report(Fault(str(self.file), place, problem))

    def scene(self, tree: XML.Element) -> Scene | None:
        name, sides = tree.findtext("filename"), [tree.findtext(f"size/{key}") for key in ("height", "width")]
        if not name:
            return self.fault("filename", "it is missing; it must name the image file.")
        if not all(side is not None and side.strip().isdigit() and int(side) > 0 for side in sides):
            return self.fault("size", f"height and width are {sides[0]!r} and {sides[1]!r}; they must be above 0.")
        height, width = (int(str(side)) for side in sides)
        number = tree.findtext("id")
        path = str(self.root / "JPEGImages" / name)
        scene = Scene(path, height, width, id=int(number) if number and number.isdigit() else None)
        objects = [self._object(place, item, scene) for place, item in enumerate(tree.iterfind("object"))]
        return Scene(path, height, width, tuple(one for one in objects if one is not None), scene.id)

    def _object(self, place: int, item: XML.Element, scene: Scene) -> Object | None:
        name = item.findtext("name")
        where = f"object {place} ({name})"
        if name is None or name not in self.class_names:
            hint = nearest(name, self.class_names) if name else "An object needs a name."
            return self.fault(where, f"there is no class {name!r}. {hint}")
        try:
            box = self._box(item)
            problem = box_problem(box, scene.height, scene.width)
            if problem is not None:
                raise ValueError(problem)
            mask, keypoints = self._mask(item, scene), _numbers(item.findtext("keypoints"), 3)
            area = item.findtext("area")
            area = None if area is None else float(area)
        except ValueError as error:
            return self.fault(where, str(error))
        flags = [item.findtext(key, "0").strip() in ("1", "true", "True") for key in ("iscrowd", "difficult")]
        label = list(self.class_names).index(name)
        return Object(label, box, mask, keypoints, flags[0], area, flags[1])

    def _box(self, item: XML.Element) -> Box:
        texts = {side: item.findtext(f"bndbox/{side}") for side in SIDES}
        missing = [side for side, text in texts.items() if text is None]
        if missing:
            raise ValueError(f"its bndbox lacks {', '.join(missing)}.")
        try:
            x1, y1, x2, y2 = (Decimal(str(text).strip()) for text in texts.values())
        except InvalidOperation:
            raise ValueError(f"its bndbox {list(texts.values())} is not made of numbers.") from None
        return float(x1 - 1), float(y1 - 1), float(x2), float(y2)

    def _mask(self, item: XML.Element, scene: Scene) -> Mask | None:
        rings = [_numbers(ring.text, 2) for ring in item.iterfind("polygon") if ring.text and ring.text.strip()]
        if rings:
            return Polygons(tuple(ring for ring in rings if ring is not None))
        text = item.findtext("rle")
        if text is None:
            return None
        counts = read_counts(text)
        if (counts < 0).any() or counts.sum() != scene.height * scene.width:
            raise ValueError(f"its runs add up to {int(counts.sum())}, not to the pixels of the image.")
        return RLE(scene.height, scene.width, counts)


def _numbers(text: str | None, columns: int) -> np.ndarray | None:
    if text is None:
        return None
    try:
        return np.array([float(word) for word in text.split()]).reshape(-1, columns)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a list of numbers in groups of {columns}.") from None
