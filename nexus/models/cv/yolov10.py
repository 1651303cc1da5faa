"""YOLOv10.

Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", 2024. https://arxiv.org/abs/2405.14458

Two heads read the same pyramid. In training the one-to-many head gives ten answers for an object, a rich signal, and
the one-to-one head a single one, by the same measure of a good answer. In evaluation only the one-to-one head runs:
there are no duplicates to suppress.

Dims: b images, c channels, n places of all maps, k classes, r bins of a distance, h w pixels or places.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.core.config import Config, nearest
from nexus.core.formats import Format
from nexus.core.parts import PartSpec
from nexus.layers.conv_norm import ConvNorm
from nexus.layers.csp import Bottleneck, CSPStage, PyramidPooling, conv_unit
from nexus.layers.detector_input import Size, Target, fill_padding, sizes_tensor
from nexus.models.cv.detector import Detector, counted
from nexus.models.cv.yolov10_blocks import (
    CompactBlock,
    Downsample,
    LargeDepthwise,
    PartialAttention,
)
from nexus.ops.aligned import Places, aligned_losses, boxes_from_bins, places_of
from nexus.ops.boxes import full_precision

STRIDES = (8, 16, 32)
STAGES = ("stage2", "stage3", "stage4", "stage5", "top_down4", "top_down3", "bottom_up4", "bottom_up5")
MAX_CLASS_DIM = 100
OBJECTS_PER_IMAGE, REFERENCE_SIZE = 5, 640
"""At the start of training each class is so likely that an image of that many pixels a side has that many objects."""


@dataclass(frozen=True, kw_only=True)
class YOLOv10Config(Config):
    """Defaults are YOLOv10-N (Sec. 4.1).

    Attributes:
        num_classes: Kinds of objects.
        dims: Channels of the maps of strides 2, 4, 8, 16 and 32.
        depths: Blocks in the four stages of the backbone.
        neck_depth: Blocks in each stage of the neck.
        compact: Stages with compact inverted blocks (Sec. 3.2, rank-guided block design); the stages are stage2,
            ..., stage5 of the backbone, top_down4, top_down3, bottom_up4 and bottom_up5 of the neck.
        large_kernel: Those of them with 7x7 depthwise convolutions.
        num_bins: A distance from a place to a side of its box is a distribution over 0 ... num_bins - 1 strides.
        max_detections: Most boxes of an image.
        top_k: Answers that the one-to-many head gives for an object.
        alpha: Power of the score in the measure of a good answer (Eq. 1).
        beta: Power of the overlap in it.
        class_weight: Of the classification loss.
        box_weight: Of 1 - CIoU.
        bins_weight: Of the distribution focal loss.
        shared_gradient: Whether the one-to-one head's loss trains backbone and neck too; otherwise they learn from
            the one-to-many head alone, as the published models did.
        padding_value: Grey around images that do not fill a batch whose sides are multiples of 32.
    """

    in_channels: int = 3
    num_classes: int = 80
    dims: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck_depth: int = 1
    compact: tuple[str, ...] = ("bottom_up5",)
    large_kernel: tuple[str, ...] = ("bottom_up5",)
    num_bins: int = 16
    max_detections: int = 300
    top_k: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    class_weight: float = 0.5
    box_weight: float = 7.5
    bins_weight: float = 1.5
    shared_gradient: bool = False
    padding_value: float = 114 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("in_channels", "num_classes", "max_detections", "top_k", "neck_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if min(self.dims) < 4 or any(dim % 4 for dim in self.dims):
            raise ValueError(f"dims are {self.dims}; each must be a multiple of 4.")
        if min(self.depths) < 1:
            raise ValueError(f"depths are {self.depths}; each stage needs at least 1 block.")
        if self.num_bins < 2:
            raise ValueError(f"num_bins is {self.num_bins}; a distribution needs at least 2.")
        for name in (*self.compact, *self.large_kernel):
            if name not in STAGES:
                raise ValueError(f"There is no stage {name!r}. {nearest(name, STAGES)}")
        plain = sorted(set(self.large_kernel) - set(self.compact))
        if plain:
            raise ValueError(f"large_kernel names {', '.join(plain)}; only stages in compact can have it.")


class Head(nn.Module):
    """Class logits and distances at every place of three maps (Sec. 3.2, lightweight classification head)."""

    def __init__(self, dims: Sequence[int], config: YOLOv10Config) -> None:
        super().__init__()
        sides = 4 * config.num_bins
        box_dim, class_dim = max(16, dims[0] // 4, sides), max(dims[0], min(config.num_classes, MAX_CLASS_DIM))
        self.box = nn.ModuleList(
            [
                nn.Sequential(conv_unit(dim, box_dim, 3), conv_unit(box_dim, box_dim, 3), nn.Conv2d(box_dim, sides, 1))
                for dim in dims
            ]
        )
        self.cls = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Sequential(conv_unit(dim, dim, 3, groups=dim), conv_unit(dim, class_dim)),
                    nn.Sequential(
                        conv_unit(class_dim, class_dim, 3, groups=class_dim), conv_unit(class_dim, class_dim)
                    ),
                    nn.Conv2d(class_dim, config.num_classes, 1),
                )
                for dim in dims
            ]
        )
        for stride, box, cls in zip(STRIDES, self.box, self.cls):
            per_place = OBJECTS_PER_IMAGE / config.num_classes / (REFERENCE_SIZE / stride) ** 2
            nn.init.constant_(box.get_parameter("2.bias"), 1.0)
            nn.init.constant_(cls.get_parameter("2.bias"), math.log(per_place / (1 - per_place)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4 r"]]:
        logits = [rearrange(layer(x), "b k h w -> b (h w) k") for layer, x in zip(self.cls, maps)]
        bins = [rearrange(layer(x), "b (s r) h w -> b (h w) s r", s=4) for layer, x in zip(self.box, maps)]
        return torch.cat(logits, dim=1), torch.cat(bins, dim=1)


class YOLOv10(Detector):
    """Object detector. `config` is a `YOLOv10Config` or a mapping of its fields. Images may have any size."""

    config: YOLOv10Config
    head_prefixes = tuple(f"{head}.cls." for head in ("one_to_one", "one_to_many"))

    def __init__(self, config: YOLOv10Config | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        p1, p2, p3, p4, p5 = config.dims
        self.stem = conv_unit(config.in_channels, p1, 3, 2)
        self.down2, self.stage2 = conv_unit(p1, p2, 3, 2), self._stage("stage2", p2, p2, config.depths[0])
        self.down3, self.stage3 = conv_unit(p2, p3, 3, 2), self._stage("stage3", p3, p3, config.depths[1])
        self.down4, self.stage4 = Downsample(p3, p4), self._stage("stage4", p4, p4, config.depths[2])
        self.down5, self.stage5 = Downsample(p4, p5), self._stage("stage5", p5, p5, config.depths[3])
        self.pooling = PyramidPooling(p5)
        self.attention = PartialAttention(p5)
        self.top_down4 = self._stage("top_down4", p5 + p4, p4, config.neck_depth)
        self.top_down3 = self._stage("top_down3", p4 + p3, p3, config.neck_depth)
        self.shrink3 = conv_unit(p3, p3, 3, 2)
        self.bottom_up4 = self._stage("bottom_up4", p3 + p4, p4, config.neck_depth)
        self.shrink4 = Downsample(p4, p4)
        self.bottom_up5 = self._stage("bottom_up5", p4 + p5, p5, config.neck_depth)
        self.one_to_many: Head | None = Head((p3, p4, p5), config)
        self.one_to_one = Head((p3, p4, p5), config)
        self.one_to_one.load_state_dict(self.one_to_many.state_dict())

    def _stage(self, name: str, in_dim: int, dim: int, depth: int) -> CSPStage:
        half, config = dim // 2, self.config
        if name in config.compact:
            large = name in config.large_kernel
            return CSPStage(in_dim, dim, [CompactBlock(half, large_kernel=large) for _ in range(depth)])
        shortcut = name.startswith("stage")
        return CSPStage(in_dim, dim, [Bottleneck(half, shortcut=shortcut) for _ in range(depth)])

    def detect(
        self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size], targets: Sequence[Target] | None
    ) -> dict[str, Any]:
        """Returns `boxes`, `scores` and `labels`; a place may occur with several labels. `pred_logits` (b, n, k) and
        `pred_boxes` (b, n, 4), xyxy in pixels, of the one-to-one head at every place of its three maps; `features`, the
        backbone's maps of strides 8, 16 and 32; with `targets` `losses`.
        """
        if any(size != batch.shape[-2:] for size in sizes):
            batch = fill_padding(batch, sizes_tensor(sizes, batch), self.config.padding_value)
        features = self._backbone(batch)
        maps = self._neck(*features)
        places = places_of(maps, STRIDES)
        trained = maps if self.config.shared_gradient else [x.detach() for x in maps]
        logits, bins = self.one_to_one(trained if targets is not None else maps)
        boxes = boxes_from_bins(bins, places)
        outputs: dict[str, Any] = {"pred_logits": logits, "pred_boxes": boxes, "features": features}
        if targets is not None:
            outputs["losses"] = self._losses("one_to_one", logits, bins, places, targets, 1)
            if self.one_to_many is not None:
                logits, bins = self.one_to_many(maps)
                top_k = self.config.top_k
                outputs["losses"] |= self._losses("one_to_many", logits, bins, places, targets, top_k)
        if targets is None or not self.training:
            limits, count = sizes_tensor(sizes, batch), self.config.max_detections
            found = best_places(outputs["pred_logits"], outputs["pred_boxes"], limits, count)
            outputs |= {key: list(value) for key, value in found.items()}
        return outputs

    def part_specs(self) -> dict[str, PartSpec]:
        neck = ("top_down4", "top_down3", "shrink3", "bottom_up4", "shrink4", "bottom_up5")
        body = tuple(name for name, _ in self.named_children() if name not in (*neck, "one_to_many", "one_to_one"))
        return {
            "backbone": PartSpec(_backbone, ("images", "image_sizes"), body),
            "encoder": PartSpec(_neck, BACKBONE_MAPS, neck),
            "head": PartSpec(_head, (*NECK_MAPS, "image_sizes"), ("one_to_one",)),
        }

    def _backbone(self, x: Tensor) -> list[Tensor]:
        x = self._run(self.stage2, self.down2(self.stem(x)))
        c3 = self._run(self.stage3, self.down3(x))
        c4 = self._run(self.stage4, self.down4(c3))
        c5 = self._run(self.stage5, self.down5(c4))
        return [c3, c4, self.attention(self.pooling(c5))]

    def _neck(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """From coarse to fine, and back."""
        m4 = self._run(self.top_down4, torch.cat([F.interpolate(c5, scale_factor=2.0), c4], dim=1))
        p3 = self._run(self.top_down3, torch.cat([F.interpolate(m4, scale_factor=2.0), c3], dim=1))
        p4 = self._run(self.bottom_up4, torch.cat([self.shrink3(p3), m4], dim=1))
        p5 = self._run(self.bottom_up5, torch.cat([self.shrink4(p4), c5], dim=1))
        return [p3, p4, p5]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)

    def _losses(
        self,
        head: str,
        logits: Float[Tensor, "b n k"],
        bins: Float[Tensor, "b n 4 r"],
        places: Places,
        targets: Sequence[Target],
        top_k: int,
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the weighted losses of one head, as means over the qualities of its answers."""
        config = self.config
        losses = aligned_losses(logits, bins, places, targets, top_k=top_k, alpha=config.alpha, beta=config.beta)
        return {
            f"classification_{head}": config.class_weight * losses.classification,
            f"box_{head}": config.box_weight * losses.box,
            f"bins_{head}": config.bins_weight * losses.bins,
        }

    def fuse(self) -> "YOLOv10":
        """Makes the model what it is deployed as: one head, one convolution where two or a normalization stood.

        The model is changed, cannot be trained any more, and gives the same boxes. Returns itself, in evaluation mode.
        """
        self.one_to_many = None
        for module in self.modules():
            if isinstance(module, LargeDepthwise):
                module.fold()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self.eval().requires_grad_(False)


