"""LabelMe's json: a file for each image, beside it. Wada, "labelme", https://github.com/wkentaro/labelme

Rectangles become boxes, polygons outlines (those of one `group_id` and label are parts of one object), circles and
masks pixels. Lines and points, which cover nothing, are refused.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus.data.dataset import DataError
from nexus.data.detection.scene import Annotations, Polygons, Report, Scene
from nexus.data.detection.sniff import kind_of_file
from nexus.data.detection.tools import (
    Sheet,
    ellipse,
    get,
    image_folders,
    nothing,
    outline_of,
    placed,
    points_of,
    relative_folder,
    side_of,
    upright,
)
from nexus.data.documents import read_json
from nexus.data.images import ImageError, as_array, load_image
from nexus.data.places import split_of, walk


def labelme_files(path: Path) -> dict[str | None, list[Path]]:
    """The files of each split: of folders that are called as splits are, or of None."""
    files = [path] if path.is_file() else [file for file in walk(path, [".json"]) if kind_of_file(file) == "labelme"]
    if not files:
        raise nothing(path, "json of LabelMe")
    found: dict[str | None, list[Path]] = {}
    for file in files:
        found.setdefault(split_of(relative_folder(file, path)) if path.is_dir() else None, []).append(file)
    return {None: files} if None in found else found


def read_labelme(root: Path, files: Sequence[Path], names: Sequence[str], report: Report) -> Annotations:
    """Returns the annotations of files below a root.

    Args:
        root: The data set's folder.
        files: Of one split.
        names: Classes that other splits have.
        report: Told about each fault.
    """
    sheet = Sheet(root, root, report)
    for file in files:
        sheet.file = file
        try:
            _read(sheet, read_json(file), file)
        except DataError:
            raise
        except ValueError as error:
            sheet.fault("", error)
    return sheet.annotations(names)


def labelme_classes(files: Sequence[Path]) -> list[str]:
    """The names that occur in files; wrong ones are passed over here and named by `read_labelme`."""
    found = set()
    for file in files:
        content = read_json(file)
        shapes = content.get("shapes") if isinstance(content, dict) else None
        for shape in shapes if isinstance(shapes, list) else ():
            label = shape.get("label") if isinstance(shape, dict) else None
            if isinstance(label, str) and label.strip() and label.isprintable():
                found.add(label.strip())
    return sorted(found)


def _read(sheet: Sheet, content: Any, file: Path) -> None:
    scene = sheet.image(
        get(content, "imagePath", str),
        image_folders(file),
        side_of(content, "imageHeight"),
        side_of(content, "imageWidth"),
    )
    groups: dict[tuple[Any, Any], list[Polygons]] = {}
    for place, shape in enumerate(get(content, "shapes", list)):
        where = f"shapes[{place}]"
        try:
            label, group = get(shape, "label", str), shape.get("group_id")
            made = _shape(shape, scene)
            if isinstance(made, Polygons):
                groups.setdefault((label, where if group is None else str(group)), []).append(made)
            else:
                sheet.add(scene, label, made)
        except ValueError as error:
            sheet.fault(where, error)
    for (label, where), parts in groups.items():
        try:
            sheet.add(scene, label, Polygons(tuple(ring for part in parts for ring in part.rings)))
        except ValueError as error:
            sheet.fault(f"the object {label!r} of {where}", error)


def _shape(shape: Mapping[str, Any], scene: Scene) -> Any:
    points, kind = points_of(shape.get("points")), shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) in (2, 4):
        x, y = zip(*points)
        if len(points) == 4 and not (len(set(x)) == len(set(y)) == 2):
            return outline_of(points, scene)
        return upright(min(x), min(y), max(x), max(y))
    if kind in ("polygon", "rotation") and len(points) > 2:
        return outline_of(points, scene)
    if kind == "circle" and len(points) == 2:
        (x, y), (a, b) = points
        radius = ((a - x) ** 2 + (b - y) ** 2) ** 0.5
        return ellipse((x, y), (radius, radius), 0, scene)
    if kind == "mask" and len(points) == 2:
        return _mask(shape.get("mask"), points[0], scene)
    raise ValueError(
        f"a {str(kind)[:80]} of {len(points)} points is not read; draw a rectangle, polygon, circle or mask."
    )


def _mask(text: Any, corner: Sequence[float], scene: Scene) -> Any:
    try:
        image = load_image(
            base64.b64decode(str(text), validate=True), name="the mask", max_pixels=scene.height * scene.width
        )
    except (binascii.Error, ImageError) as error:
        raise ValueError(f"its mask is no image in base64: {error}") from None
    return placed(as_array(image)[..., 0] > 0, round(corner[0]), round(corner[1]), scene)
