"""RT-DETR and RT-DETR v2.

Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", 2023. https://arxiv.org/abs/2304.08069
Lv et al., "RT-DETRv2: Improved Baseline with Bag-of-Freebies for Real-Time Detection Transformer", 2024.
https://arxiv.org/abs/2407.17140

A hybrid encoder makes three maps; their most promising places become queries, and a decoder refines them. The second
version is the same network, trained otherwise; it may read whole pixels, and another number of them on each level.

Dims: b images, c channels, n places of all levels, d width, q queries, k classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.foreign import OF_DETECTORS, OF_TRANSFORMERS, ForeignSettings
from nexus.core.formats import State
from nexus.core.parts import PartSpec
from nexus.layers import channels_last
from nexus.layers.conv_norm import ConvNorm
from nexus.layers.detector_input import Size, Target, sizes_tensor
from nexus.layers.perceptron import Perceptron
from nexus.models.cv.detector import Detector, counted
from nexus.models.cv.rt_detr_backbone import DEPTHS, STEM_DIM, build_backbone
from nexus.models.cv.rt_detr_decoder import (
    Decoder,
    DecoderBlock,
    Denoising,
    Sampling,
    denoising_queries,
    varifocal_from_pairs,
)
from nexus.models.cv.rt_detr_encoder import HybridEncoder
from nexus.models.cv.rt_detr_names import FIXED_SETTINGS, FORMATS
from nexus.ops.boxes import cxcywh_to_xyxy, full_precision, iou
from nexus.ops.set_prediction import (
    Objects,
    Pairs,
    box_losses,
    count_objects,
    focal_cost,
    match_queries,
    pixel_boxes,
    relative_objects,
)

ANCHOR_SIDE = 0.05  # of the finest level, as a share of the image; doubles with each level
ANCHOR_MARGIN = 0.01  # anchors nearer to the border than that are no candidates
PRIOR = 0.01  # of a class, at first


@dataclass(frozen=True, kw_only=True)
class RTDETRConfig(Config):
    """Defaults are RT-DETR-R50 (Table 2).

    Attributes:
        num_classes: Kinds of objects; labels run from 0.
        backbone: resnet18, resnet34, resnet50 and resnet101 are the ResNet-vd of the paper; any other registered
            name is that model, if it gives maps of strides 8, 16 and 32. Or a mapping with `name` and changes, such
            as the width `hidden_dim` of a ResNet.
        backbone_norm: "frozen" for batch normalization that is never trained, which needs pretrained weights to
            start from; "batch" to train from scratch.
        num_frozen_stages: How many parts of the ResNet-vd are not trained: 1 is the stem, 2 also the first stage, ...
        encoder_dim: Width of the encoder; a multiple of 4 and of `num_heads`.
        encoder_hidden_dim: Width inside the MLP of its attention.
        expansion: Width inside its convolutional blocks, as a share of `encoder_dim`.
        embed_dim: Width of the decoder; a multiple of `num_heads`.
        hidden_dim: Width inside its MLPs.
        num_layers: Blocks of the decoder.
        eval_layers: Blocks that run outside training; None is all. Fewer is faster, without training again (Sec. 4.4).
        num_queries: Most places that become queries, and most detections of an image.
        num_points: Places that a head reads on each level.
        sampling: "bilinear", or "nearest" for the discrete reading of v2's "dsp" variants, which has no gradient in
            the places.
        num_denoising: Denoising queries in training, about half of them to be found; 0 is none.
        label_noise: Twice the share of their labels that are drawn anew.
        box_noise: Largest shift of their corners, in halves of the box's sides.
        look_forward_twice: A block's box loss also trains the block before it.
        class_weight: Of the classification loss; in the cost of matching it counts twice.
        box_weight: Of the L1 distance of boxes, in the cost and in the loss.
        giou_weight: Of their GIoU, likewise.
    """

    in_channels: int = 3
    num_classes: int = 80
    backbone: str | dict[str, Any] = "resnet50"
    backbone_norm: Literal["batch", "frozen"] = "frozen"
    num_frozen_stages: int = 1
    encoder_dim: int = 256
    encoder_hidden_dim: int = 1024
    expansion: float = 1.0
    embed_dim: int = 256
    hidden_dim: int = 1024
    num_layers: int = 6
    eval_layers: int | None = None
    num_heads: int = 8
    num_queries: int = 300
    num_points: tuple[int, int, int] = (4, 4, 4)
    sampling: Sampling = "bilinear"
    dropout: float = 0.0
    num_denoising: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    look_forward_twice: bool = True
    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("in_channels", "num_classes", "num_queries", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a detector needs at least 1.")
        for name, step in (("encoder_dim", math.lcm(4, self.num_heads)), ("embed_dim", self.num_heads)):
            width = getattr(self, name)
            if width % step:
                raise ValueError(
                    f"{name} {width} must be a multiple of {step} with num_heads {self.num_heads}, "
                    f"such as {step * max(1, round(width / step))}."
                )
        if self.eval_layers is not None and not 1 <= self.eval_layers <= self.num_layers:
            raise ValueError(f"eval_layers is {self.eval_layers}; it must lie in 1 to num_layers, {self.num_layers}.")
        if min(self.num_points) < 1:
            raise ValueError(f"num_points is {self.num_points}; every level needs at least 1.")


class RTDETR(Detector):
    """Object detector. `config` is an `RTDETRConfig` or a mapping of its fields. Images may have any size."""

    config: RTDETRConfig

    def __init__(self, config: RTDETRConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width, classes = config.embed_dim, config.num_classes
        self.backbone = build_backbone(
            config.backbone,
            config.in_channels,
            norm=config.backbone_norm,
            num_frozen_stages=config.num_frozen_stages,
        )
        self.encoder = HybridEncoder(
            self.backbone.dims,
            config.encoder_dim,
            num_heads=config.num_heads,
            hidden_dim=config.encoder_hidden_dim,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        self.input_proj = nn.ModuleList([ConvNorm(config.encoder_dim, width, 1) for _ in self.backbone.dims])
        self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
        self.enc_output = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.enc_score_head = nn.Linear(width, classes)
        self.enc_bbox_head = Perceptron(width, width, width, 4)
        blocks = [
            DecoderBlock(
                width,
                config.num_heads,
                config.hidden_dim,
                num_points=config.num_points,
                sampling=config.sampling,
                dropout=config.dropout,
            )
            for _ in range(config.num_layers)
        ]
        self.decoder = Decoder(blocks, width, classes, look_forward_twice=config.look_forward_twice)
        self._init_heads()

    def detect(
        self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size], targets: Sequence[Target] | None
    ) -> dict[str, Any]:
        """Returns `boxes` (q, 4), `scores` (q,) and `labels` (q,); a query may occur with several labels. `pred_logits`
        (b, q, k) and `pred_boxes` (b, q, 4), cxcywh from 0 to 1 across the padded batch; `embeddings` (b, q, d);
        `features`, the backbone's maps; with `targets` `losses`.
        """
        canvas = [(batch.shape[-2], batch.shape[-1])] * len(sizes)
        objects = None
        if targets is not None:
            objects = relative_objects(targets, canvas)
        features = self.backbone(channels_last(batch), checkpointing=self.checkpointing)
        memory, levels = flattened(self._encode(features))
        content, box_logits, scores = self._select(memory, levels)
        noisy = self._denoising(objects, content.shape[1]) if objects is not None and self.training else None
        query, start = self._start(content.detach(), box_logits.detach(), noisy)
        answers = self.decoder(
            query,
            start,
            memory,
            levels,
            mask=None if noisy is None else noisy.mask,
            num_layers=self.config.num_layers if self.training else self.config.eval_layers,
            checkpointing=self.checkpointing,
        )
        skip = 0 if noisy is None else noisy.labels.shape[1]
        logits, boxes = answers.logits[:, :, skip:], answers.boxes[:, :, skip:]
        outputs: dict[str, Any] = {"pred_logits": logits[-1], "pred_boxes": boxes[-1]}
        outputs |= {"embeddings": answers.embeddings[:, skip:], "features": features}
        if objects is not None:
            numbered = {f"_{place}": pair for place, pair in enumerate(zip(logits[:-1], boxes[:-1]))}
            layers = {"": (logits[-1], boxes[-1]), **numbered, "_encoder": (scores, box_logits.sigmoid())}
            outputs["losses"] = self._losses(layers, objects)
            if noisy is not None:
                outputs["losses"] |= self._denoising_losses(
                    answers.logits[:, :, :skip], answers.boxes[:, :, :skip], noisy, objects
                )
        if objects is None or not self.training:
            found = best_classes(logits[-1], boxes[-1], sizes_tensor(canvas, batch), self.config.num_queries)
            outputs |= {key: list(value) for key, value in found.items()}
        return outputs

    def _encode(self, features: Sequence[Tensor]) -> list[Float[Tensor, "b d _ _"]]:
        return [layer(x) for layer, x in zip(self.input_proj, self.encoder(features))]

    def part_specs(self) -> dict[str, PartSpec]:
        decoder = ("enc_output", "enc_score_head", "enc_bbox_head", "decoder")
        return {
            "backbone": PartSpec(_backbone, ("images",), ("backbone",)),
            "encoder": PartSpec(_encoder, BACKBONE_MAPS, ("encoder", "input_proj")),
            "decoder": PartSpec(_decoder, ENCODER_MAPS, decoder),
            "head": PartSpec(_head, ("pred_logits", "pred_boxes", "canvas"), ()),
        }

    def _select(self, memory: Float[Tensor, "b n d"], levels: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """Returns content, box logits and class scores of the most promising places (Sec. 4.3)."""
        anchors, valid = anchor_logits(levels, memory)
        candidates = self.enc_output(torch.where(valid, memory, 0))
        scores = self.enc_score_head(candidates)
        count = min(self.config.num_queries, memory.shape[1])
        best = scores.amax(dim=-1).topk(count, dim=1).indices[..., None]
        content = candidates.gather(1, best.expand(-1, -1, memory.shape[-1]))
        box_logits = self.enc_bbox_head(content) + anchors.expand(len(memory), -1, -1).gather(1, best.expand(-1, -1, 4))
        return content, box_logits, scores.gather(1, best.expand(-1, -1, scores.shape[-1]))

    def _start(self, query: Tensor, boxes: Tensor, noisy: Denoising | None) -> tuple[Tensor, Tensor]:
        """Returns queries and box logits that the decoder starts from, denoising queries first."""
        if noisy is not None:
            query = torch.cat([self.denoising_class_embed(noisy.labels), query], dim=1)
            return query, torch.cat([noisy.box_logits, boxes], dim=1)
        if self.training:  # the embedding has a gradient in every step, as distributed training needs
            query = query + 0 * self.denoising_class_embed.weight.sum()
        return query, boxes

    def _denoising(self, objects: Sequence[Objects], num_queries: int) -> Denoising | None:
        config = self.config
        return denoising_queries(
            objects,
            config.num_classes,
            num_queries,
            num_denoising=config.num_denoising,
            label_noise=config.label_noise,
            box_noise=config.box_noise,
        )

    def _losses(
        self, layers: Mapping[str, tuple[Tensor, Tensor]], objects: Sequence[Objects]
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the losses of each layer's class logits and boxes, under its suffix."""
        config, num_objects, losses = self.config, count_objects(objects), {}
        weights = (2 * config.class_weight, config.box_weight, config.giou_weight)
        for suffix, (logits, boxes) in layers.items():
            pairs = match_queries(logits, boxes, objects, focal_cost, weights=weights)
            losses |= self._pair_losses(logits, boxes, pairs, num_objects, suffix)
        return losses

    def _denoising_losses(
        self, logits: Tensor, boxes: Tensor, noisy: Denoising, objects: Sequence[Objects]
    ) -> dict[str, Float[Tensor, ""]]:
        num_objects, losses = count_objects(objects) * noisy.num_groups, {}
        for place, (scores, predicted) in enumerate(zip(logits, boxes)):
            losses |= self._pair_losses(scores, predicted, noisy.pairs, num_objects, f"_denoising_{place}")
        return losses

    def _pair_losses(
        self, logits: Tensor, boxes: Tensor, pairs: Pairs, num_objects: float, suffix: str
    ) -> dict[str, Float[Tensor, ""]]:
        found = full_precision(boxes[pairs.image, pairs.query].detach())
        quality = iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(pairs.boxes))
        distance, overlap = box_losses(boxes, pairs, num_objects)
        return {
            f"classification{suffix}": self.config.class_weight
            * varifocal_from_pairs(logits, quality, pairs)
            / num_objects,
            f"box{suffix}": self.config.box_weight * distance,
            f"giou{suffix}": self.config.giou_weight * overlap,
        }

    def _init_heads(self) -> None:
        """Boxes start at their anchors, and every class is unlikely."""
        bias = -math.log((1 - PRIOR) / PRIOR)
        for head in (self.enc_score_head, *self.decoder.class_embed):
            assert isinstance(head, nn.Linear)
            nn.init.constant_(head.bias, bias)
        for head in (self.enc_bbox_head, *self.decoder.bbox_embed):
            assert isinstance(head, Perceptron)
            nn.init.zeros_(head.last.weight)
            nn.init.zeros_(head.last.bias)
        first = self.enc_output[0]
        assert isinstance(first, nn.Linear)
        for weight in (first.weight, *self.decoder.query_pos_head.parameters(), self.denoising_class_embed.weight):
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        with torch.no_grad():
            self.denoising_class_embed.weight[-1] = 0

    def fit_state(self, state: State) -> State:
        """Returns `state` without the counts of batches that a frozen normalization does not keep."""
        own = self.state_dict()
        return {key: value for key, value in state.items() if key in own or not key.endswith("num_batches_tracked")}

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> RTDETRConfig:
        return hub_config(mapping)


