"""Region Proposal Network: where there may be an object.

Ren et al., "Faster R-CNN", 2015, Sec. 3.1. https://arxiv.org/abs/1506.01497

Dims: b images, d width of a level, a anchors at a place, n anchors of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.layers.detector_input import Size, Target
from nexus.layers.fpn import conv_norm
from nexus.ops.anchors import anchor_shapes, grid_anchors
from nexus.ops.box_coder import BoxCoder
from nexus.ops.boxes import clip_boxes, full_precision, iou, is_large, pairwise
from nexus.ops.matching import BACKGROUND, match_by_iou, sample_balanced
from nexus.ops.nms import batched_nms


@dataclass(frozen=True, kw_only=True)
class RPNConfig(Config):
    """Defaults are those of torchvision, which follow the FPN paper (Sec. 4.1 and 5.1).

    Attributes:
        num_convs: 3x3 convolutions before the two outputs.
        anchor_sizes: In pixels, for each level from P2 on.
        anchor_ratios: Height over width.
        rounded_anchors: Anchors around the origin have whole corners.
        strides: Image pixels per pixel of each level; None takes the padded image's size over the level's, rounded
            down (torchvision), which at the coarsest level can be less than its power of two.
        bounded_shrinking: See `BoxCoder.bounded_below`.
        num_candidates: Best anchors of each level that enter suppression: in training, in evaluation.
        num_proposals: Proposals of an image that leave it: in training, in evaluation.
        nms_iou: Overlap above which the worse of two proposals of one level goes.
        min_score: Least objectness of a proposal, 0 to 1.
        min_size: Least side of a proposal in pixels.
        positive_iou: From this overlap with an object on an anchor is positive; an object's best always is.
        negative_iou: Below this overlap with all objects an anchor is negative.
        num_samples: Anchors of an image in the loss.
        positive_fraction: Largest share of positives among them.
        box_loss_beta: Where the box loss turns from square to straight.
    """

    num_convs: int = 1
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rounded_anchors: bool = True
    strides: tuple[int, ...] | None = None
    bounded_shrinking: bool = False
    num_candidates: tuple[int, int] = (2000, 1000)
    num_proposals: tuple[int, int] = (2000, 1000)
    nms_iou: float = 0.7
    min_score: float = 0.0
    min_size: float = 1e-3
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    num_samples: int = 256
    positive_fraction: float = 0.5
    box_loss_beta: float = 1 / 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError(f"anchor_sizes is {self.anchor_sizes}; every level needs the same number of sizes.")

    @property
    def coder(self) -> BoxCoder:
        """The parametrization that boxes are regressed in."""
        return BoxCoder(bounded_below=self.bounded_shrinking)


class RPNOutput(NamedTuple):
    """What the network says of every anchor of a batch, level after level."""

    objectness: Float[Tensor, "b n"]
    deltas: Float[Tensor, "b n 4"]
    anchors: Float[Tensor, "n 4"]
    level_sizes: list[int]


class RPNHead(nn.Module):
    """A small network that slides over each level (Fig. 3, left)."""

    def __init__(self, dim: int, num_convs: int, num_anchors: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*[conv_norm(dim, dim, 3, norm=False, act=True) for _ in range(num_convs)])
        self.objectness = nn.Conv2d(dim, num_anchors, 1)
        self.deltas = nn.Conv2d(dim, num_anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, level: Float[Tensor, "b d h w"]) -> tuple[Float[Tensor, "b hwa"], Float[Tensor, "b hwa 4"]]:
        x = self.convs(level)
        objectness = rearrange(self.objectness(x), "b a h w -> b (h w a)")
        return objectness, rearrange(self.deltas(x), "b (a four) h w -> b (h w a) four", four=4)


class RegionProposalNetwork(nn.Module):
    """Scores and shifts anchors, and picks the most promising as proposals."""

    def __init__(self, config: RPNConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.head = RPNHead(dim, config.num_convs, len(config.anchor_sizes[0]) * len(config.anchor_ratios))

    def forward(self, levels: Sequence[Float[Tensor, "b d _ _"]], padded_size: Size) -> RPNOutput:
        """Scores every anchor of a batch whose images are padded to `padded_size` (height, width)."""
        if len(levels) != len(self.config.anchor_sizes):
            raise ValueError(
                f"The pyramid has {len(levels)} levels and anchor_sizes {len(self.config.anchor_sizes)}; "
                "each level needs its sizes."
            )
        objectness, deltas = zip(*(map(full_precision, self.head(level)) for level in levels))
        anchors = [self.level_anchors(place, level, padded_size) for place, level in enumerate(levels)]
        return RPNOutput(torch.cat(objectness, 1), torch.cat(deltas, 1), torch.cat(anchors), [len(a) for a in anchors])

    def level_anchors(self, place: int, level: Tensor, padded_size: Size) -> Float[Tensor, "hwa 4"]:
        """Returns the anchors of the level at `place` in the pyramid, rows first, in pixels of the image."""
        config = self.config
        height, width = level.shape[-2:]
        stride = (padded_size[0] // height, padded_size[1] // width)
        if config.strides is not None:
            stride = (config.strides[place], config.strides[place])
        shapes = anchor_shapes(config.anchor_sizes[place], config.anchor_ratios, rounded=config.rounded_anchors)
        dtype = torch.promote_types(level.dtype, torch.float32)
        return grid_anchors(shapes.to(level.device, dtype), (height, width), stride)

    def propose(self, output: RPNOutput, image_sizes: Sequence[Size], *, for_training: bool) -> list[Tensor]:
        """Returns the proposals (n, 4) of each image, best first; no gradient flows through them."""
        return propose(self.config, output, image_sizes, for_training=for_training)

    def losses(self, output: RPNOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Returns the losses of sampled anchors, `rpn_objectness` and `rpn_box` (Eq. 1)."""
        config = self.config
        logits, is_object, deltas, wanted = [], [], [], []
        for image, target in enumerate(targets):
            boxes = target["boxes"].to(output.anchors)
            matches = match_by_iou(
                pairwise(iou, boxes, output.anchors), config.positive_iou, config.negative_iou, keep_best=True
            )
            positive, negative = sample_balanced(
                matches >= 0, matches == BACKGROUND, config.num_samples, config.positive_fraction
            )
            logits.append(output.objectness[image, torch.cat([positive, negative])])
            is_object.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]))
            deltas.append(output.deltas[image, positive])
            wanted.append(config.coder.encode(boxes[matches[positive]], output.anchors[positive]))
        sampled = torch.cat(logits)
        objectness = F.binary_cross_entropy_with_logits(sampled, torch.cat(is_object).to(sampled))
        box = F.smooth_l1_loss(torch.cat(deltas), torch.cat(wanted), beta=config.box_loss_beta, reduction="sum")
        return {"rpn_objectness": objectness, "rpn_box": box / len(sampled)}


