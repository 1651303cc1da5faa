"""References of DETR and RT-DETR: the models of transformers, and their losses.

Predictions and losses are one tensor, so that every weight has a gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.models.cv.detr import DETRConfig
from nexus.models.cv.rt_detr import RTDETRConfig
from nexus.ops.boxes import xyxy_to_cxcywh
from nexus.proofs.detr_names import detr_authors_names, rtdetr_authors_names
from nexus.proofs.family import Family, Oracle

Target = dict[str, Tensor]
DETR_SMALL: dict[str, Any] = {
    "num_classes": 7,
    "embed_dim": 32,
    "num_layers": (2, 3),
    "num_heads": 4,
    "hidden_dim": 48,
    "num_queries": 6,
    "dropout": 0.0,
    "num_frozen_stages": 0,
}
RTDETR_SMALL: dict[str, Any] = {
    "num_classes": 5,
    "num_frozen_stages": 0,
    "encoder_dim": 32,
    "encoder_hidden_dim": 48,
    "embed_dim": 32,
    "hidden_dim": 40,
    "num_layers": 3,
    "eval_layers": None,
    "num_heads": 4,
    "num_queries": 12,
    "num_points": (2, 2, 2),
    "num_denoising": 8,
    "look_forward_twice": False,  # as transformers trains
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """transformers makes noise, masks and weights of the default type."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def hub_detr(transformers: ModuleType, config: DETRConfig) -> nn.Module:
    """Returns the model of transformers of a configuration."""
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            backbone=config.backbone,
            use_timm_backbone=True,
            use_pretrained_backbone=False,
            backbone_config=None,
            dilation=config.dilation,
            d_model=config.embed_dim,
            encoder_layers=config.num_layers[0],
            decoder_layers=config.num_layers[1],
            encoder_ffn_dim=config.hidden_dim,
            decoder_ffn_dim=config.hidden_dim,
            encoder_attention_heads=config.num_heads,
            decoder_attention_heads=config.num_heads,
            num_queries=config.num_queries,
            num_labels=config.num_classes,
            attn_implementation="eager",
        )
    ).eval()


def enliven_detr(model: nn.Module) -> None:
    """Draws weights that make its answers differ."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith(("running_mean", ".bias")):
                value.normal_(std=0.1)
            elif "query_position" in name or "q_proj" in name or "k_proj" in name:
                value.normal_(std=0.7)  # no two answers may be alike, or a rounding decides which one is matched
            elif "classifier" in name or "bbox_predictor" in name:
                value.normal_(std=0.5)


def detr_arguments(images: list[Tensor], targets: list[Target]) -> dict[str, Any]:
    """Returns images of different sizes and their targets as transformers' DETR takes them."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch, mask = images[0].new_zeros(len(images), 3, height, width), torch.zeros(len(images), height, width)
    labels = []
    for place, (image, target) in enumerate(zip(images, targets)):
        _, h, w = image.shape
        batch[place, :, :h, :w], mask[place, :h, :w] = image, 1
        boxes = xyxy_to_cxcywh(target["boxes"]) / torch.tensor([w, h, w, h], dtype=batch.dtype)
        labels.append({"class_labels": target["labels"], "boxes": boxes})
    return {"pixel_values": batch, "pixel_mask": mask.long(), "labels": labels}


def run_detr(model: Any, images: list[Tensor], targets: list[Target]) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """Returns the outputs of transformers' DETR, its loss, and its losses with those of the blocks before the last.

    With `auxiliary_loss` transformers feeds the normalized answer of a block to the next one, as the paper and the
    authors' code do not; so the answers are taken from the blocks here and given to its loss.
    """
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    states: list[Tensor] = []
    blocks = model.model.decoder.layers
    hooks = [block.register_forward_hook(lambda *given: states.append(given[-1])) for block in blocks]
    arguments = detr_arguments(images, targets)
    labels = arguments.pop("labels")
    outputs = model(**arguments)
    for hook in hooks:
        hook.remove()
    answers = model.model.decoder.layernorm(torch.stack(states))
    logits, boxes = model.class_labels_classifier(answers), model.bbox_predictor(answers).sigmoid()
    torch.testing.assert_close(logits[-1], outputs.logits)
    model.config.auxiliary_loss = True
    with default_dtype(images[0].dtype):  # its weights of classes are of the default type
        found: Any = ForObjectDetectionLoss(logits[-1], labels, "cpu", boxes[-1], model.config, logits, boxes)
    model.config.auxiliary_loss = False
    return outputs, found[0], found[1]


