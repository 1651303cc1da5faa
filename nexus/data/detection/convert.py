"""Converting annotations: all splits of a source, written into a new folder that appears when it is complete."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from nexus.data.dataset import DataError
from nexus.data.detection.check import read_splits
from nexus.data.detection.coco import write_coco
from nexus.data.detection.copies import copy_image, flat_names
from nexus.data.detection.scene import Annotations
from nexus.data.detection.sources import find_source, open_source
from nexus.data.detection.voc import write_voc_splits
from nexus.data.detection.yolo import write_yolo_splits
from nexus.data.places import is_within

Format = Literal["coco", "yolo", "voc"]
Splits = Mapping[str | None, Annotations]


def convert(source: str | Path, target: str | Path, to: Format, *, lossy: bool = False) -> Path:
    """Writes the annotations of a source in another format, ready to be trained on. Returns what was written.

    Args:
        source: Such as "coco:PATH", or a path whose kind is recognised.
        target: A new folder, which also gets copies of the images; or for COCO a json file, which holds all splits as
            one and names images below its own folder, or else copies in a folder of their own beside it.
        to: The format.
        lossy: Whether what YOLO cannot hold may be dropped; see `nexus.data.detection.yolo`.

    Raises:
        DataError: There is a fault, something would get lost, or the target is there already.
    """
    if to not in ("coco", "yolo", "voc"):
        raise ValueError(f"to is {to!r}; it must be 'coco', 'yolo' or 'voc'.")
    root = open_source(*find_source(source)).root
    splits, target = read_splits(source), Path(target)
    if not any(annotations.scenes for annotations in splits.values()):
        raise DataError(f"{source} has no images; there is nothing to convert.")
    _check_inside(splits, root)
    if to == "coco" and target.suffix.lower() == ".json":
        return _coco_file(splits, target)
    writers: dict[str, Callable[[Path], object]] = {
        "coco": lambda part: _coco_folder(splits, part),
        "yolo": lambda part: write_yolo_splits(splits, part, lossy=lossy),
        "voc": lambda part: write_voc_splits(splits, part),
    }
    with _appearing(target) as part:
        writers[to](part)
    return target


def _check_inside(splits: Splits, root: Path) -> None:
    """Links may put images elsewhere for training; what is copied must lie in the data set itself."""
    for annotations in splits.values():
        for scene in annotations.scenes:
            if not is_within(Path(scene.path), root):
                raise DataError(f"{scene.path} is a link that leads out of {root}; put the file itself there.")


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Gives a hidden folder beside `target` that gets its name when the block ends, and is removed if it fails."""
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is there already; name a new folder, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".incomplete"))
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o777 & ~mask)
        if target.is_dir():
            target.rmdir()
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _coco_file(splits: Splits, target: Path) -> Path:
    first = next(iter(splits.values()))
    scenes = [scene for one in splits.values() for scene in one.scenes]
    annotations = first if len(splits) == 1 else first.of(sorted(scenes, key=lambda scene: scene.path))
    home = Path(os.path.abspath(target.parent))
    if all(Path(os.path.abspath(scene.path)).is_relative_to(home) for scene in annotations.scenes):
        return write_coco(annotations, target)
    images = target.with_name(f"{target.stem}-images")
    with _appearing(images) as part:
        moved = _copied(annotations, part, part, images)
    return write_coco(moved, target, target.parent)


def _coco_folder(splits: Splits, root: Path) -> None:
    for split, annotations in splits.items():
        folder, name = root / (split or "images"), f"instances_{split}" if split else "instances"
        write_coco(_copied(annotations, root, folder, folder), root / "annotations" / f"{name}.json", folder)


def _copied(annotations: Annotations, root: Path, folder: Path, final: Path) -> Annotations:
    """Copies the images into `folder`, which will be called `final`; returns the annotations of the copies."""
    scenes = []
    for name, scene in zip(flat_names(annotations.scenes), annotations.scenes):
        copy_image(scene, root, folder / name)
        scenes.append(replace(scene, path=str(final / name)))
    return annotations.of(scenes)
