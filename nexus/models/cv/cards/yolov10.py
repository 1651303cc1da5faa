"""Cards of YOLOv10."""

from typing import Any

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.cards.coco import COCO_80
from nexus.models.cv.yolov10 import VARIANTS, YOLOv10
from nexus.models.registry import register

LETTERBOX = Preprocessing(
    image_size=(640, 640),
    resize="within",
    resize_size=640,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
RELEASE = "https://github.com/THU-MIG/yolov10/releases/download/v1.1"
FACTS = {
    "yolov10n": (2_775_504, 38.5),
    "yolov10s": (8_128_256, 46.3),
    "yolov10m": (16_576_752, 51.1),
    "yolov10b": (20_574_368, 52.5),
    "yolov10l": (25_888_672, 53.2),
    "yolov10x": (31_808_944, 54.4),
}
"""Parameters with both heads, 16 fewer than the files hold (the bins 0 to 15 are no parameters here); AP."""


def yolov10_card(name: str) -> ModelCard:
    """Returns the card of a variant, with its weights on the hub; they are AGPL-3.0, as the code that trained them."""
    num_parameters, average_precision = FACTS[name]
    shared: dict[str, Any] = {
        "licence": "agpl-3.0",
        "preprocessing": LETTERBOX,
        "class_names": COCO_80,
        "metrics": (Metric(name="coco val2017 box AP", value=average_precision, source="README of THU-MIG/yolov10"),),
    }
    return ModelCard(
        name=name,
        model_class=YOLOv10,
        config=VARIANTS[name],
        num_parameters=num_parameters,
        weights=(
            Weights(tag="coco", url=f"hf-hub:jameslahm/{name}", **shared),
            Weights(tag="coco_release", url=f"{RELEASE}/{name}.pt", **shared),
        ),
        paper="https://arxiv.org/abs/2405.14458",
        good_for=("detection", "real-time"),
    )


register(*map(yolov10_card, VARIANTS))
