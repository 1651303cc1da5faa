"""Cards of the R-CNN family."""

from collections.abc import Mapping
from typing import Any

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.cards.coco import COCO_80, COCO_90
from nexus.models.cv.rcnn import (
    CascadeRCNN,
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    cascade_rcnn,
    faster_rcnn,
    keypoint_rcnn,
    mask_rcnn,
)
from nexus.models.registry import register

DETECTION = Preprocessing(image_size=(800, 1333), resize="within", resize_size=800, interpolation="bilinear")

# The first files of torchvision hold a backbone whose normalization is constant, and whose epsilon was lost.
FIRST: Mapping[str, Any] = {"backbone_norm": "frozen", "norm_eps": 0.0}


def coco_weights(file: str, changes: Mapping[str, Any], tag: str = "coco", **metrics: float) -> Weights:
    """Returns a file of torchvision; labels are COCO's category numbers less 1, so that 10 of the 90 never occur."""
    return Weights(
        tag=tag,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        licence="bsd-3-clause",
        preprocessing=DETECTION,
        changes=changes,
        class_names=("person",) if file.startswith("keypoint") else COCO_90,
        metrics=tuple(
            Metric(name=f"coco val2017 {kind} AP", value=value, source="torchvision 0.28 weights metadata")
            for kind, value in metrics.items()
        ),
    )


def mmdet_weights(file: str, tag: str, **metrics: float) -> Weights:
    """Returns a file of mmdetection; labels are the 80 categories of COCO in their order."""
    folder = file.partition("_coco")[0] + "_coco"
    return Weights(
        tag=tag,
        url=f"https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/{folder}/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        licence="apache-2.0",
        preprocessing=DETECTION,
        class_names=COCO_80,
        metrics=tuple(
            Metric(name=f"coco val2017 {kind} AP", value=value, source="mmdetection's metafile")
            for kind, value in metrics.items()
        ),
    )


register(
    ModelCard(
        name="fasterrcnn_resnet50_fpn",
        model_class=FasterRCNN,
        config=faster_rcnn.VARIANTS["fasterrcnn_resnet50_fpn"],
        num_parameters=41_808_406,  # 41,755,286 with the published weights, whose normalization is constant
        weights=(coco_weights("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", FIRST, box=37.0),),
        paper="https://arxiv.org/abs/1506.01497",
        good_for=("detection:alternative",),
    ),
    ModelCard(
        name="fasterrcnn_resnet50_fpn_v2",
        model_class=FasterRCNN,
        config=faster_rcnn.VARIANTS["fasterrcnn_resnet50_fpn_v2"],
        num_parameters=43_712_278,
        weights=(coco_weights("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", {}, box=46.7),),
        paper="https://arxiv.org/abs/2111.11429",
        good_for=("detection:alternative",),
    ),
    ModelCard(
        name="maskrcnn_resnet50_fpn",
        model_class=MaskRCNN,
        config=mask_rcnn.VARIANTS["maskrcnn_resnet50_fpn"],
        num_parameters=44_454_513,  # 44,401,393 with the published weights
        weights=(coco_weights("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", FIRST, box=37.9, mask=34.6),),
        paper="https://arxiv.org/abs/1703.06870",
        good_for=("instance-segmentation",),
    ),
    ModelCard(
        name="maskrcnn_resnet50_fpn_v2",
        model_class=MaskRCNN,
        config=mask_rcnn.VARIANTS["maskrcnn_resnet50_fpn_v2"],
        num_parameters=46_359_409,
        weights=(coco_weights("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", {}, box=47.4, mask=41.8),),
        paper="https://arxiv.org/abs/2111.11429",
        good_for=("instance-segmentation",),
    ),
    ModelCard(
        name="keypointrcnn_resnet50_fpn",
        model_class=KeypointRCNN,
        config=keypoint_rcnn.VARIANTS["keypointrcnn_resnet50_fpn"],
        num_parameters=59_190_378,  # 59,137,258 with the published weights
        weights=(
            coco_weights("keypointrcnn_resnet50_fpn_coco-fc266e95.pth", FIRST, box=54.6, keypoint=65.0),
            coco_weights("keypointrcnn_resnet50_fpn_coco-9f466800.pth", FIRST, "coco_legacy", box=50.6, keypoint=61.1),
        ),
        paper="https://arxiv.org/abs/1703.06870",
        good_for=("pose-estimation",),
    ),
    ModelCard(
        name="cascadercnn_resnet50_fpn",
        model_class=CascadeRCNN,
        config=cascade_rcnn.VARIANTS["cascadercnn_resnet50_fpn"],
        num_parameters=69_394_766,
        weights=(
            mmdet_weights(
                "cascade_rcnn_r50_fpn_1x_coco_20200316-3dc56deb.pth",
                "coco_1x",
                box=40.3,
            ),
            mmdet_weights(
                "cascade_rcnn_r50_fpn_20e_coco_bbox_mAP-0.41_20200504_175131-e9872a90.pth",
                "coco_20e",
                box=41.0,
            ),
        ),
        paper="https://arxiv.org/abs/1712.00726",
        good_for=("detection:alternative",),
    ),
    ModelCard(
        name="cascadercnn_resnet101_fpn",
        model_class=CascadeRCNN,
        config=cascade_rcnn.VARIANTS["cascadercnn_resnet101_fpn"],
        num_parameters=88_386_894,
        weights=(
            mmdet_weights(
                "cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth",
                "coco_1x",
                box=42.0,
            ),
        ),
        paper="https://arxiv.org/abs/1712.00726",
        good_for=("detection:alternative",),
    ),
    ModelCard(
        name="cascademaskrcnn_resnet50_fpn",
        model_class=CascadeRCNN,
        config=cascade_rcnn.VARIANTS["cascademaskrcnn_resnet50_fpn"],
        num_parameters=77_324_606,
        weights=(
            mmdet_weights(
                "cascade_mask_rcnn_r50_fpn_1x_coco_20200203-9d4dcb24.pth",
                "coco_1x",
                box=41.2,
                mask=35.9,
            ),
        ),
        paper="https://arxiv.org/abs/1906.09756",
        good_for=("instance-segmentation:alternative",),
    ),
)
