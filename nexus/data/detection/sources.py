"""Annotated images of the user, by the name of their format and a path."""

from pathlib import Path

from nexus.data.dataset import DataError
from nexus.data.detection.coco import read_coco
from nexus.data.detection.scene import AnnotatedFiles, Annotations
from nexus.data.detection.voc import read_voc
from nexus.data.detection.yolo import read_yolo

FORMATS = ("coco", "yolo", "voc")


def open_annotated(kind: str, path: Path, split: str) -> AnnotatedFiles:
    """Returns one split of a set.

    - "coco": PATH is a folder with `annotations/instances_<split>*.json` or `<split>.json` (or `annotations/`), and
      images in `<split>*/`, `images/` or beside the file.
    - "yolo": PATH has `data.yaml`, which names the split's folder, or `images/<split>`.
    - "voc": PATH has `ImageSets/Main/<split>.txt`.

    Raises:
        DataError: It is not there, or there is a fault in it; the message names file and annotation.
    """
    if kind == "yolo":
        annotations = read_yolo(path, split)
    elif kind == "voc":
        annotations = read_voc(path, split)
    else:
        annotations = _coco(path, split)
    return AnnotatedFiles(f"{kind}:{path}", annotations)


def _coco(path: Path, split: str) -> Annotations:
    patterns = (f"annotations/*_{split}*.json", f"annotations/{split}*.json", f"{split}*.json")
    found = [file for pattern in patterns for file in sorted(path.glob(pattern))]
    if not found:
        raise DataError(f"{path} has no annotations of {split!r}: none of {', '.join(patterns)} exists.")
    folders = [folder for folder in sorted(path.glob(f"{split}*")) if folder.is_dir()]
    return read_coco(found[0], folders[0] if folders else None)
