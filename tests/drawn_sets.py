"""A small detection set of drawn discs and squares, written in every form that it may come in.

Sixteen images of 64 x 48 pixels to train on, six held out. Of the former 01 is grey, 02 has 16 bits, 03 has no object;
with `faults`, 04 has a label outside of it and 05 is broken.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("disc", "square")
COUNTS = {"train": 16, "val": 6}
WIDTH, HEIGHT = 64, 48

Thing = tuple[int, int, int, int, int]
"""Class, and x1, y1, x2, y2."""


def drawn(seed: int) -> tuple[Image.Image, list[Thing]]:
    """An image with one object, every third with two, side by side."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(90, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    draw, things = ImageDraw.Draw(image), []
    for left, right in ((0, 64),) if seed % 3 else ((0, 32), (32, 64)):
        side, label = int(rng.integers(14, 22)), int(rng.integers(2))
        x, y = int(rng.integers(left, right - side)), int(rng.integers(HEIGHT - side))
        shape, colour = ((draw.ellipse, (250, 220, 20)), (draw.rectangle, (20, 60, 220)))[label]
        shape((x, y, x + side - 1, y + side - 1), fill=colour)
        things.append((label, x, y, x + side, y + side))
    return image, things


def items(faults: bool) -> Iterator[tuple[str, str, Image.Image, list[Thing], bool]]:
    """Split, name, image, objects of each, and whether its file is to be broken."""
    for split, count in COUNTS.items():
        for number in range(count):
            image, things = drawn(number + (100 if split == "val" else 0))
            place = number if split == "train" else -1
            grey = image.convert("L")
            image = {1: grey, 2: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)}.get(place, image)
            if place == 3:
                image, things = Image.new("RGB", (WIDTH, HEIGHT), "grey"), []
            if place == 4 and faults:
                things = [*things, (0, 60, 40, 90, 70)]
            yield split, f"{number:02d}", image, things, faults and place == 5


def save(image: Image.Image, path: Path, broken: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    if broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_coco(root: Path, faults: bool = False) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    files: dict[str, dict] = {split: {"images": [], "annotations": [], "categories": categories} for split in COUNTS}
    for split, name, image, things, broken in items(faults):
        save(image, root / split / f"{name}.png", broken)
        images, rows = files[split]["images"], files[split]["annotations"]
        images.append({"id": len(images) + 1, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
        for label, x1, y1, x2, y2 in things:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            rows.append({"id": len(rows) + 1, "image_id": len(images), "category_id": label + 1, **box})
    for split, content in files.items():
        put(root / "annotations" / f"instances_{split}.json", json.dumps(content))


def yolo_lines(things: list[Thing]) -> str:
    shares = [
        (label, (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
        for label, x1, y1, x2, y2 in things
    ]
    return "".join(f"{label} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n" for label, x, y, width, height in shares)


def write_yolo(root: Path, place: str, faults: bool = False) -> dict[str, str]:
    """Images and labels where `place` says; returns the images' paths of each split, one a line."""
    lists = dict.fromkeys(COUNTS, "")
    for split, name, image, things, broken in items(faults):
        image_file = root / f"{place.format(kind='images', split=split, name=name)}.png"
        save(image, image_file, broken)
        put(root / f"{place.format(kind='labels', split=split, name=name)}.txt", yolo_lines(things))
        lists[split] += f"./{image_file.relative_to(root).as_posix()}\n"
    return lists


def write_yolo_folders(root: Path, faults: bool = False) -> None:
    write_yolo(root, "{split}/{kind}/{name}", faults)
    put(root / "data.yaml", "train: ../train/images\nval: ../val/images\nnc: 2\nnames: [disc, square]\n")


def write_yolo_siblings(root: Path, faults: bool = False) -> None:
    write_yolo(root, "{kind}/{split}/{name}", faults)
    put(root / "classes.txt", "disc\nsquare\n")


def write_yolo_lists(root: Path, faults: bool = False) -> None:
    for split, text in write_yolo(root, "{kind}/{split}_{name}", faults).items():
        put(root / f"{split}.txt", text)
    put(root / "data.yaml", "train: train.txt\nval: val.txt\nnames: {0: disc, 1: square}\n")


def write_voc(root: Path, faults: bool = False) -> None:
    lists = dict.fromkeys(COUNTS, "")
    for split, number, image, things, broken in items(faults):
        name = f"{split}_{number}"
        save(image, root / "JPEGImages" / f"{name}.png", broken)
        objects = "".join(
            f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in things
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        page = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        put(root / "Annotations" / f"{name}.xml", page)
        lists[split] += f"{name}\n"
    for split, text in lists.items():
        put(root / "ImageSets" / "Main" / f"{split}.txt", text)


FORMS: dict[str, tuple[str, Callable[..., None], str, str]] = {
    "coco": ("coco", write_coco, "annotations/instances_train.json", "train/05.png"),
    "yolo-folders": ("yolo", write_yolo_folders, "train/labels/04.txt", "train/images/05.png"),
    "yolo-siblings": ("yolo", write_yolo_siblings, "labels/train/04.txt", "images/train/05.png"),
    "yolo-lists": ("yolo", write_yolo_lists, "labels/train_04.txt", "images/train_05.png"),
    "voc": ("voc", write_voc, "Annotations/train_04.xml", "JPEGImages/train_05.png"),
}
"""Of each form its source, what writes it, and the files that its two faults are in."""
