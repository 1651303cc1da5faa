"""One small model of every kind in the registry, as `nexus verify` builds them."""

import torch

from nexus.core.module import NexusModule
from nexus.models.cv.detector import Detector
from nexus.models.registry import all_cards, model_info
from nexus.proofs import family_of

_NAMES = {card.model_class: card.name for card in reversed(all_cards())}
_MORE = ("clip_resnet50", "dinov2_vits14_reg", "efficientnet_b0", "rtdetr_v2_r18", "vit_tiny_patch16_224")
EVERY_KIND = sorted({*_NAMES.values(), *_MORE})
"""A name of each class of models, and of those that differ within one."""


def small(name: str) -> tuple[NexusModule, tuple[int, int]]:
    """Returns a small model of the kind that `name` is, in evaluation mode, and the (height, width) of its images."""
    torch.manual_seed(0)
    card, family = model_info(name), family_of(name)
    config = family.small(card.config)
    if getattr(config, "num_classes", 1) == 0:  # a detector of words, which has none yet
        config = config.replace(num_classes=4)
    model = card.model_class(config).eval()
    height, width = family.image_size
    many = 32 if isinstance(model, Detector) else 1
    return model, (-height % many + height, -width % many + width)