def propose(config: RPNConfig, output: RPNOutput, image_sizes: Sequence[Size], *, for_training: bool) -> list[Tensor]:
    """Returns the proposals (n, 4) of each image, best first; no gradient flows through them."""
    num_candidates = config.num_candidates[0 if for_training else 1]
    objectness, deltas = output.objectness.detach(), output.deltas.detach()
    chosen, levels, start = [], [], 0
    for level, size in enumerate(output.level_sizes):
        best = objectness[:, start : start + size].topk(min(size, num_candidates), dim=1).indices
        chosen.append(best + start)
        levels.append(torch.full_like(best[0], level))
        start += size
    index, level_of = torch.cat(chosen, dim=1), torch.cat(levels)
    boxes = config.coder.decode(deltas.gather(1, index[..., None].expand(-1, -1, 4)), output.anchors[index])
    scores = objectness.gather(1, index).sigmoid()
    return [
        _suppress(config, clip_boxes(image_boxes, size), image_scores, level_of, for_training)
        for image_boxes, image_scores, size in zip(boxes, scores, image_sizes)
    ]


def _suppress(config: RPNConfig, boxes: Tensor, scores: Tensor, levels: Tensor, for_training: bool) -> Tensor:
    large = is_large(boxes, config.min_size) & ~(scores < config.min_score)  # NaN stays, for nms to refuse
    boxes, scores, levels = boxes[large], scores[large], levels[large]
    limit = config.num_proposals[0 if for_training else 1]
    return boxes[batched_nms(boxes, scores, levels, config.nms_iou, max_boxes=limit)]