def anchor_logits(levels: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a square box (1, n, 4) at each place, as logits, and whether it is a candidate (1, n, 1)."""
    anchors = []
    for level, (height, width) in enumerate(levels):
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        side = torch.full((height * width,), ANCHOR_SIDE * 2.0**level, device=like.device, dtype=like.dtype)
        down, across = (axis.flatten() for axis in torch.meshgrid(y, x, indexing="ij"))
        anchors.append(torch.stack([across, down, side, side], dim=-1))
    boxes = torch.cat(anchors)[None]
    valid = ((boxes > ANCHOR_MARGIN) & (boxes < 1 - ANCHOR_MARGIN)).all(-1, keepdim=True)
    return torch.where(valid, (boxes / (1 - boxes)).log(), torch.finfo(like.dtype).max), valid


BACKBONE_MAPS, ENCODER_MAPS = ("c3", "c4", "c5"), ("p3", "p4", "p5")


def _backbone(model: RTDETR, images: Tensor) -> Mapping[str, Tensor]:
    canvas = sizes_tensor([(images.shape[-2], images.shape[-1])], images).expand(images.shape[0], -1)
    return {**dict(zip(BACKBONE_MAPS, model.backbone(channels_last(images)))), "canvas": canvas}


def _encoder(model: RTDETR, *features: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(ENCODER_MAPS, model._encode(features)))


def _decoder(model: RTDETR, *maps: Tensor) -> Mapping[str, Tensor]:
    memory, levels = flattened(maps)
    query, start, _ = model._select(memory, levels)
    answers = model.decoder(query, start, memory, levels, num_layers=model.config.eval_layers)
    return {"embeddings": answers.embeddings, "pred_logits": answers.logits[-1], "pred_boxes": answers.boxes[-1]}


def _head(model: RTDETR, logits: Tensor, boxes: Tensor, canvas: Tensor) -> Mapping[str, Tensor]:
    return counted(best_classes(logits, boxes, canvas, model.config.num_queries))


def flattened(maps: Sequence[Float[Tensor, "b d _ _"]]) -> tuple[Float[Tensor, "b n d"], list[tuple[int, int]]]:
    """Returns maps row by row, one after the other, and their (height, width)."""
    memory = torch.cat([rearrange(x, "b d h w -> b (h w) d") for x in maps], dim=1)
    return memory, [(x.shape[-2], x.shape[-1]) for x in maps]


def best_classes(
    logits: Float[Tensor, "b q k"], boxes: Float[Tensor, "b q 4"], sizes: Int[Tensor, "b 2"], count: int
) -> dict[str, Tensor]:
    """Returns the `count` likeliest pairs of a query and a class, best first."""
    chances = full_precision(logits).sigmoid().flatten(1)
    scores, index = chances.topk(min(count, chances.shape[1]), dim=1)
    query = torch.div(index, logits.shape[-1], rounding_mode="floor")
    boxes = pixel_boxes(boxes, sizes).gather(1, query[..., None].expand(-1, -1, 4))
    return {"boxes": boxes, "scores": scores, "labels": index % logits.shape[-1]}


def hub_config(mapping: Mapping[str, Any]) -> RTDETRConfig:
    """Returns our configuration for a config.json of transformers, version 1 or 2 of the model.

    Raises:
        ValueError: Something in it is not built here.
    """
    settings = ForeignSettings(mapping, builder="RT-DETR")
    body = settings.section("backbone_config")
    settings.get("backbone")
    block, depths = body.text("layer_type", "bottleneck"), body.integers("depths", (3, 4, 6, 3), 1)
    names = [name for name, shape in DEPTHS.items() if shape == (block == "bottleneck", depths)]
    if not names or body.integer("embedding_size", STEM_DIM) != STEM_DIM:
        raise ValueError(f"backbone_config has the blocks {depths}; the ResNet-vd here are {', '.join(DEPTHS)}.")
    widths = [STEM_DIM * (4 if block == "bottleneck" else 1) * 2**stage for stage in range(4)]
    first = block == "basic"
    body.expect(hidden_act="relu", downsample_in_bottleneck=False, hidden_sizes=widths)
    body.expect(downsample_in_first_stage=(first, not first))  # a map of the same size either way
    heads, width = settings.integer("decoder_attention_heads", 8), settings.integer("d_model", 256)
    encoder_width = settings.integer("encoder_hidden_dim", 256)
    settings.expect(
        **FIXED_SETTINGS,
        encoder_attention_heads=heads,
        encoder_in_channels=widths[1:],
        decoder_in_channels=[width] * 3,
    )
    frozen = settings.boolean("freeze_backbone_batch_norms", True)
    config = RTDETRConfig(
        in_channels=body.integer("num_channels", 3),
        num_classes=settings.num_classes(80),
        backbone=names[0],
        backbone_norm="frozen" if frozen else "batch",
        num_frozen_stages=int(frozen),
        encoder_dim=encoder_width,
        encoder_hidden_dim=settings.integer("encoder_ffn_dim", 1024),
        expansion=settings.number("hidden_expansion", 1.0),
        embed_dim=width,
        hidden_dim=settings.integer("decoder_ffn_dim", 1024),
        num_layers=settings.integer("decoder_layers", 6),
        num_heads=heads,
        num_queries=settings.integer("num_queries", 300),
        num_points=(settings.integer("decoder_n_points", 4),) * 3,
        sampling="nearest" if settings.text("decoder_method", "default") == "discrete" else "bilinear",
        dropout=settings.number("dropout", 0.0),
        num_denoising=settings.integer("num_denoising", 100),
        label_noise=settings.number("label_noise_ratio", 0.5),
        box_noise=settings.number("box_noise_scale", 1.0),
    )
    settings.finish(OF_TRANSFORMERS | OF_DETECTORS)
    return config


RTDETR.head_prefixes = ("enc_score_head.", "decoder.class_embed.", "denoising_class_embed.")
RTDETR.hub_types = ("rt_detr", "rt_detr_v2")
RTDETR.formats = FORMATS

SMALL = RTDETRConfig(backbone_norm="batch", num_frozen_stages=0, expansion=0.5)
SIZES = {  # Table 2
    "r18": SMALL.replace(backbone="resnet18", num_layers=3),
    "r34": SMALL.replace(backbone="resnet34", num_layers=4),
    "r50_m": RTDETRConfig(expansion=0.5, eval_layers=3),
    "r50": RTDETRConfig(),
    "r101": RTDETRConfig(backbone="resnet101", encoder_dim=384, encoder_hidden_dim=2048),
}
VARIANTS = dict(
    chain.from_iterable(((f"rtdetr_{size}", config), (f"rtdetr_v2_{size}", config)) for size, config in SIZES.items())
)
