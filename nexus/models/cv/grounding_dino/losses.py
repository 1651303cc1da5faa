"""Matching and losses: as in DETR, but what a query answers with is the words of a phrase (Sec. 3.5).

Liu et al., "Grounding DINO", 2023. https://arxiv.org/abs/2303.05499

Boxes are `cx cy w h` from 0 to 1 across the padded batch; a token's logit is minus infinity where it is padding.

Dims: b images, q queries, n tokens, k classes, m objects.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.models.cv.grounding_dino.config import GroundingDINOConfig
from nexus.ops.losses import focal_loss
from nexus.ops.set_prediction import (
    Objects,
    Pairs,
    box_losses,
    count_objects,
    focal_cost,
    match_queries,
)

Spans = Sequence[Bool[Tensor, "k n"]]


def word_cost(
    logits: Float[Tensor, "q n"], labels: Int[Tensor, " m"], spans: Bool[Tensor, "k n"]
) -> Float[Tensor, "q m"]:
    """Returns the focal cost of each object's words for each query: the mean over its class's tokens."""
    shares = spans[labels].to(logits.dtype)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    return focal_cost(logits, tokens) @ (shares / shares.sum(1, keepdim=True).clamp(min=1)).T


def match_words(
    logits: Float[Tensor, "b q n"],
    boxes: Float[Tensor, "b q 4"],
    objects: Sequence[Objects],
    spans: Spans,
    weights: tuple[float, float, float],
) -> Pairs:
    """Gives every object the query that makes the total cost of its image least."""
    pairs = [
        match_queries(
            logits[place, None],
            boxes[place, None],
            [image],
            partial(word_cost, spans=span),
            weights=weights,
        )
        for place, (image, span) in enumerate(zip(objects, spans))
    ]
    moved = [found._replace(image=found.image + place) for place, found in enumerate(pairs)]
    return Pairs(*map(torch.cat, zip(*moved)))


def grounding_losses(
    layers: Mapping[str, tuple[Tensor, Tensor]],
    objects: Sequence[Objects],
    spans: Spans,
    words: Bool[Tensor, "b n"],
    config: GroundingDINOConfig,
) -> dict[str, Float[Tensor, ""]]:
    """Returns the weighted losses of each layer, under its suffix: `classification`, `box` and `giou`.

    Args:
        layers: By suffix the logits (b, q, n) and boxes (b, q, 4) of a layer.
        objects: Of each image; a label is a row of the image's `spans`.
        spans: For each image which tokens its classes consist of.
        words: Which tokens are no padding.
        config: Has the weights.
    """
    num_objects, losses = count_objects(objects), {}
    costs = (config.class_cost, config.box_weight, config.giou_weight)
    for suffix, (logits, boxes) in layers.items():
        pairs = match_words(logits, boxes, objects, spans, costs)
        distance, overlap = box_losses(boxes, pairs, num_objects)
        told = word_loss(logits, pairs, spans, words)
        losses[f"classification{suffix}"] = config.class_weight * told / num_objects
        losses[f"box{suffix}"] = config.box_weight * distance
        losses[f"giou{suffix}"] = config.giou_weight * overlap
    return losses


def word_loss(
    logits: Float[Tensor, "b q n"], pairs: Pairs, spans: Spans, words: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Returns the summed focal loss of all queries and tokens: a matched query fits the tokens of its class alone."""
    wanted = torch.zeros_like(logits)
    for place, span in enumerate(spans):
        here = pairs.image == place
        wanted[place, pairs.query[here]] = span[pairs.labels[here]].to(wanted.dtype)
    inside = words[:, None].expand_as(logits)
    return focal_loss(logits[inside], wanted[inside]).sum()
