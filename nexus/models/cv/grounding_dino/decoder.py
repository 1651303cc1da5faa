"""The cross-modality decoder: queries read the text, then the image around their boxes (Sec. 3.3, Fig. 3, block 3).

Liu et al., "Grounding DINO", 2023. https://arxiv.org/abs/2303.05499

Boxes are `cx cy w h` from 0 to 1 across the padded batch.

Dims: b images, m places of all levels, n tokens, d width, q queries, l levels, r decoder layers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.layers.deformable_attention import DeformableAttention
from nexus.layers.mlp import Mlp
from nexus.layers.perceptron import Perceptron
from nexus.layers.post_norm import CrossAttention
from nexus.layers.sine_positions import sine_waves
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig
from nexus.ops.set_prediction import inverse_sigmoid


class DecoderBlock(nn.Module):
    """Queries look at each other, at the text, and at the image around their boxes."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width, heads, dropout = config.embed_dim, config.num_heads, config.dropout
        self.self_attn = CrossAttention(width, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width)
        self.text_attn = CrossAttention(width, heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, heads, (config.num_points,) * config.num_levels)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.hidden_dim, activation=nn.ReLU, dropout=dropout)
        self.norm4 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        position: Float[Tensor, "b q d"],
        boxes: Float[Tensor, "b q l 4"],
        image: Float[Tensor, "b m d"],
        text: Float[Tensor, "b n d"],
        sizes: Sequence[tuple[int, int]],
        seen: Bool[Tensor, "b m"],
        words: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b q d"]:
        placed = x + position
        x = self.norm1(x + self.drop(self.self_attn(placed, placed, x)))
        x = self.norm2(x + self.drop(self.text_attn(x + position, text, text, words[:, None, None])))
        x = self.norm3(x + self.drop(self.cross_attn(x + position, boxes, image, sizes, seen)))
        return self.norm4(x + self.mlp(x))


class Answers(NamedTuple):
    """What each layer says: the normalized queries, and their boxes."""

    embeddings: Float[Tensor, "r b q d"]
    boxes: Float[Tensor, "r b q 4"]


class Decoder(nn.Module):
    """Layers that share one box head. A layer's boxes move those that it looked at.

    What the next layer looks at is moved by the layer's output as it is; its answer by the normalized output.
    """

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.eps = config.inverse_sigmoid_eps
        self.layers = nn.ModuleList([DecoderBlock(config) for _ in range(config.num_layers[1])])
        self.query_pos_head = Perceptron(2 * width, width, width)
        self.norm = nn.LayerNorm(width)
        self.bbox_embed = Perceptron(width, width, width, 4)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        box_logits: Float[Tensor, "b q 4"],
        image: Float[Tensor, "b m d"],
        text: Float[Tensor, "b n d"],
        sizes: Sequence[tuple[int, int]],
        seen: Bool[Tensor, "b m"],
        words: Bool[Tensor, "b n"],
        extents: Float[Tensor, "b l 2"],
        *,
        checkpointing: bool = False,
    ) -> Answers:
        """Refines queries.

        Args:
            x: Content of the queries.
            box_logits: Where they start.
            image: Enhanced maps of all levels.
            text: Enhanced tokens.
            sizes: (height, width) of each level.
            seen: Where the levels show an image.
            words: Which tokens are no padding.
            extents: Columns and rows of each level that show the image, as a share of it.
            checkpointing: Compute what is inside a block again in the backward pass.
        """
        boxes, found = box_logits.sigmoid(), []
        for block in self.layers:
            placed = boxes[:, :, None] * extents.repeat(1, 1, 2)[:, None]
            arguments = (x, self._positions(placed[:, :, 0]), placed, image, text, sizes, seen, words)
            if checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
            answer, before = self.norm(x), inverse_sigmoid(boxes, self.eps)
            found.append((answer, (self.bbox_embed(answer) + before).sigmoid()))
            boxes = (self.bbox_embed(x) + before).sigmoid().detach()
        embeddings, answers = zip(*found)
        return Answers(torch.stack(embeddings), torch.stack(answers))

    def _positions(self, boxes: Float[Tensor, "b q 4"]) -> Float[Tensor, "b q d"]:
        width = self.norm.normalized_shape[0]
        return self.query_pos_head(sine_waves(boxes[..., [1, 0, 2, 3]], width // 2))