def _targets(images: Tensor, kinds: int) -> list[Target]:
    boxes = images.new_tensor([[5, 8, 40, 44], [30, 20, 80, 60], [50, 2, 61, 15]])
    return [
        {"boxes": boxes, "labels": torch.tensor([0, kinds - 1, 1])},
        {"boxes": boxes[1:2], "labels": torch.tensor([2])},
    ]


def _cut(images: Tensor) -> list[Tensor]:
    return [images[0], images[1, :, :-24, :-32]]


def _joined(logits: Tensor, boxes: Tensor, loss: Tensor) -> Tensor:
    return torch.cat([logits.flatten(), boxes.flatten(), loss.flatten()])


def _our_detr(model: Any, images: Tensor) -> Tensor:
    outputs = model(_cut(images), _targets(images, 7))
    return _joined(outputs["pred_logits"], outputs["pred_boxes"], sum(outputs["losses"].values(), torch.zeros(())))


def _their_detr(model: nn.Module, images: Tensor) -> Tensor:
    outputs, loss, _ = run_detr(model, _cut(images), _targets(images, 7))
    return _joined(outputs.logits, outputs.pred_boxes, loss)


def _our_answers(model: Any, images: Tensor) -> Tensor:
    outputs = model(_cut(images))
    return torch.cat([outputs["pred_logits"], outputs["pred_boxes"]], dim=-1)


def _their_answers(model: Any, images: Tensor) -> Tensor:
    arguments = detr_arguments(_cut(images), _targets(images, 7))
    outputs = model(pixel_values=arguments["pixel_values"], pixel_mask=arguments["pixel_mask"])
    return torch.cat([outputs.logits, outputs.pred_boxes], dim=-1)


def _predictions(model: NexusModule, images: Tensor) -> Tensor:
    outputs = model(images)
    return torch.cat([outputs["pred_logits"], outputs["pred_boxes"]], dim=-1)


def hub_rtdetr(transformers: ModuleType, config: RTDETRConfig, *, version: int = 1, **changes: Any) -> nn.Module:
    """Returns the model of transformers of a configuration whose backbone is a ResNet-vd."""
    bottleneck = config.backbone not in ("resnet18", "resnet34")
    body = transformers.RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[256, 512, 1024, 2048] if bottleneck else [64, 128, 256, 512],
        depths=[3, 4, 6, 3] if bottleneck else [2, 2, 2, 2],
        layer_type="bottleneck" if bottleneck else "basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    settings = {
        "backbone_config": body,
        "freeze_backbone_batch_norms": config.backbone_norm == "frozen",
        "encoder_in_channels": body.hidden_sizes[1:],
        "encoder_hidden_dim": config.encoder_dim,
        "encoder_ffn_dim": config.encoder_hidden_dim,
        "encoder_attention_heads": config.num_heads,
        "hidden_expansion": config.expansion,
        "d_model": config.embed_dim,
        "decoder_in_channels": [config.encoder_dim] * 3,
        "decoder_ffn_dim": config.hidden_dim,
        "decoder_layers": config.num_layers,
        "decoder_attention_heads": config.num_heads,
        "decoder_n_points": config.num_points[0],
        "num_queries": config.num_queries,
        "num_labels": config.num_classes,
        "num_denoising": config.num_denoising,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }
    described, kind = (
        (transformers.RTDetrConfig, transformers.RTDetrForObjectDetection),
        (transformers.RTDetrV2Config, transformers.RTDetrV2ForObjectDetection),
    )[version - 1]
    return kind(described(**{**settings, **changes})).eval()


