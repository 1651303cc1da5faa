"""Language-guided query selection: the places that fit the text best become queries (Sec. 3.2, Algorithm 1).

Liu et al., "Grounding DINO", 2023. https://arxiv.org/abs/2303.05499

Boxes are `cx cy w h` from 0 to 1 across the padded batch.

Dims: b images, m places of all levels, n tokens, d width, q queries, l levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nexus.layers.perceptron import Perceptron
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig

SIDE = 0.05
"""Of the boxes of the finest level, as a share of the image; doubles with each level."""
MARGIN = 0.01
"""Boxes nearer to 0 or 1 than that are no candidates."""


class Selected(NamedTuple):
    """The queries, and what is said of their places.

    Attributes:
        content: What the queries start as.
        box_logits: Where they look first.
        logits: How well each fits each token.
    """

    content: Float[Tensor, "b q d"]
    box_logits: Float[Tensor, "b q 4"]
    logits: Float[Tensor, "b q n"]


def token_logits(
    x: Float[Tensor, "b q d"], text: Float[Tensor, "b n d"], words: Bool[Tensor, "b n"]
) -> Float[Tensor, "b q n"]:
    """Returns how well each query fits each token: their product; minus infinity for padding."""
    return (x @ text.mT).masked_fill(~words[:, None], -torch.inf)


def centres(sizes: Sequence[tuple[int, int]], extents: Float[Tensor, "b l 2"]) -> list[Float[Tensor, "b _ 2"]]:
    """Returns the middle of each place, x and y as shares of the image, for each level."""
    found = []
    for level, (height, width) in enumerate(sizes):
        x = (torch.arange(width, device=extents.device, dtype=extents.dtype) + 0.5) / width
        y = (torch.arange(height, device=extents.device, dtype=extents.dtype) + 0.5) / height
        middle = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)
        found.append(middle / extents[:, level, None])
    return found


def proposals(
    sizes: Sequence[tuple[int, int]], extents: Float[Tensor, "b l 2"], seen: Bool[Tensor, "b m"]
) -> tuple[Float[Tensor, "b m 4"], Bool[Tensor, "b m"]]:
    """Returns a square box at each place, as logits, and whether it is a candidate.

    Args:
        sizes: (height, width) of each level.
        extents: Columns and rows of each level that show the image, as a share of it.
        seen: Where the levels show an image.
    """
    boxes = [
        torch.cat([centre, torch.full_like(centre, SIDE * 2.0**level)], dim=-1)
        for level, centre in enumerate(centres(sizes, extents))
    ]
    box = torch.cat(boxes, dim=1)
    valid = ((box > MARGIN) & (box < 1 - MARGIN)).all(-1) & seen
    return torch.where(valid[..., None], (box / (1 - box)).log(), torch.finfo(box.dtype).max), valid


class QuerySelection(nn.Module):
    """Every place is compared with the text; the best are queries, whose content is learned and the same always."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.bbox_embed = Perceptron(width, width, width, 4)
        self.content = nn.Embedding(config.num_queries, width)

    def forward(
        self,
        image: Float[Tensor, "b m d"],
        text: Float[Tensor, "b n d"],
        words: Bool[Tensor, "b n"],
        seen: Bool[Tensor, "b m"],
        sizes: Sequence[tuple[int, int]],
        extents: Float[Tensor, "b l 2"],
    ) -> Selected:
        boxes, valid = proposals(sizes, extents, seen)
        candidates = self.norm(self.proj(image * valid[..., None]))
        logits = token_logits(candidates, text, words)
        count = min(self.content.num_embeddings, image.shape[1])
        best = logits.amax(-1).topk(count, dim=1).indices[..., None]
        chosen = candidates.gather(1, best.expand(-1, -1, candidates.shape[-1]))
        box_logits = self.bbox_embed(chosen) + boxes.gather(1, best.expand(-1, -1, 4))
        content = self.content.weight[:count].expand(len(image), -1, -1)
        return Selected(content, box_logits, logits.gather(1, best.expand(-1, -1, logits.shape[-1])))
