"""Every family with a proof."""

import fnmatch

from nexus.proofs.convolutional import EFFICIENTNETS, RESNET, SWIN, VGG
from nexus.proofs.detr import DETRS
from nexus.proofs.family import Family
from nexus.proofs.grounding_dino import GROUNDING_DINOS
from nexus.proofs.hivit import HIVIT, HIVIT_MAE
from nexus.proofs.image_text import CLIPS, SIGLIPS
from nexus.proofs.internvl import INTERNVLS
from nexus.proofs.rcnn import RCNNS
from nexus.proofs.sam import SAMS
from nexus.proofs.sam2 import SAM2S
from nexus.proofs.vit import DINO, DINO_REGISTERS, EVA, MASKED, MIXER, VIT
from nexus.proofs.yolo_world import YOLO_WORLDS
from nexus.proofs.yolov10 import YOLOV10

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
    INTERNVLS,
    *RCNNS,
    *DETRS,
    YOLOV10,
    YOLO_WORLDS,
    SAMS,
    GROUNDING_DINOS,
    SAM2S,
)


def family_of(name: str) -> Family | None:
    """Returns the family of a variant, or None where no proof is declared."""
    for family in FAMILIES:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in family.variants):
            return family
    return None