BACKBONE_MAPS, NECK_MAPS = ("c3", "c4", "c5"), ("p3", "p4", "p5")


def _backbone(model: YOLOv10, images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(BACKBONE_MAPS, model._backbone(fill_padding(images, sizes, model.config.padding_value))))


def _neck(model: YOLOv10, *features: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(NECK_MAPS, model._neck(*features)))


def _head(model: YOLOv10, p3: Tensor, p4: Tensor, p5: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    maps = [p3, p4, p5]
    logits, bins = model.one_to_one(maps)
    boxes = boxes_from_bins(bins, places_of(maps, STRIDES))
    found = best_places(logits, boxes, sizes, model.config.max_detections)
    return {"pred_logits": logits, "pred_boxes": boxes, **counted(found)}


def best_places(
    logits: Float[Tensor, "b n k"], boxes: Float[Tensor, "b n 4"], sizes: Int[Tensor, "b 2"], count: int
) -> dict[str, Tensor]:
    """Returns the likeliest classes of the `count` likeliest places, `count` in all, best first, inside the images."""
    logits, boxes = full_precision(logits), full_precision(boxes)
    places = min(count, logits.shape[1])
    best = logits.amax(dim=-1).topk(places, dim=1).indices[..., None]
    logits = logits.gather(1, best.expand(-1, -1, logits.shape[-1]))
    boxes = boxes.gather(1, best.expand(-1, -1, 4))
    scores, index = logits.sigmoid().flatten(1).topk(min(count, places * logits.shape[-1]), dim=1)
    place = torch.div(index, logits.shape[-1], rounding_mode="floor")
    found = boxes.gather(1, place[..., None].expand(-1, -1, 4))
    limits = sizes.flip(1).repeat(1, 2)[:, None].to(found.dtype)
    return {"boxes": found.clamp(min=0).minimum(limits), "scores": scores, "labels": index % logits.shape[-1]}


def scaled(depth: float, width: float, max_dim: int, compact: str, large_kernel: str = "") -> YOLOv10Config:
    """Returns a variant: blocks and channels of the largest plan, scaled, with no more than `max_dim` before it."""
    dims = [math.ceil(min(dim, max_dim) * width / 8) * 8 for dim in (64, 128, 256, 512, 1024)]
    small, large = max(1, round(3 * depth)), max(1, round(6 * depth))
    return YOLOv10Config(
        dims=tuple(dims),  # pyrefly: ignore[bad-argument-type]
        depths=(small, large, large, small),
        neck_depth=small,
        compact=tuple(compact.split()),
        large_kernel=tuple(large_kernel.split()),
    )


AUTHORS_LAYERS = {
    0: "stem", 1: "down2", 2: "stage2", 3: "down3", 4: "stage3", 5: "down4", 6: "stage4", 7: "down5", 8: "stage5",
    9: "pooling", 10: "attention", 13: "top_down4", 16: "top_down3", 17: "shrink3", 19: "bottom_up4", 20: "shrink4",
    22: "bottom_up5", 23: "head",
}  # fmt: skip
AUTHORS_NAMES = {
    **{rf"^(?:model\.)*{number}\.": f"{name}." for number, name in AUTHORS_LAYERS.items()},
    r"^head\.dfl\.": None,
    r"^head\.(one2one_)?cv2\.": r"\1head.box.",
    r"^head\.(one2one_)?cv3\.": r"\1head.cls.",
    r"^one2one_head\.": "one_to_one.",
    r"^head\.": "one_to_many.",
    r"^attention\.attn\.pe\.": "attention.attention.position.",
    r"^attention\.attn\.": "attention.attention.",
    r"^attention\.ffn\.": "attention.mlp.",
    r"\.m\.(\d+)\.cv1\.2\.conv\.(conv|bn)\.": r".m.\1.cv1.2.large.\2.",
    r"\.m\.(\d+)\.cv1\.2\.conv1\.": r".m.\1.cv1.2.small.",
    r"\.m\.(\d+)\.cv1\.(\d)\.": r".m.\1.layers.\2.",
    r"\.m\.": ".blocks.",
    r"\.cv(\d)\.": r".conv\1.",
    r"\.bn\.": ".norm.",
}
"""Layers have numbers in the authors' files; the bins of distances, 0 to 15, are stored as a convolution there."""
YOLOv10.formats = (Format("authors", r"^(model\.)*23\.(one2one_)?cv2\.", AUTHORS_NAMES),)

VARIANTS = {
    "yolov10n": scaled(1 / 3, 0.25, 1024, "bottom_up5", "bottom_up5"),
    "yolov10s": scaled(1 / 3, 0.5, 1024, "stage5 bottom_up5", "stage5 bottom_up5"),
    "yolov10m": scaled(2 / 3, 0.75, 768, "stage5 bottom_up4 bottom_up5"),
    "yolov10b": scaled(2 / 3, 1.0, 512, "stage5 top_down4 bottom_up4 bottom_up5"),
    "yolov10l": scaled(1.0, 1.0, 512, "stage5 top_down4 bottom_up4 bottom_up5"),
    "yolov10x": scaled(1.0, 1.25, 512, "stage4 stage5 top_down4 bottom_up4 bottom_up5"),
}
