"""DETR.

Carion et al., "End-to-End Object Detection with Transformers", 2020. https://arxiv.org/abs/2005.12872

A transformer turns the last map of a backbone into memory, and a fixed set of queries into boxes: one query, at most
one object. Neither anchors nor suppression.

Dims: b images, c channels, n places of the map, d width, q queries, k classes, l decoder layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.core.config import Config
from nexus.core.foreign import OF_DETECTORS, OF_TRANSFORMERS, ForeignSettings
from nexus.core.formats import Format, State
from nexus.core.parts import PartSpec
from nexus.layers import channels_last
from nexus.layers.detector_input import Size, Target, inside_images, sizes_tensor
from nexus.layers.frozen_norm import freeze_batch_norm
from nexus.layers.mlp import Mlp
from nexus.layers.perceptron import Perceptron
from nexus.layers.post_norm import CrossAttention, PostNormBlock
from nexus.layers.sine_positions import sine_positions
from nexus.models.cv.detector import Detector, counted
from nexus.models.cv.rcnn.pyramid import backbone_maps, freeze_stages, make_backbone
from nexus.models.cv.resnet import Bottleneck, ResNet
from nexus.ops.set_prediction import (
    Objects,
    box_losses,
    count_objects,
    match_queries,
    pixel_boxes,
    relative_objects,
    softmax_cost,
)


@dataclass(frozen=True, kw_only=True)
class DETRConfig(Config):
    """Defaults are DETR-R50 (Sec. 4, A.4).

    Attributes:
        num_classes: Kinds of objects. Published weights have 91, COCO's category numbers, of which 0 and 10 more
            never occur. "No object" is one class more, the last.
        backbone: Name of a registered model that gives feature maps, or a mapping with `name` and changes of its
            configuration.
        dilation: The last stage of a ResNet keeps the stride of the one before it ("DC5", Sec. 4).
        num_frozen_stages: How many parts of a ResNet are not trained: 1 is the stem, 2 also the first stage, ...
        embed_dim: Width of the transformer; a multiple of 4 and of `num_heads`.
        num_layers: Blocks of the encoder and of the decoder.
        hidden_dim: Width inside the MLPs.
        num_queries: Most objects that are found in one image.
        class_weight: Of the class in the cost of matching and in the loss.
        box_weight: Likewise, of the L1 distance of boxes.
        giou_weight: Likewise, of their GIoU.
        no_object_weight: Of "no object" in the classification loss (Sec. 3.1).
    """

    in_channels: int = 3
    num_classes: int = 91
    backbone: str | dict[str, Any] = "resnet50"
    dilation: bool = False
    num_frozen_stages: int = 2
    embed_dim: int = 256
    num_layers: tuple[int, int] = (6, 6)
    num_heads: int = 8
    hidden_dim: int = 2048
    num_queries: int = 100
    dropout: float = 0.1
    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("in_channels", "num_classes", "num_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a detector needs at least 1.")
        if self.embed_dim % self.num_heads or self.embed_dim % 4:
            near = math.lcm(4, self.num_heads) * max(1, round(self.embed_dim / math.lcm(4, self.num_heads)))
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of 4 and of num_heads {self.num_heads}, such as {near}."
            )
        if min(self.num_layers) < 1:
            raise ValueError(f"num_layers is {self.num_layers}; encoder and decoder need at least 1 block each.")


class DecoderBlock(nn.Module):
    """Queries look at each other, then at the image (Fig. 10, right)."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        width, heads, dropout = config.embed_dim, config.num_heads, config.dropout
        self.self_attn = CrossAttention(width, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.hidden_dim, activation=nn.ReLU, dropout=dropout)
        self.norm3 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        query: Float[Tensor, "q d"],
        memory: Float[Tensor, "b n d"],
        position: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b 1 1 n"] | None,
    ) -> Float[Tensor, "b q d"]:
        x = self._compare(x, query)
        x = self.norm2(x + self.drop(self.cross_attn(x + query, memory + position, memory, mask)))
        return self.norm3(x + self.mlp(x))

    def attention_maps(
        self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "b heads q n"]:
        """Returns where each query looks, for the arguments of `forward`."""
        return self.cross_attn.maps(self._compare(x, query) + query, memory + position, mask)

    def _compare(self, x: Tensor, query: Tensor) -> Tensor:
        placed = x + query
        return self.norm1(x + self.drop(self.self_attn(placed, placed, x)))


