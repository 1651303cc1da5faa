"""Every family with a proof."""

import fnmatch

from nexus.evaluation.proofs.convolutional import EFFICIENTNETS, RESNET, SWIN, VGG
from nexus.evaluation.proofs.family import Family
from nexus.evaluation.proofs.vit import DINO, DINO_REGISTERS, MASKED, MIXER, VIT

FAMILIES: tuple[Family, ...] = (VIT, MASKED, MIXER, DINO, DINO_REGISTERS, RESNET, VGG, *EFFICIENTNETS, SWIN)


def family_of(name: str) -> Family | None:
    """Returns the family of a variant, or None where no proof is declared."""
    for family in FAMILIES:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in family.variants):
            return family
    return None
