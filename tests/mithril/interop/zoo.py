"""Models of the zoo, small, with random weights: one or two variants of each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nexus import create_model
from nexus.core.module import NexusModule
from tests.mithril.interop.foreign import with_random_state
from tests.nexus.models.test_every_model import CASES, build

Inputs = dict[str, Tensor]

TEXTS: dict[str, Any] = {
    "text_dim": 16, "text_num_layers": 2, "text_num_heads": 4, "context_length": 6, "vocab_size": 50,
}  # fmt: skip
DETR: dict[str, Any] = {
    "num_classes": 7, "backbone": "resnet18", "embed_dim": 32, "num_layers": (1, 2), "num_heads": 4, "hidden_dim": 48,
    "num_queries": 6,
}  # fmt: skip
RT_DETR: dict[str, Any] = {
    "num_classes": 5, "encoder_dim": 32, "encoder_hidden_dim": 48, "embed_dim": 32, "hidden_dim": 40, "num_layers": 2,
    "num_heads": 4, "num_queries": 12, "num_points": (2, 2, 2),
}  # fmt: skip
YOLO: dict[str, Any] = {
    "dims": (8, 8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_classes": 5, "num_bins": 8, "max_detections": 12,
    "compact": ("stage5", "top_down4", "bottom_up5"), "large_kernel": ("stage5",),
}  # fmt: skip
RCNN: dict[str, Any] = {"backbone": "resnet18", "num_classes": 3, "pyramid_dim": 16, "box_head": {"hidden_dim": 12}}


class FirstStage(nn.Module):
    """What an R-CNN computes before the number of its boxes depends on the image: maps, scores and boxes of places."""

    def __init__(self, model: NexusModule):
        super().__init__()
        self.backbone, self.rpn = model.backbone, model.rpn

    def forward(self, images: Tensor) -> Any:
        maps = self.backbone(images)
        places = self.rpn(maps, (images.shape[-2], images.shape[-1]))
        return {"features": maps, "scores": places.objectness, "boxes": places.deltas, "anchors": places.anchors}


def _images(size: int) -> Inputs:
    return {"images": torch.randn(2, 3, size, size)}


def _pair(name: str, size: int = 32, **changes: Any) -> tuple[nn.Module, Inputs]:
    """Towers for images and texts."""
    sizes = {"image_size": size, "patch_size": 8, "embed_dim": 24, "num_layers": 2, "num_heads": 2}
    module = create_model(name, **sizes | TEXTS | changes)
    return module, {**_images(size), "tokens": torch.randint(1, 50, (2, 6))}


def _mae() -> tuple[nn.Module, Inputs]:
    changes = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 2, "num_heads": 2}
    decoder = {"decoder_dim": 16, "decoder_num_layers": 1, "decoder_num_heads": 4}
    return create_model("mae_vit_base_patch16_224", **changes, **decoder), {**_images(32), "noise": torch.rand(2, 16)}


OTHERS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "mae_vit_base_patch16_224": _mae,
    "clip_vit_base_patch32_224": lambda: _pair("clip_vit_base_patch32_224"),
    "clip_resnet50": lambda: _pair("clip_resnet50", 64, embed_dim=256, num_layers=(1, 2, 1, 1), num_heads=4),
    "siglip_base_patch16_224": lambda: _pair("siglip_base_patch16_224", hidden_dim=40, text_hidden_dim=36),
    "detr_resnet50": lambda: (create_model("detr_resnet50", **DETR), _images(64)),
    "rtdetr_r18": lambda: (create_model("rtdetr_r18", **RT_DETR), _images(64)),
    "rtdetr_v2_r18": lambda: (create_model("rtdetr_v2_r18", **RT_DETR), _images(64)),
    "yolov10n": lambda: (create_model("yolov10n", **YOLO), _images(64)),
    "fasterrcnn_resnet50_fpn (first stage)": lambda: (
        FirstStage(create_model("fasterrcnn_resnet50_fpn", **RCNN)), _images(64)
    ),
}  # fmt: skip

CLASSIFIERS = {f"{case.name}{' (swiglu)' if 'ffn' in case.changes else ''}": case for case in CASES}

NAMES = (*CLASSIFIERS, *OTHERS)


def make(name: str) -> tuple[nn.Module, Inputs]:
    """A model in evaluation mode with random weights and statistics, and an example of its inputs by name."""
    torch.manual_seed(0)
    if name in OTHERS:
        module, inputs = OTHERS[name]()
    else:
        case = CLASSIFIERS[name]
        module, inputs = build(case), _images(case.size)
    return with_random_state(module), inputs
