"""The decoder of RT-DETR: queries read a few places around their boxes, and move the boxes, block by block.

Zhang et al., "DINO: DETR with Improved DeNoising Anchor Boxes", 2022, Sec. 3.3 to 3.5 (denoising, looking forward
twice). https://arxiv.org/abs/2203.03605

Boxes are `cx cy w h` from 0 to 1 across the batch's images; "logits" of a box are those before the sigmoid.

Dims: b images, n places of all levels, q queries, d width, k classes, l blocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.layers.deformable_attention import DeformableAttention, Sampling
from nexus.layers.mlp import Mlp
from nexus.layers.perceptron import Perceptron
from nexus.layers.post_norm import CrossAttention
from nexus.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from nexus.ops.set_prediction import Objects, Pairs, inverse_sigmoid


class DecoderBlock(nn.Module):
    """Queries look at each other, then at the image around their boxes."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        num_points: Sequence[int],
        sampling: Sampling,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = CrossAttention(embed_dim, num_heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn = DeformableAttention(embed_dim, num_heads, num_points, sampling)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = Mlp(embed_dim, hidden_dim, activation=nn.ReLU, dropout=dropout)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        position: Float[Tensor, "b q d"],
        boxes: Float[Tensor, "b q 4"],
        memory: Float[Tensor, "b n d"],
        sizes: Sequence[tuple[int, int]],
        mask: Bool[Tensor, "q q"] | None,
    ) -> Float[Tensor, "b q d"]:
        placed = x + position
        x = self.norm1(x + self.drop(self.self_attn(placed, placed, x, mask)))
        x = self.norm2(x + self.drop(self.cross_attn(x + position, boxes, memory, sizes)))
        return self.norm3(x + self.mlp(x))


class Answers(NamedTuple):
    """What each block says of each query, and the queries after the last block."""

    logits: Float[Tensor, "l b q k"]
    boxes: Float[Tensor, "l b q 4"]
    embeddings: Float[Tensor, "b q d"]


class Decoder(nn.Module):
    """Blocks with a class head and a box head each.

    Args:
        blocks: In order.
        embed_dim: Width of the queries.
        num_classes: Outputs of the class heads.
        look_forward_twice: A block's box loss also trains the block before it (DINO, Sec. 3.5).
    """

    def __init__(
        self, blocks: Sequence[DecoderBlock], embed_dim: int, num_classes: int, *, look_forward_twice: bool
    ) -> None:
        super().__init__()
        self.look_forward_twice = look_forward_twice
        self.layers = nn.ModuleList(blocks)
        self.query_pos_head = Perceptron(4, 2 * embed_dim, embed_dim)
        self.class_embed = nn.ModuleList([nn.Linear(embed_dim, num_classes) for _ in blocks])
        self.bbox_embed = nn.ModuleList([Perceptron(embed_dim, embed_dim, embed_dim, 4) for _ in blocks])

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        box_logits: Float[Tensor, "b q 4"],
        memory: Float[Tensor, "b n d"],
        sizes: Sequence[tuple[int, int]],
        *,
        mask: Bool[Tensor, "q q"] | None = None,
        num_layers: int | None = None,
        checkpointing: bool = False,
    ) -> Answers:
        """Refines queries.

        Args:
            x: Content of the queries.
            box_logits: Where they start.
            memory: Maps of all levels, flattened row by row, one after the other.
            sizes: (height, width) of each level.
            mask: Which query (row) may look at which (column); None is all.
            num_layers: Blocks to run; None is all.
            checkpointing: Compute what is inside a block again in the backward pass.
        """
        boxes = earlier = box_logits.sigmoid()
        found: list[tuple[Tensor, Tensor]] = []
        for block, classify, regress in list(zip(self.layers, self.class_embed, self.bbox_embed))[:num_layers]:
            arguments = (x, self.query_pos_head(boxes), boxes, memory, sizes, mask)
            if checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
            step = regress(x)
            moved = (step + inverse_sigmoid(boxes)).sigmoid()
            twice = self.look_forward_twice and self.training and found
            answer = (step + inverse_sigmoid(earlier)).sigmoid() if twice else moved
            found.append((classify(x), answer))
            earlier, boxes = moved, moved.detach()
        logits, answers = zip(*found)
        return Answers(torch.stack(logits), torch.stack(answers), x)


