"""Cards of RT-DETR and RT-DETR v2."""

from typing import Any

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.cards.coco import COCO_80
from nexus.models.cv.rt_detr import RTDETR, VARIANTS
from nexus.models.registry import register

DETECTION = Preprocessing(
    image_size=(640, 640), resize="squash", interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
RELEASES = "https://github.com/lyuwenyu/storage/releases/download"
NUM_PARAMETERS = {
    "r18": 20_184_464,
    "r34": 31_441_668,
    "r50_m": 36_593_772,
    "r50": 42_891_372,
    "r101": 76_556_268,
}
FILES = {
    "rtdetr_r18": ("v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle.pth", 46.4),
    "rtdetr_r34": ("v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle.pth", 48.9),
    "rtdetr_r50_m": ("v0.1/rtdetr_r50vd_m_6x_coco_from_paddle.pth", 51.3),
    "rtdetr_r50": ("v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth", 53.1),
    "rtdetr_r101": ("v0.1/rtdetr_r101vd_6x_coco_from_paddle.pth", 54.3),
    "rtdetr_v2_r18": ("v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth", 48.1),
    "rtdetr_v2_r34": ("v0.1/rtdetrv2_r34vd_120e_coco_ema.pth", 49.9),
    "rtdetr_v2_r50_m": ("v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth", 51.9),
    "rtdetr_v2_r50": ("v0.1/rtdetrv2_r50vd_6x_coco_ema.pth", 53.4),
    "rtdetr_v2_r101": ("v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth", 54.3),
}


def rt_detr_card(name: str) -> ModelCard:
    """Returns the card of a variant with the authors' file, and the same weights on the hub where they are."""
    file, average_precision = FILES[name]
    version, size = ("v2_", name[10:]) if name.startswith("rtdetr_v2_") else ("", name[7:])
    shared: dict[str, Any] = {
        "licence": "apache-2.0",
        "preprocessing": DETECTION,
        "class_names": COCO_80,
        "metrics": (Metric(name="coco val2017 box AP", value=average_precision, source="README of lyuwenyu/RT-DETR"),),
    }
    weights = [Weights(tag="coco", url=f"{RELEASES}/{file}", **shared)]
    if size != "r50_m":
        weights.append(Weights(tag="coco_hub", url=f"hf-hub:PekingU/rtdetr_{version}{size}vd", **shared))
    return ModelCard(
        name=name,
        model_class=RTDETR,
        config=VARIANTS[name],
        num_parameters=NUM_PARAMETERS[size],
        weights=tuple(weights),
        paper="https://arxiv.org/abs/2407.17140" if version else "https://arxiv.org/abs/2304.08069",
        good_for=("detection", "real-time"),
    )


register(*map(rt_detr_card, VARIANTS))
