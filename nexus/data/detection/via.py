"""The VGG Image Annotator's json and csv, versions 1 and 2. https://www.robots.ox.ac.uk/~vgg/software/via/

Rectangles become boxes, polygons outlines, circles and ellipses pixels; points and lines are refused. The class is the
region's only attribute, or that of the usual names.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nexus.data.detection.scene import Annotations, Report, Scene
from nexus.data.detection.tools import Sheet, ellipse, get, image_folders, numbers, outline_of
from nexus.data.detection.values import is_number
from nexus.data.documents import parse_json, read_json, read_table

CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "object")

Region = tuple[str, Any, Any]
"""Place, shape attributes, region attributes."""


def read_via(file: Path, root: Path, report: Report) -> Annotations:
    """Returns the annotations of a file; see the module."""
    sheet = Sheet(file, root, report)
    try:
        images = list(_table(file) if file.suffix.lower() == ".csv" else _project(read_json(file)))
    except ValueError as error:
        sheet.fault("", str(error).removeprefix(f"{file}: ").removeprefix(f"{file}, "))
        images = []
    for where, name, regions in images:
        try:
            scene = sheet.image(name, image_folders(file))
        except ValueError as error:
            sheet.fault(where, error)
            continue
        for place, shape, attributes in regions:
            try:
                sheet.add(scene, _class(attributes), _shape(shape, scene))
            except ValueError as error:
                sheet.fault(f"{where}, {place}", error)
    return sheet.annotations()


def _project(content: Any) -> Iterator[tuple[str, Any, list[Region]]]:
    if isinstance(content, Mapping) and "view" in content and "metadata" in content:
        raise ValueError("it is of VIA 3, whose projects are not read; export it as COCO, or as VIA 2.")
    entries = content.get("_via_img_metadata", content) if isinstance(content, Mapping) else None
    if not isinstance(entries, Mapping):
        raise ValueError("it has no images as VIA writes them.")
    for key, entry in entries.items():
        if key.startswith("_via_"):
            continue
        where, regions = f"the image {key[:80]!r}", entry.get("regions") if isinstance(entry, Mapping) else None
        if regions is not None and not isinstance(regions, Mapping | list):
            raise ValueError(f"{where}: its regions are a {type(regions).__name__}; they must be a list.")
        rows = regions.items() if isinstance(regions, Mapping) else enumerate(regions or ())
        found = [(f"region {place}", *_attributes(row)) for place, row in rows]
        yield where, get(entry, "filename", str), found


def _attributes(row: Any) -> tuple[Any, Any]:
    return (row.get("shape_attributes"), row.get("region_attributes")) if isinstance(row, Mapping) else (None, None)


def _table(file: Path) -> Iterator[tuple[str, Any, list[Region]]]:
    """Images by name, each with its lines. A line without a shape is of an image without regions."""
    found: dict[str, list[Region]] = {}
    for where, row in read_table(file, ("filename", "region_shape_attributes", "region_attributes")):
        place = where.removeprefix(f"{file}, ")
        shape, attributes = (
            parse_json(row[key] or "{}", f"{where}, {key}") for key in ("region_shape_attributes", "region_attributes")
        )
        regions = found.setdefault(row["filename"], [])
        if shape:
            regions.append((place, shape, attributes))
    for name, regions in found.items():
        yield f"the image {name[:80]!r}", name, regions


def _class(attributes: Any) -> str:
    given = {key: value for key, value in attributes.items() if value} if isinstance(attributes, Mapping) else {}
    key = next((key for key in CLASS_ATTRIBUTES if key in given), None)
    if key is None and len(given) != 1:
        names = ", ".join(map(str, given))[:80] or "none"
        raise ValueError(f"its attributes are {names}; one must say the class, such as {CLASS_ATTRIBUTES[0]!r}.")
    value = given[key or next(iter(given))]
    if isinstance(value, Mapping):  # boxes to tick
        ticked = [name for name, on in value.items() if on]
        value = ticked[0] if len(ticked) == 1 else None
    if not isinstance(value, str):
        raise ValueError("its class must be one text.")
    return value


def _shape(shape: Any, scene: Scene) -> Any:
    kind = get(shape, "name", str)
    if kind == "rect":
        x, y, w, h = numbers([shape.get(key) for key in ("x", "y", "width", "height")])
        return x, y, x + w, y + h
    if kind == "polygon":
        xs, ys = numbers(shape.get("all_points_x")), numbers(shape.get("all_points_y"))
        if len(xs) != len(ys):
            raise ValueError(f"its outline has {len(xs)} x and {len(ys)} y.")
        return outline_of(list(zip(xs, ys)), scene)
    if kind in ("circle", "ellipse"):
        wanted = ("cx", "cy", "r", "r") if kind == "circle" else ("cx", "cy", "rx", "ry")
        cx, cy, rx, ry = numbers([shape.get(key) for key in wanted])
        turn = shape.get("theta") or 0
        if not is_number(turn) or turn:
            raise ValueError("a turned ellipse is not read: VIA's versions differ in its unit; draw a polygon.")
        return ellipse((cx, cy), (rx, ry), 0, scene)
    raise ValueError(f"a shape {kind[:40]!r} is not read; draw rect, polygon, circle or ellipse.")
