"""Cards of DETR."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.cards.coco import COCO_91
from nexus.models.cv.detr import DETR, VARIANTS
from nexus.models.registry import register

DETECTION = Preprocessing(image_size=(800, 1333), resize="within", resize_size=800, interpolation="bilinear")
README = "README of facebookresearch/detr"


def detr_card(name: str, file: str, num_parameters: int, average_precision: float) -> ModelCard:
    """Returns the card of a variant with its published file, and the same weights on the hub."""
    metrics = (Metric(name="coco val2017 box AP", value=average_precision, source=README),)
    hub = f"hf-hub:facebook/{name.replace('_', '-').replace('resnet', 'resnet-')}"
    shared = {"licence": "apache-2.0", "preprocessing": DETECTION, "metrics": metrics, "class_names": COCO_91}
    return ModelCard(
        name=name,
        model_class=DETR,
        config=VARIANTS[name],
        num_parameters=num_parameters,
        weights=(
            Weights(
                tag="coco",
                url=f"https://dl.fbaipublicfiles.com/detr/{file}",
                sha256=file.removesuffix(".pth").rpartition("-")[2],
                **shared,
            ),
            Weights(tag="coco_hub", url=hub, **shared),
        ),
        paper="https://arxiv.org/abs/2005.12872",
        good_for=("detection:alternative",),
    )


register(
    detr_card("detr_resnet50", "detr-r50-e632da11.pth", 41_524_768, 42.0),
    detr_card("detr_resnet50_dc5", "detr-r50-dc5-f0fb7ef5.pth", 41_524_768, 43.3),
    detr_card("detr_resnet101", "detr-r101-2c7b67e5.pth", 60_464_672, 43.5),
    detr_card("detr_resnet101_dc5", "detr-r101-dc5-a2e86def.pth", 60_464_672, 44.9),
)
