"""Every family with a proof."""

import fnmatch

from nexus.evaluation.proofs.convolutional import EFFICIENTNETS, RESNET, SWIN, VGG
from nexus.evaluation.proofs.detr import DETRS
from nexus.evaluation.proofs.family import Family
from nexus.evaluation.proofs.hivit import HIVIT, HIVIT_MAE
from nexus.evaluation.proofs.image_text import CLIPS, SIGLIPS
from nexus.evaluation.proofs.rcnn import RCNNS
from nexus.evaluation.proofs.vit import DINO, DINO_REGISTERS, EVA, MASKED, MIXER, VIT
from nexus.evaluation.proofs.yolov10 import YOLOV10

FAMILIES: tuple[Family, ...] = (
    VIT,
    MASKED,
    MIXER,
    DINO,
    DINO_REGISTERS,
    RESNET,
    VGG,
    *EFFICIENTNETS,
    SWIN,
    EVA,
    HIVIT,
    HIVIT_MAE,
    *CLIPS,
    *SIGLIPS,
    *RCNNS,
    *DETRS,
    YOLOV10,
)


def family_of(name: str) -> Family | None:
    """Returns the family of a variant, or None where no proof is declared."""
    for family in FAMILIES:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in family.variants):
            return family
    return None
