"""Label images: pictures of whole numbers that say of each pixel what it belongs to; 0 is the background.

`label-images` reads a number as one object, whatever it is of. `class-images` reads it as a class: each connected part
(pixels that touch, at a corner too) is an object, and a list beside the folders names the classes.

Masks lie in `masks/` beside `images/` under the names of the images, with endings of their own. Splits are folders
above these two (`train/images`) or inside of both (`images/train`).

Dims: h w pixels, r runs.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image as PIL
from PIL import ImageOps

from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, from_changes
from nexus.data.detection.scene import Annotations, Fault, Object, Report, Scene
from nexus.data.detection.tools import UNLABELLED
from nexus.data.detection.values import class_name, whole_text
from nexus.data.documents import read_json, read_settings, read_text
from nexus.data.images import ImageError, decoding, file_size
from nexus.data.places import children, split_folders, walk

IMAGE_FOLDERS = ("images", "image", "imgs")
MASK_FOLDERS = ("masks", "mask", "labels", "label")
MASK_ENDINGS = frozenset([".png", ".tif", ".tiff", ".bmp", ".gif", ".pgm"])
CLASS_LISTS = ("classes.txt", "classes.json", "classes.yaml", "classes.yml")
VOID = 255
"""In a palette, and among classes that do not name it: pixels that nobody decided, as in Pascal VOC and Cityscapes."""
MAX_OBJECTS, MAX_RUNS = 10_000, 5_000_000
"""Of one label image. Of a photo every pixel is a run of its own."""

Numbers = Int[np.ndarray, "h w"]
Places = dict[str | None, tuple[Path, Path]]


def label_folders(root: Path) -> Places:
    """Returns the folders of images and of masks of each split; of the split None where there is one pair.

    Raises:
        DataError: There are none, or two that could be meant.
    """
    try:
        apart = split_folders(root)
        found: Places = {split: pair for split, folder in apart.items() if (pair := _pair(folder)) is not None}
        if found:
            return found
        pair = _pair(root)
        if pair is None:
            raise DataError(f"{root} has no images/ with masks/ beside it; a mask has the name of its image.")
        images, masks = map(split_folders, pair)
    except ValueError as error:
        raise DataError(str(error)) from None
    if images and images.keys() != masks.keys():
        said = f"{', '.join(sorted(images))} and {', '.join(sorted(masks)) or 'none'}"
        raise DataError(f"{pair[0]} and {pair[1]} have other splits: {said}; give them the same folders.")
    return {split: (folder, masks[split]) for split, folder in images.items()} if images else {None: pair}


def _pair(root: Path) -> tuple[Path, Path] | None:
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    return None if images is None or masks is None else (images, masks)


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    found = [child for child in children(root) if child.name.lower() in names and child.is_dir()]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} could both be meant; keep one of them.")
    return found[0] if found else None


def looks_like_label_images(root: Path) -> bool:
    """Whether a folder holds images with pictures for masks beside them."""
    try:
        return any(next(walk(masks, MASK_ENDINGS), None) is not None for _, masks in label_folders(root).values())
    except DataError:
        return False


def read_classes(root: Path) -> dict[int, str]:
    """Returns the names of numbers: line by line of `classes.txt`, from 1 on, or as `classes.json` or `.yaml` say.

    A first line "background" is of the number 0.

    Raises:
        DataError: Nothing names them, or a name or number is none.
    """
    file = next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)
    if file is None:
        raise DataError(
            f"nothing names the classes of {root}; write {root / CLASS_LISTS[0]}, a name in a line, the first of the"
            f" number 1. If a number is an object and no class, write label-images:{root}."
        )
    rows = _lines_of(file) if file.suffix == ".txt" else _entries_of(file)
    names: dict[int, str] = {}
    for key, value in rows:
        number = whole_text(str(key))
        if number is None or number > 65535:
            raise DataError(f"{file}: {str(key)[:40]!r} is no number of a pixel; write 1 to 65535.")
        try:
            names[number] = class_name(value)
        except ValueError as error:
            raise DataError(f"{file}: the class {number} is {error}") from None
    names.pop(0, None)
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None or not names:
        raise DataError(f"{file} names {'no class' if twice is None else f'{twice!r} twice'}; names must differ.")
    return dict(sorted(names.items()))


def _lines_of(file: Path) -> Iterable[tuple[object, object]]:
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return enumerate(lines, start=0 if lines and lines[0].lower().strip("_") == "background" else 1)


def _entries_of(file: Path) -> Iterable[tuple[object, object]]:
    content = read_json(file) if file.suffix == ".json" else read_settings(file)
    if not isinstance(content, Mapping):
        raise DataError(f'{file} must name numbers, as in {{"1": "cat", "2": "dog"}}.')
    return content.items()


def read_label_images(images: Path, masks: Path, classes: Mapping[int, str] | None, report: Report) -> Annotations:
    """Returns the objects of each image.

    Args:
        images: The folder of the images.
        masks: The folder of the masks.
        classes: Names of numbers that are classes; None where a number is an object.
        report: Told about each fault.
    """
    scenes, drawn = [], _by_stem(masks, MASK_ENDINGS, report)
    pictures = _by_stem(images, None, report)
    for stem in [one for one in drawn if one not in pictures]:
        report(
            Fault(str(drawn[stem]), "", f"there is no image {stem!r} in {images} for it; add it, or remove the mask.")
        )
    names = (UNLABELLED,) if classes is None else tuple(classes.values())
    labels = None if classes is None else {number: place for place, number in enumerate(classes)}
    for stem, path in pictures.items():
        if stem not in drawn:
            said = f"there is no mask {stem}.png in {masks} for it; add one, all 0 where nothing is in the image."
            report(Fault(str(path), "", said))
            continue
        try:
            scenes.append(_scene(path, drawn[stem], labels))
        except ValueError as error:
            report(Fault(str(drawn[stem]), "", str(error).removeprefix(f"{drawn[stem]}").removeprefix(":").strip()))
    return Annotations(tuple(scenes), names)


def _by_stem(folder: Path, endings: Iterable[str] | None, report: Report) -> dict[str, Path]:
    """The pictures below a folder by their path in it, without ending."""
    found: dict[str, Path] = {}
    for path in walk(folder) if endings is None else walk(folder, endings):
        stem = os.path.splitext(os.path.relpath(path, folder))[0]
        if stem in found:
            report(Fault(str(path), "", f"{found[stem]} has the same name; remove one of them."))
        found.setdefault(stem, path)
    return found


def _scene(image: Path, mask: Path, labels: Mapping[int, int] | None) -> Scene:
    height, width = file_size(image)
    numbers, void = read_numbers(mask)
    if numbers.shape != (height, width):
        raise ValueError(
            f"it has {numbers.shape[1]} x {numbers.shape[0]} pixels, and its image {image} {width} x {height}"
            " (width x height); a label image has the size of its image."
        )
    named = VOID if void or (labels is not None and VOID not in labels) else 0
    found = masks_of_numbers(numbers, void=named, parts=labels is not None)
    unknown = sorted({number for number, _ in found if labels is not None and number not in labels})
    if unknown:
        raise ValueError(f"it has the number {unknown[0]}, which no class has; name it in {CLASS_LISTS[0]}.")
    objects = [Object(0 if labels is None else labels[number], rle.box, rle) for number, rle in found]
    return Scene(str(image), height, width, tuple(objects))


def read_numbers(path: Path) -> tuple[Numbers, bool]:
    """Returns the numbers of the pixels, upright, and whether they are colours of a palette, where 255 is void.

    Raises:
        ImageError: It is no picture, is in colour, holds floats or negative numbers, or blurs them as JPEG does.
    """
    name = str(path)
    file_size(path)  # that it is a picture, and no larger than one may be
    with decoding(name), PIL.open(path, formats=("PNG", "TIFF", "BMP", "GIF", "PPM")) as file:
        upright = ImageOps.exif_transpose(file)
        if upright.mode not in ("1", "L", "P", "I") and not upright.mode.startswith("I;16"):
            kind = "floats" if upright.mode == "F" else f"colours or transparency ({upright.mode})"
            raise ImageError(
                f"it holds {kind}, and a label image one whole number in a pixel; save 8 or 16-bit grey, or a palette."
            )
        numbers = np.asarray(upright).astype(np.int32)
    if numbers.min() < 0 or numbers.max() > 65535:
        raise ImageError(f"{name}: it holds numbers from {numbers.min()} to {numbers.max()}; they are 0 to 65535.")
    return numbers, upright.mode == "P"


def masks_of_numbers(numbers: Numbers, *, void: int = 0, parts: bool = False) -> list[tuple[int, RLE]]:
    """Returns each number but 0 with its pixels, in rising order.

    Args:
        numbers: At least 0.
        void: A further number that is none.
        parts: Whether each connected part is returned of its own.

    Raises:
        ValueError: There are too many.
    """
    height, width = numbers.shape
    flat = numbers.T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    if len(starts) > MAX_RUNS:
        raise ValueError(f"it falls into {len(starts):,} runs, at most {MAX_RUNS:,} are read; is it a photo?")
    ends, values = np.append(starts[1:], flat.size), flat[starts]
    kept = (values != 0) & (values != void)
    starts, ends, values = starts[kept], ends[kept], values[kept]
    group = values
    if parts:
        starts, ends, values = _by_column(starts, ends, values, height)
        group = _connected(starts, ends, values, height)
    order = np.argsort(group, kind="stable")
    firsts = np.flatnonzero(np.diff(group[order], prepend=-1))
    if len(firsts) > MAX_OBJECTS:
        raise ValueError(f"it holds {len(firsts):,} objects, at most {MAX_OBJECTS:,} are read; is it a map of depth?")
    found = [
        (int(values[rows[0]]), _runs(starts[rows], ends[rows], (height, width)))
        for rows in np.split(order, firsts[1:])
        if len(rows)
    ]
    return sorted(found, key=lambda one: one[0])


def _runs(starts: Int[np.ndarray, " r"], ends: Int[np.ndarray, " r"], size: tuple[int, int]) -> RLE:
    """The mask of rising runs; where one ends as the next begins, nothing changes."""
    places, times = np.unique(np.stack([starts, ends]), return_counts=True)
    return from_changes(places[(times == 1) & (places < size[0] * size[1])], *size)


def _by_column(
    starts: Int[np.ndarray, " r"], ends: Int[np.ndarray, " r"], values: Int[np.ndarray, " r"], height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same runs, cut where a column ends."""
    count = (ends - 1) // height - starts // height + 1
    row = np.repeat(np.arange(len(starts)), count)
    column = starts[row] // height + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return np.maximum(starts[row], column * height), np.minimum(ends[row], (column + 1) * height), values[row]


