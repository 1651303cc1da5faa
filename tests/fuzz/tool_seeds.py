"""Small whole files as annotation tools write them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.fuzz.seeds import SIZE, picture, put, table

BOX = {"x": 10, "y": 10, "width": 30, "height": 40, "rotation": 0}


def labelme(folder: Path) -> None:
    """A rectangle, an outline, a circle and a mask."""
    picture(folder / "a.png")
    drawn = io.BytesIO()
    Image.new("L", (4, 3), 255).save(drawn, "PNG")
    shapes: list[dict[str, Any]] = [
        {"label": "cat", "points": [[2, 2], [9, 8]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": 1},
        {"label": "sun", "points": [[8, 6], [10, 6]], "shape_type": "circle"},
        {"label": "ink", "points": [[2, 2], [5, 4]], "shape_type": "mask", "mask": _text(drawn.getvalue())},
    ]
    head = {"version": "5.4.1", "flags": {}, "imagePath": "a.png", "imageData": None}
    put(folder / "a.json", {**head, "imageHeight": SIZE[1], "imageWidth": SIZE[0], "shapes": shapes})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def cvat(folder: Path) -> None:
    """Shapes of an image, one of each kind."""
    picture(folder / "images" / "a.png")
    label = "<labels><label><name>cat</name></label></labels>"
    shapes = (
        '<box label="cat" occluded="0" xtl="1.5" ytl="2" xbr="9" ybr="8" rotation="90.0"/>'
        '<polygon label="dog" points="1.0,1.0;9.0,1.0;9.0,9.0"/>'
        '<ellipse label="sun" cx="8" cy="6" rx="3" ry="2"/>'
        '<mask label="ink" rle="5, 3, 4" left="3" top="2" width="4" height="3"/>'
    )
    image = f'<image id="0" name="a.png" subset="Train" width="{SIZE[0]}" height="{SIZE[1]}">{shapes}</image>'
    put(folder / "annotations.xml", f"<annotations><meta><task>{label}</task></meta>{image}</annotations>")


def cvat_video(folder: Path) -> None:
    """A track over three frames."""
    for frame in range(3):
        picture(folder / "images" / f"frame_{frame:06d}.png")
    sides = 'xtl="1" ytl="1" xbr="9" ybr="9"'
    boxes = "".join(f'<box frame="{n}" outside="{n // 2}" keyframe="1" {sides}/>' for n in (0, 2))
    label = "<labels><label><name>cat</name></label></labels>"
    track = f'<track id="0" label="cat">{boxes}</track>'
    put(folder / "annotations.xml", f"<annotations><meta><task>{label}</task></meta>{track}</annotations>")


def label_studio(folder: Path) -> None:
    """A rectangle and an outline of one task."""
    picture(folder / "images" / "a.png")
    head = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
    outline = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}
    results = [
        {**head, "type": "rectanglelabels", "value": {**BOX, "rectanglelabels": ["cat"]}},
        {**head, "type": "polygonlabels", "value": outline},
    ]
    annotations = [{"result": results, "was_cancelled": False}]
    put(
        folder / "project.json",
        [{"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"}, "annotations": annotations}],
    )


REGIONS = [
    {
        "shape_attributes": {"name": "rect", "x": 5, "y": 2, "width": 6, "height": 8},
        "region_attributes": {"name": "cat"},
    },
    {
        "shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
        "region_attributes": {"name": "dog"},
    },
    {"shape_attributes": {"name": "circle", "cx": 8, "cy": 6, "r": 3}, "region_attributes": {"name": {"sun": True}}},
]


def via(folder: Path) -> None:
    """A project of VIA 2."""
    picture(folder / "a.png")
    entry = {"filename": "a.png", "size": 99, "file_attributes": {}, "regions": REGIONS}
    put(folder / "p.json", {"_via_settings": {}, "_via_img_metadata": {"a.png99": entry}})


def via_table(folder: Path) -> None:
    """The same as VIA's table."""
    picture(folder / "a.png")
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    rows: list[list[object]] = [list(head.split(","))]
    for number, region in enumerate(REGIONS):
        cells = [json.dumps(region[key]) for key in ("shape_attributes", "region_attributes")]
        rows.append(["a.png", 99, "{}", 3, number, *cells])
    put(folder / "p.csv", table(rows))


def open_images(folder: Path) -> None:
    """A table of boxes with its table of names."""
    picture(folder / "train" / "0001.jpg")
    put(folder / "class-descriptions-boxable.csv", "/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    head = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    rows = "0001,x,/m/01yrx,1,0.25,0.75,0.5,1.0,0,0,0,0,0\n0001,x,/m/0bt9lr,1,0,1,0,1,0,0,1,0,0\n"
    put(folder / "train-annotations-bbox.csv", f"{head}\n{rows}")


def kaggle_boxes(folder: Path) -> None:
    """Boxes as lists in a cell."""
    picture(folder / "train" / "b6.jpg")
    row: list[object] = ["b6", *SIZE, "[5.0, 2.0, 6.0, 8.0]", "u"]
    put(folder / "train.csv", table([["image_id", "width", "height", "bbox", "source"], row, row]))


def kaggle_masks(folder: Path) -> None:
    """Masks as runs in a cell."""
    picture(folder / "train_images" / "a.png")
    picture(folder / "train_images" / "b.png")
    put(folder / "train.csv", "ImageId,EncodedPixels,ClassId\na.png,2 2 4 1 11 2,3\nb.png,,1\n")


def label_images(folder: Path) -> None:
    """An image whose objects are told apart by numbers of 8 bits."""
    picture(folder / "images" / "a.png")
    _numbers().save(_made(folder / "masks") / "a.png")


def label_tiff(folder: Path) -> None:
    """The same in 16 bits."""
    picture(folder / "images" / "a.png")
    _numbers().convert("I;16").save(_made(folder / "masks") / "a.tif")


def class_images(folder: Path) -> None:
    """The same as classes, which have names."""
    label_images(folder)
    put(folder / "classes.json", {"1": "cat", "2": "dog"})


def _numbers() -> Image.Image:
    image = Image.new("L", SIZE)
    image.paste(1, (1, 1, 6, 6))
    image.paste(2, (8, 2, 15, 9))
    return image


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