class DETR(Detector):
    """Object detector. `config` is a `DETRConfig` or a mapping of its fields. Images may have any size."""

    config: DETRConfig
    multiple_of = 1

    def __init__(self, config: DETRConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        maps = backbone_maps(config.backbone, config.in_channels)
        if maps.tokens:
            raise ValueError(f"backbone {config.backbone} gives tokens; DETR reads a map, as resnet50 gives.")
        self.map_index = maps.index[-1]
        self.backbone = make_backbone(config.backbone, config.in_channels)
        freeze_batch_norm(self.backbone)
        freeze_stages(self.backbone, config.num_frozen_stages)
        if config.dilation:
            dilate_last_stage(self.backbone)
        for key, parameter in self.backbone.named_parameters():
            if key in maps.unread:
                parameter.requires_grad_(False)
        width, (encoder_layers, decoder_layers) = config.embed_dim, config.num_layers
        self.input_proj = nn.Conv2d(maps.dims[-1], width, 1)
        self.encoder = nn.ModuleList(
            [
                PostNormBlock(width, config.num_heads, config.hidden_dim, dropout=config.dropout)
                for _ in range(encoder_layers)
            ]
        )
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.decoder = nn.ModuleList([DecoderBlock(config) for _ in range(decoder_layers)])
        self.decoder_norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, config.num_classes + 1)
        self.bbox_embed = Perceptron(width, width, width, 4)
        for block in [*self.encoder, *self.decoder]:
            for weight in block.parameters():
                if weight.ndim > 1:
                    nn.init.xavier_uniform_(weight)

    def forward(
        self,
        images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _ _"]],
        targets: Sequence[Target] | None = None,
        *,
        image_sizes: Sequence[Size] | None = None,
        output_attentions: bool = False,
    ) -> dict[str, Any]:
        """Detects objects, as every `Detector` does.

        With `output_attentions` also returns `attentions`, where each query looks: one (b, heads, q, n) per decoder
        block, over the places of `features[-1]` row by row.
        """
        batch, sizes = self.read(images, targets, image_sizes)
        return self.detect(batch, sizes, targets, output_attentions=output_attentions)

    def detect(
        self,
        batch: Float[Tensor, "b c h w"],
        sizes: Sequence[Size],
        targets: Sequence[Target] | None,
        *,
        output_attentions: bool = False,
    ) -> dict[str, Any]:
        """Returns `boxes` (q, 4), `scores` (q,), `labels` (q,) and `queries` (q,), which query each of them is from;
        `pred_logits` (b, q, k + 1) and `pred_boxes` (b, q, 4), cxcywh from 0 to 1 across each image, in the order of
        the queries; `embeddings` (b, q, d); `features`, the backbone's maps; with `targets` `losses`.
        """
        features = self.backbone(channels_last(batch))["features"]
        seen = seen_places(batch, sizes_tensor(sizes, batch), features[self.map_index])
        mask = None if all(size == batch.shape[-2:] for size in sizes) else seen.flatten(1)[:, None, None]
        memory, position = self._encode(features[self.map_index], seen, mask)
        states = self._decode(memory, position, mask)
        answers = self.decoder_norm(torch.stack(states[1:]))
        logits, boxes = self.class_embed(answers), self.bbox_embed(answers).sigmoid()
        outputs: dict[str, Any] = {"pred_logits": logits[-1], "pred_boxes": boxes[-1]}
        outputs |= {"embeddings": answers[-1], "features": features}
        if output_attentions:
            around = (self.query_embed.weight, memory, position, mask)
            blocks = [block for block in self.decoder if isinstance(block, DecoderBlock)]
            outputs["attentions"] = [block.attention_maps(x, *around) for block, x in zip(blocks, states)]
        if targets is not None:
            outputs["losses"] = self._losses(logits, boxes, relative_objects(targets, sizes))
        if targets is None or not self.training:
            ranked = rank_queries(logits[-1], boxes[-1], sizes_tensor(sizes, batch))
            outputs |= {key: list(value) for key, value in ranked.items()}
        return outputs

    def _encode(
        self, last: Float[Tensor, "b c h w"], seen: Bool[Tensor, "b h w"], mask: Tensor | None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Returns what the encoder makes of the last map, and the positions of its places."""
        position = sine_positions(seen, self.config.embed_dim, last.dtype)
        memory = rearrange(self.input_proj(last), "b d h w -> b (h w) d")
        for block in self.encoder:
            memory = self._run(block, memory, position, mask)
        return memory, position

    def part_specs(self) -> dict[str, PartSpec]:
        decoder = ("query_embed", "decoder", "decoder_norm", "class_embed", "bbox_embed")
        return {
            "backbone": PartSpec(_backbone, ("images", "image_sizes"), ("backbone",)),
            "encoder": PartSpec(_encoder, ("map", "seen"), ("input_proj", "encoder")),
            "decoder": PartSpec(_decoder, ("memory", "position", "seen"), decoder),
            "head": PartSpec(_head, ("pred_logits", "pred_boxes", "image_sizes"), ()),
        }

    def _decode(self, memory: Tensor, position: Tensor, mask: Tensor | None) -> list[Float[Tensor, "b q d"]]:
        """Returns the queries' states: zeros at first, then after each block."""
        query = self.query_embed.weight
        states = [query.new_zeros(len(memory), *query.shape).to(memory.dtype)]
        for block in self.decoder:
            states.append(self._run(block, states[-1], query, memory, position, mask))
        return states

    def _run(self, block: nn.Module, *arguments: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def _losses(
        self, logits: Float[Tensor, "l b q _"], boxes: Float[Tensor, "l b q 4"], objects: Sequence[Objects]
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the weighted losses of the last block, and of those before it with their number (Sec. 3.1, A.2)."""
        config = self.config
        weights = (config.class_weight, config.box_weight, config.giou_weight)
        num_objects = count_objects(objects)
        weight = torch.ones(config.num_classes + 1, device=logits.device, dtype=logits.dtype)
        weight[-1] = config.no_object_weight
        losses = {}
        for layer, (scores, predicted) in enumerate(zip(logits, boxes)):
            pairs = match_queries(scores, predicted, objects, softmax_cost, weights=weights)
            labels = torch.full(scores.shape[:2], config.num_classes, device=scores.device)
            labels[pairs.image, pairs.query] = pairs.labels
            distance, overlap = box_losses(predicted, pairs, num_objects)
            suffix = "" if layer == len(logits) - 1 else f"_{layer}"
            losses[f"classification{suffix}"] = config.class_weight * F.cross_entropy(
                scores.flatten(0, 1), labels.flatten(), weight
            )
            losses[f"box{suffix}"] = config.box_weight * distance
            losses[f"giou{suffix}"] = config.giou_weight * overlap
        return losses

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> DETRConfig:
        settings = ForeignSettings(mapping, builder="DETR")
        backbone = settings.section("backbone_config")
        name = settings.get("backbone") or backbone.get("backbone")
        if not isinstance(name, str):
            raise ValueError("The hub's config.json names no backbone of timm; DETR reads the hub's files that do.")
        backbone.expect(features_only=True, num_channels=3, output_stride=32, freeze_batch_norm_2d=(True, False))
        for key in ("out_indices", "use_pretrained_backbone"):
            backbone.get(key)
        options = settings.section("backbone_kwargs")
        stride = options.integer("output_stride", 16 if settings.boolean("dilation", False) else 32)
        if stride not in (16, 32):
            raise options.refuse("output_stride", "it must be 16 or 32")
        options.integer("in_chans", 3)
        options.get("out_indices")
        settings.expect(activation_function="relu", position_embedding_type="sine", scale_embedding=False)
        heads = settings.integer("encoder_attention_heads", 8)
        hidden = settings.integer("encoder_ffn_dim", 2048)
        settings.expect(decoder_ffn_dim=hidden, decoder_attention_heads=heads)
        layers = settings.integer("encoder_layers", 6), settings.integer("decoder_layers", 6)
        config = DETRConfig(
            in_channels=settings.integer("num_channels", 3),
            num_classes=settings.num_classes(91),
            backbone=name,
            dilation=stride == 16,
            embed_dim=settings.integer("d_model", 256),
            num_layers=layers,
            num_heads=heads,
            hidden_dim=hidden,
            num_queries=settings.integer("num_queries", 100),
            dropout=settings.number("dropout", 0.1),
        )
        settings.finish(OF_TRANSFORMERS | OF_DETECTORS)
        return config


def _backbone(model: DETR, images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    last = model.backbone(channels_last(images))["features"][model.map_index]
    return {"map": last, "seen": seen_places(images, sizes, last)}


def _encoder(model: DETR, last: Tensor, seen: Tensor) -> Mapping[str, Tensor]:
    memory, position = model._encode(last, seen, seen.flatten(1)[:, None, None])
    return {"memory": memory, "position": position}


def _decoder(model: DETR, memory: Tensor, position: Tensor, seen: Tensor) -> Mapping[str, Tensor]:
    embeddings = model.decoder_norm(model._decode(memory, position, seen.flatten(1)[:, None, None])[-1])
    return {
        "embeddings": embeddings,
        "pred_logits": model.class_embed(embeddings),
        "pred_boxes": model.bbox_embed(embeddings).sigmoid(),
    }


def _head(model: DETR, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    del model
    return counted(rank_queries(logits, boxes, sizes))


def seen_places(
    batch: Float[Tensor, "b c _ _"], sizes: Int[Tensor, "b 2"], like: Float[Tensor, "b _ h w"]
) -> Bool[Tensor, "b h w"]:
    """Returns which places of a map show an image of `sizes`, by their nearest pixel, rather than padding."""
    seen = inside_images(batch, sizes).to(batch.dtype)
    return F.interpolate(seen, size=like.shape[-2:], mode="nearest")[:, 0] > 0


def rank_queries(
    logits: Float[Tensor, "b q _"], boxes: Float[Tensor, "b q 4"], sizes: Int[Tensor, "b 2"]
) -> dict[str, Tensor]:
    """Returns every query's box in pixels and its likeliest class other than "no object", best first."""
    scores, labels = logits.float().softmax(dim=-1)[..., :-1].max(dim=-1)
    if torch.compiler.is_exporting():  # ONNX has no sort that keeps the order of equals
        scores, order = scores.topk(scores.shape[1], dim=1)
    else:
        scores, order = scores.sort(dim=1, descending=True, stable=True)
    boxes = pixel_boxes(boxes, sizes).gather(1, order[..., None].expand(-1, -1, 4))
    return {"boxes": boxes, "scores": scores, "labels": labels.gather(1, order), "queries": order}


def dilate_last_stage(body: nn.Module) -> None:
    """Takes the stride from the last stage of a ResNet, and spreads the 3x3 convolutions of its other blocks by 2.

    Raises:
        ValueError: It is no ResNet of bottlenecks.
    """
    blocks = [block for block in body.layer4 if isinstance(block, Bottleneck)] if isinstance(body, ResNet) else []
    if not blocks:
        raise ValueError("dilation is true; it needs a ResNet of bottlenecks, such as resnet50 or resnet101.")
    for place, block in enumerate(blocks):
        convolutions = [block.conv2, *block.downsample.children()][:2]
        for convolution in convolutions:
            assert isinstance(convolution, nn.Conv2d)
            convolution.stride = (1, 1)
        if place:
            block.conv2.dilation = block.conv2.padding = (2, 2)


def split_projections(state: State) -> State:
    """Returns `state` with each fused `in_proj` of torch's attention as the three projections that it holds."""
    result = {}
    for key, value in state.items():
        name, fused, kind = key.partition("in_proj_")
        if not fused:
            result[key] = value
            continue
        for part, rows in zip("qkv", value.chunk(3)):
            result[f"{name}{part}_proj.{kind}"] = rows
    return result


AUTHORS_NAMES = {
    r"\.num_batches_tracked$": None,
    r"^backbone\.0\.body\.": "backbone.",
    r"^transformer\.(en|de)coder\.layers\.": r"\1coder.",
    r"^transformer\.decoder\.norm\.": "decoder_norm.",
    r"\.multihead_attn\.": ".cross_attn.",
    r"\.out_proj\.": ".o_proj.",
    r"\.linear(\d)\.": r".mlp.fc\1.",
}
HUB_NAMES = {
    r"\.num_batches_tracked$": None,
    r"^model\.backbone\.(conv_encoder\.)?model\.": "backbone.",
    r"^model\.input_projection\.": "input_proj.",
    r"^model\.query_position_embeddings\.": "query_embed.",
    r"^model\.decoder\.layernorm\.": "decoder_norm.",
    r"^model\.(en|de)coder\.layers\.": r"\1coder.",
    r"\.self_attn_layer_norm\.": ".norm1.",
    r"^(encoder\.\d+)\.final_layer_norm\.": r"\1.norm2.",
    r"\.encoder_attn_layer_norm\.": ".norm2.",
    r"^(decoder\.\d+)\.final_layer_norm\.": r"\1.norm3.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"\.out_proj\.": ".o_proj.",
    r"\.(mlp\.)?fc([12])\.": r".mlp.fc\2.",
    r"^class_labels_classifier\.": "class_embed.",
    r"^bbox_predictor\.": "bbox_embed.",
}

DETR.head_prefixes = ("class_embed.",)
DETR.hub_types = ("detr",)
DETR.formats = (
    Format("authors", detect=r"^backbone\.0\.body\.", rename=AUTHORS_NAMES, convert=split_projections),
    Format("hub", detect=r"^class_labels_classifier\.", rename=HUB_NAMES),
)

VARIANTS = {  # Table 1
    "detr_resnet50": DETRConfig(),
    "detr_resnet50_dc5": DETRConfig(dilation=True),
    "detr_resnet101": DETRConfig(backbone="resnet101"),
    "detr_resnet101_dc5": DETRConfig(backbone="resnet101", dilation=True),
}