def _connected(
    starts: Int[np.ndarray, " r"], ends: Int[np.ndarray, " r"], values: Int[np.ndarray, " r"], height: int
) -> Int[np.ndarray, " r"]:
    """The first run of the connected part that each run, which lies in one column, belongs to."""
    one, other = _neighbours(starts, ends, height)
    same = values[one] == values[other]
    one, other = one[same], other[same]
    root = np.arange(len(starts))
    while (root[one] != root[other]).any():
        low = np.minimum(root[one], root[other])
        np.minimum.at(root, root[one], low)
        np.minimum.at(root, root[other], low)
        while (root != root[root]).any():
            root = root[root]
    return root


def _neighbours(starts: Int[np.ndarray, " r"], ends: Int[np.ndarray, " r"], height: int) -> tuple[np.ndarray, ...]:
    """Pairs of runs of one column and the next that touch, at a corner too."""
    column, top, bottom = starts // height, starts % height, (ends - 1) % height
    stride = height + 2  # so that a column's neighbourhood does not reach into another column
    first = np.searchsorted(column * stride + bottom, (column + 1) * stride + top - 1, side="left")
    last = np.searchsorted(column * stride + top, (column + 1) * stride + bottom + 1, side="right")
    count = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(starts)), count)
    return one, np.repeat(first, count) + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)


def open_label_images(path: Path, *, classes: bool) -> tuple[Path, dict[str | None, Callable[[Report], Annotations]]]:
    """Returns the folder, and what reads each split."""
    if not path.is_dir():
        raise DataError(f"{path} is a file; name the folder that holds images/ and masks/.")
    folders, names = label_folders(path), read_classes(path) if classes else None
    return path, {split: partial(read_label_images, *pair, names) for split, pair in folders.items()}
