"""CVAT's xml 1.1, for images and for video. https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/

Tracks become objects in each frame that has an image (`images/frame_000012.png`): where an object is "outside" it is
not there, and between two keyframes of a box it moves evenly. Turned boxes become outlines, ellipses and masks pixels;
lines, points, skeletons and cuboids are refused.
"""

import bisect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

import numpy as np

from nexus.data.dataset import DataError
from nexus.data.detection.scene import Annotations, Box, Report, Scene
from nexus.data.detection.sniff import kind_of_file
from nexus.data.detection.tools import Sheet, ellipse, image_folders, nothing, outline_of, placed, turned_box
from nexus.data.detection.values import number_of, whole_text
from nexus.data.documents import read_xml
from nexus.data.places import split_of, walk

DRAWN = ("box", "polygon", "ellipse", "mask")
ROW = 10_000_000
"""Largest number of a frame; a day of video at 60 frames a second has 5 million."""


def cvat_files(path: Path) -> dict[str | None, list[Path]]:
    """The files of each split: named by their folder, or by the images' `subset` where there is one file."""
    files = [path] if path.is_file() else [file for file in walk(path, [".xml"]) if kind_of_file(file) == "cvat"]
    if not files:
        raise nothing(path, "xml of CVAT")
    named = {file: split_of(file.parent.name) or split_of(file.stem) for file in files}
    if len(files) > 1 and len(set(named.values())) == len(files) and None not in named.values():
        return {split: [file] for file, split in named.items()}
    if len(files) == 1:
        images = read_xml(files[0]).iterfind("image")
        subsets = {split_of(image.get("subset", "")) for image in images}
        return dict.fromkeys(sorted(filter(None, subsets)), files) if subsets and None not in subsets else {None: files}
    return {None: files}


def read_cvat(root: Path, files: Sequence[Path], split: str | None, report: Report) -> Annotations:
    """Returns the annotations of files; of the images of one subset where a file has several.

    Args:
        root: The data set's folder.
        files: Of the split.
        split: Which images.
        report: Told about each fault.
    """
    sheet, names = Sheet(root, root, report), set()
    for file in files:
        sheet.file, tree = file, read_xml(file)
        names |= {str(name.text).strip() for name in tree.iterfind("meta//labels/label/name") if name.text}
        for image in tree.iterfind("image"):
            if split is None or split_of(image.get("subset") or split) == split:
                _image(sheet, image, file)
        _tracks(sheet, tree, file)
    return sheet.annotations(names)


def _image(sheet: Sheet, image: XML.Element, file: Path) -> None:
    where = f"the image {image.get('name')!r}"
    try:
        scene = sheet.image(
            image.get("name"), image_folders(file), whole_text(image.get("height")), whole_text(image.get("width"))
        )
    except ValueError as error:
        sheet.fault(where, error)
        return
    for place, item in enumerate(child for child in image if child.tag != "tag"):
        try:
            sheet.add(scene, item.get("label"), _shape(item, scene))
        except ValueError as error:
            sheet.fault(f"{where}, {item.tag} {place}", error)


def _shape(item: XML.Element, scene: Scene) -> Any:
    turn = number_of(item.get("rotation") or 0)
    if item.tag == "box":
        x1, y1, x2, y2 = _corners(item)
        return turned_box((x1, y1), (x2 - x1, y2 - y1), turn, scene, "centre")
    if item.tag == "polygon":
        pairs = [pair.split(",") for pair in (item.get("points") or "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("its points are not written x,y;x,y;...")
        return outline_of([[number_of(side) for side in pair] for pair in pairs], scene)
    if item.tag == "ellipse":
        cx, cy, rx, ry = (number_of(item.get(key)) for key in ("cx", "cy", "rx", "ry"))
        return ellipse((cx, cy), (rx, ry), turn, scene)
    if item.tag == "mask":
        return _mask(item, scene)
    raise ValueError(f"a {item.tag} is not read; draw one of {', '.join(DRAWN)}.")


def _corners(item: XML.Element) -> Box:
    x1, y1, x2, y2 = (number_of(item.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
    return x1, y1, x2, y2


def _mask(item: XML.Element, scene: Scene) -> Any:
    """Runs along the rows of a part of the image; the first counts pixels outside."""
    sides = [whole_text(item.get(key)) for key in ("left", "top", "width", "height")]
    runs = [whole_text(run) for run in (item.get("rle") or "").split(",")]
    if None in sides or None in runs:
        raise ValueError("its left, top, width, height and rle must be whole numbers.")
    left, top, width, height = (int(side or 0) for side in sides)
    counts = [int(run or 0) for run in runs]
    if width > scene.width or height > scene.height or sum(counts) != width * height:
        raise ValueError(f"its runs add up to {sum(counts)}; its part of the image has {width} x {height} pixels.")
    part = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return placed(part, left, top, scene)


def _tracks(sheet: Sheet, tree: XML.Element, file: Path) -> None:
    tracks = list(tree.iterfind("track"))
    frames = _frames(file) if tracks else {}
    for place, track in enumerate(tracks):
        where = f"track {track.get('id', place)}"
        seen = 0
        try:
            for number, item in _visible(track, frames):
                scene = sheet.image(str(frames[number].relative_to(sheet.root)), [sheet.root])
                sheet.add(scene, track.get("label"), item if isinstance(item, tuple) else _shape(item, scene))
                seen += 1
        except ValueError as error:
            sheet.fault(f"{where}, after {seen} frames", error)
    if tracks and not frames:
        raise DataError(
            f"{file} has tracks, and there is no image frame_000000.png, ... beside it or in images/; add them."
        )


def _frames(file: Path) -> dict[int, Path]:
    """The images of a video's frames by number."""
    found: dict[int, Path] = {}
    for folder in image_folders(file):
        for image in walk(folder) if folder != file.parent or not (folder / "images").is_dir() else ():
            match = re.fullmatch(r"(?:frame_?)?(\d{1,8})", image.stem, re.IGNORECASE)
            if match:
                found.setdefault(int(match[1]), image)
    return found


def _visible(track: XML.Element, frames: dict[int, Path]) -> Iterator[tuple[int, XML.Element | Box]]:
    """The frames in which the object of a track is to be seen, each with its shape."""
    items = []
    for item in track:
        number = whole_text(item.get("frame"))
        if number is None or number > ROW:
            raise ValueError(f"a frame is {item.get('frame')!r}; it must be a whole number.")
        items.append((number, item))
    items.sort(key=lambda pair: pair[0])
    order = sorted(frames)
    following = [*items[1:], *items[-1:]]  # nothing lies between the last one and itself
    for (number, item), (until, after) in zip(items, following):
        if item.get("outside") == "1":
            continue
        if number not in frames:
            raise ValueError(f"there is no image of frame {number}.")
        yield number, item
        between = order[bisect.bisect_right(order, number) : bisect.bisect_left(order, until)]
        if between and item.tag != "box":
            raise ValueError(f"frames {number} and {until} are keyframes of a {item.tag}; export every frame.")
        for one in between:
            yield one, _moved(item, after, (one - number) / (until - number))


def _moved(first: XML.Element, last: XML.Element, share: float) -> Box:
    if number_of(first.get("rotation") or 0) or number_of(last.get("rotation") or 0):
        raise ValueError("a turned box moves between keyframes; export every frame.")
    x1, y1, x2, y2 = (a + (b - a) * share for a, b in zip(_corners(first), _corners(last)))
    return x1, y1, x2, y2
