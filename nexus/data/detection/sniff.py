"""Which tool wrote a file, by its ending and how it begins; nothing is parsed."""

import re
from pathlib import Path

from nexus.data.places import what_it_is

HEAD = 1 << 16
"""Bytes that are looked at."""


def kind_of_file(path: Path) -> str | None:
    """The source that a file is of ("coco", "labelme", "cvat", ...), or None where its beginning does not say it."""
    if what_it_is(path) is not None:
        return None
    with path.open("rb") as file:
        head = file.read(HEAD).decode("utf-8-sig", "replace").lstrip()
    ending = path.suffix.lower()
    if ending == ".json":
        return _kind_of_json(head)
    if ending == ".xml":
        return "cvat" if re.search(r"<annotations[\s>]", head) else "voc" if "<annotation" in head else None
    if ending in (".csv", ".tsv"):
        return _kind_of_table(head.partition("\n")[0])
    if ending in (".yaml", ".yml"):
        return "yolo"
    return "captions" if ending == ".jsonl" else None


def _kind_of_json(head: str) -> str | None:
    def has(*keys: str) -> bool:
        return all(re.search(rf'"{key}"\s*:', head) for key in keys)

    if head.startswith("[") and has("data") and (has("annotations") or has("completions") or has("result")):
        return "label-studio"
    if not head.startswith("{"):
        return None
    if has("shapes", "imagePath") or has("shapes", "version") or has("flags", "shapes"):
        return "labelme"
    if has("_via_img_metadata") or has("_via_settings") or (has("filename", "regions") and not has("categories")):
        return "via"
    if has("project", "config", "attribute", "file", "metadata", "view"):
        return "via"
    return "coco" if has("images") or has("annotations") or has("categories") else None


def _kind_of_table(line: str) -> str | None:
    columns = {cell.strip().strip('"') for cell in re.split(r"[,\t]", line.strip())}
    if {"ImageID", "LabelName"} <= columns and ("XMin" in columns or "MaskPath" in columns):
        return "open-images"
    if "EncodedPixels" in columns or "bbox" in columns or {"xmin", "ymin", "xmax", "ymax"} <= columns:
        return "kaggle"
    if {"filename", "region_shape_attributes"} <= columns:
        return "via"
    return "captions" if {"file", "caption"} <= columns else "folder" if {"file", "label"} <= columns else None