def enliven_rtdetr(model: nn.Module) -> None:
    """Draws weights that make its answers differ."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", ".bias")):
                value.normal_(std=0.1)
            elif any(part in name for part in ("score_head", "class_embed", "bbox", "sampling", "attention_weights")):
                value.normal_(std=0.3)


def rtdetr_labels(images: Tensor, targets: list[Target]) -> list[Target]:
    """Returns targets as transformers' RT-DETR takes them."""
    scale = images.new_tensor([images.shape[3], images.shape[2]] * 2)
    return [{"class_labels": t["labels"], "boxes": xyxy_to_cxcywh(t["boxes"]) / scale} for t in targets]


def _our_rtdetr(model: NexusModule, images: Tensor) -> Tensor:
    torch.manual_seed(5)
    outputs = model.train()(images, _targets(images, 5))
    return _joined(outputs["pred_logits"], outputs["pred_boxes"], sum(outputs["losses"].values(), torch.zeros(())))


def _their_rtdetr(model: Any, images: Tensor) -> Tensor:
    with default_dtype(images.dtype):
        torch.manual_seed(5)
        outputs = model.train()(images, labels=rtdetr_labels(images, _targets(images, 5)))
    noisy = outputs.logits.shape[1] - RTDETR_SMALL["num_queries"]  # denoising queries come first
    return _joined(outputs.logits[:, noisy:], outputs.pred_boxes[:, noisy:], outputs.loss)


def _detr(variants: tuple[str, ...], backbone: str, *, losses: bool = True) -> Family:
    given: dict[str, Any] = {
        "library": "transformers",
        "build": hub_detr,
        "run": _their_detr if losses else _their_answers,
        "read": _our_detr if losses else _our_answers,
        "randomize": enliven_detr,
    }
    hub = Oracle(**given, spelling="hub", float32_tolerance=3e-4)
    names: dict[str, Any] = {"spelling": "authors", "publish": detr_authors_names, "gradients": False}
    authors = Oracle(**given, **names, other_size=False, float32_tolerance=None)
    tiny = DETR_SMALL | {"backbone": backbone}
    sizes: dict[str, Any] = {"image_size": (96, 130), "other_size": (120, 100)}
    return Family(variants=variants, tiny=tiny, oracles=(hub, authors), read=_predictions, **sizes)


def _rtdetr(variants: tuple[str, ...], backbone: str, version: int) -> Family:
    given: dict[str, Any] = {
        "library": "transformers",
        "build": partial(hub_rtdetr, version=version),
        "run": _their_rtdetr,
        "read": _our_rtdetr,
        "randomize": enliven_rtdetr,
        "float32_tolerance": None,  # a rounding decides which places become queries
    }
    hub = Oracle(**given, spelling="hub")
    names = partial(rtdetr_authors_names, version=version)
    authors = Oracle(**given, spelling="authors", publish=names, other_size=False, gradients=False)
    tiny = RTDETR_SMALL | {"backbone": backbone}
    sizes: dict[str, Any] = {"image_size": (64, 96), "other_size": (96, 128)}
    return Family(variants=variants, tiny=tiny, oracles=(hub, authors), read=_predictions, **sizes)


DETRS = (
    _detr(("detr_resnet50", "detr_resnet101"), "resnet18"),
    # The dilation needs bottlenecks; after so deep a random net answers are alike, and a rounding decides on matches.
    _detr(("detr_*_dc5",), "resnet50", losses=False),
    _rtdetr(("rtdetr_r18", "rtdetr_r34"), "resnet18", 1),
    _rtdetr(("rtdetr_r50*", "rtdetr_r101"), "resnet50", 1),
    _rtdetr(("rtdetr_v2_r18", "rtdetr_v2_r34"), "resnet18", 2),
    _rtdetr(("rtdetr_v2_r50*", "rtdetr_v2_r101"), "resnet50", 2),
)
