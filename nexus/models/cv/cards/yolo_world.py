"""Cards of YOLO-World. The authors' files hold the text tower too, and no vocabulary: words are set by the user."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.yolo_world.yolo_world import VARIANTS, YOLOWorld
from nexus.models.registry import register

LETTERBOX = Preprocessing(
    image_size=(640, 640),
    resize="within",
    resize_size=640,
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
FIRST = "clip_base_dual_vlpan_2e-3adamw_32xb16_100e_o365_goldg"
FILES = {
    "yolo_world_v1_s": f"yolo_world_s_{FIRST}_train_pretrained-18bea4d2.pth",
    "yolo_world_v1_m": f"yolo_world_m_{FIRST}_train_pretrained-2b7bd1be.pth",
    "yolo_world_v1_l": f"yolo_world_l_{FIRST}_train_pretrained-0e566235.pth",
    "yolo_world_v1_x": f"yolo_world_x_{FIRST}_cc3mlite_train_pretrained-8cf6b025.pth",
    "yolo_world_v2_s": "yolo_world_v2_s_obj365v1_goldg_pretrain-55b943ea.pth",
    "yolo_world_v2_m": "yolo_world_v2_m_obj365v1_goldg_pretrain-c6237d5b.pth",
    "yolo_world_v2_l": "yolo_world_v2_l_obj365v1_goldg_pretrain-a82b1fe3.pth",
    "yolo_world_v2_x": "yolo_world_v2_x_obj365v1_goldg_cc3mlite_pretrain-8698fbfa.pth",
}
STAGES = {
    "yolo_world_v2_s": ("s_stage2-4466ab94",),
    "yolo_world_v2_m": ("m_stage1-7e1e5299", "m_stage2-9987dcb1"),
    "yolo_world_v2_l": ("l_stage1-7d280586", "l_stage2-b3e3dc3f"),
    "yolo_world_v2_x": ("x_stage1-62b674ad",),
}
"""Files of release 2.1: the same networks, trained again."""
DETECTOR_PARAMETERS = {
    "yolo_world_v1_s": 13_383_480,
    "yolo_world_v1_m": 29_065_294,
    "yolo_world_v1_l": 47_553_954,
    "yolo_world_v1_x": 73_690_201,
    "yolo_world_v2_s": 12_759_864,
    "yolo_world_v2_m": 28_376_142,
    "yolo_world_v2_l": 46_832_034,
    "yolo_world_v2_x": 72_886_361,
}
TEXT_PARAMETERS = 63_428_096
LVIS = {
    "yolo_world_v1_s": 24.3,
    "yolo_world_v1_m": 28.6,
    "yolo_world_v1_l": 32.5,
    "yolo_world_v1_x": 33.4,
    "yolo_world_v2_s": 22.7,
    "yolo_world_v2_m": 30.0,
    "yolo_world_v2_l": 33.0,
    "yolo_world_v2_x": 35.4,
}


def yolo_world_card(name: str) -> ModelCard:
    """Returns the card of a variant; its weights are GPL-3.0, as the code that trained them."""
    result = Metric(name="LVIS minival zero-shot AP", value=LVIS[name], source="README of AILab-CVC/YOLO-World")
    weights = [_weights("o365_goldg", f"YOLO-World#{FILES[name]}", (result,))]
    for file in STAGES.get(name, ()):
        tag = f"v2_1_{file.partition('-')[0].partition('_')[2]}"
        weights.append(_weights(tag, f"YOLO-World-V2.1#{file}.pth", ()))
    return ModelCard(
        name=name,
        model_class=YOLOWorld,
        config=VARIANTS[name],
        num_parameters=DETECTOR_PARAMETERS[name] + TEXT_PARAMETERS,
        weights=tuple(weights),
        paper="https://arxiv.org/abs/2401.17270",
        good_for=("open-vocabulary-detection:alternative", "real-time:alternative"),
    )


def _weights(tag: str, place: str, metrics: tuple[Metric, ...]) -> Weights:
    url = f"hf-hub:wondervictor/{place}"
    return Weights(tag=tag, url=url, licence="gpl-3.0", preprocessing=LETTERBOX, metrics=metrics)


register(*map(yolo_world_card, VARIANTS))