class Denoising(NamedTuple):
    """Queries made of the objects themselves, with noise, which the decoder has to take off.

    Attributes:
        labels: Classes, some of them wrong; `num_classes` where an image has fewer objects than another.
        box_logits: Boxes with noise.
        mask: Which of all queries (rows) may look at which; denoising queries come first.
        pairs: The queries that have to find their object again.
        num_groups: How often each object is among those.
    """

    labels: Tensor
    box_logits: Tensor
    mask: Tensor
    pairs: Pairs
    num_groups: int


def denoising_queries(
    objects: Sequence[Objects],
    num_classes: int,
    num_queries: int,
    *,
    num_denoising: int,
    label_noise: float,
    box_noise: float,
) -> Denoising | None:
    """Returns denoising queries in groups, or None if no image has an object (DINO, Sec. 3.3).

    A group holds each object twice: near its place, to be found, and further away, to be refused. Groups do not see
    each other, and the true queries see none of them.

    Args:
        objects: Of each image.
        num_classes: Kinds of objects.
        num_queries: True queries, for the mask.
        num_denoising: Objects of the fullest image times groups, about.
        label_noise: Twice the share of labels that are drawn anew.
        box_noise: Largest shift of a corner, in halves of the box's sides; for those to be refused it is twice that.
    """
    most = max(len(image.labels) for image in objects)
    if not most or not num_denoising:
        return None
    num_groups, like = max(1, num_denoising // most), objects[0].boxes
    labels = torch.full((len(objects), most), num_classes, device=like.device)
    boxes = like.new_zeros(len(objects), most, 4)
    for place, image in enumerate(objects):
        labels[place, : len(image.labels)], boxes[place, : len(image.labels)] = image.labels, image.boxes
    labels, boxes = labels.repeat(1, 2 * num_groups), boxes.repeat(1, 2 * num_groups, 1)
    real = labels < num_classes
    drawn = torch.rand(labels.shape, device=like.device, dtype=torch.float32) < label_noise / 2
    labels = torch.where(drawn & real, torch.randint_like(labels, num_classes), labels)
    count = labels.shape[1]
    negative = (torch.arange(count, device=like.device) // most % 2).to(like.dtype)[:, None]
    sign = torch.randint_like(boxes, 0, 2) * 2 - 1
    shift = (torch.rand_like(boxes) + negative) * sign * box_noise * boxes[..., 2:].repeat(1, 1, 2) / 2
    box_logits = inverse_sigmoid(xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + shift).clamp(0, 1)))
    group = torch.arange(count + num_queries, device=like.device) // (2 * most)
    group[count:] = -1
    mask = (group[:, None] == group) | (group == -1)
    return Denoising(labels, box_logits, mask, _denoising_pairs(objects, most, num_groups), num_groups)


def _denoising_pairs(objects: Sequence[Objects], most: int, num_groups: int) -> Pairs:
    """Returns each object with the query near it, in every group."""
    found = []
    for place, image in enumerate(objects):
        index = torch.arange(len(image.labels), device=image.labels.device).repeat(num_groups)
        group = torch.arange(num_groups, device=index.device).repeat_interleave(len(image.labels))
        found.append(
            Pairs(torch.full_like(index, place), group * 2 * most + index, image.boxes[index], image.labels[index])
        )
    return Pairs(*map(torch.cat, zip(*found)))


def varifocal_from_pairs(
    logits: Float[Tensor, "b q k"], quality: Float[Tensor, " m"], pairs: Pairs, *, alpha: float = 0.75, gamma: float = 2
) -> Float[Tensor, ""]:
    """Returns the summed varifocal loss (Zhang et al. 2021, Eq. 2): a matched query's own class scores its IoU.

    A pair without overlap counts as positive with quality 0, which weighs nothing.
    """
    wanted, positive = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    wanted[pairs.image, pairs.query, pairs.labels] = quality.to(logits.dtype)
    positive[pairs.image, pairs.query, pairs.labels] = True
    weight = torch.where(positive, wanted, alpha * logits.detach().sigmoid() ** gamma)
    return F.binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="sum")
