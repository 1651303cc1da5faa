"""SAM 2's mask decoder: SAM's, which also says whether the object is there, and paints on finer maps of the image.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Appendix D.1, "Mask decoder".

Dims: b images, p prompts of an image, q tokens, n tokens of the image, k masks, h w tokens down and across, d width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.channel_norm import ChannelNorm
from nexus.layers.perceptron import Perceptron
from nexus.models.cv.sam.mask_decoder import NarrowAttention, TwoWayBlock, look_both_ways, paint
from nexus.models.cv.sam2.config import SAM2Config
from nexus.models.cv.sam2.image_encoder import Embedding

OUTLINE = 0.05
"""Logits: a mask is stable if it hardly differs between the threshold above and below zero by so much."""
LEAST_STABILITY = 0.98
"""IoU of these two masks, below which the single mask is replaced."""


class Masks(NamedTuple):
    """The masks that answer prompts; of all, the first is for prompts that are not ambiguous.

    Attributes:
        logits: (b, p, k, low_h, low_w), above 0 inside.
        iou_scores: (b, p, k), how good each is said to be, from 0 to 1.
        tokens: (b, p, k, d), what each was painted from.
        object_scores: (b, p), above 0 where the object is in the image.
    """

    logits: Tensor
    iou_scores: Tensor
    tokens: Tensor
    object_scores: Tensor


class MaskDecoder(nn.Module):
    """From an image's embedding and its prompts to masks."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width, count, heads = config.embed_dim, config.num_masks + 1, config.decoder_num_heads
        self.object_token = nn.Parameter(torch.randn(1, width))
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(count, width))
        self.blocks = nn.ModuleList(
            [
                TwoWayBlock(width, heads, config.decoder_mlp_dim, first=not number)
                for number in range(config.decoder_depth)
            ]
        )
        self.final_attn = NarrowAttention(width, width // 2, heads)
        self.norm = nn.LayerNorm(width)
        self.to_eighths = nn.ConvTranspose2d(width, width // 4, 2, stride=2)
        self.norm_eighths = ChannelNorm(width // 4)
        self.to_quarters = nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2)
        self.mask_mlps = nn.ModuleList([Perceptron(width, width, width, width // 8) for _ in range(count)])
        self.iou_head = Perceptron(width, *[config.iou_head_dim] * (config.iou_head_depth - 1), count)
        self.object_head = Perceptron(width, width, width, 1)

    def forward(
        self,
        embedding: Embedding,
        positions: Float[Tensor, "d h w"],
        sparse: Float[Tensor, "b p q d"],
        dense: Float[Tensor, "b #p d #h #w"],
    ) -> Masks:
        """Returns all masks for prompts about images."""
        rows = embedding.tokens.shape[2]
        start = self.tokens(sparse)
        image = rearrange(embedding.tokens[:, None] + dense, "b p d h w -> b p (h w) d")
        places = rearrange(positions, "d h w -> (h w) d")
        tokens, image = look_both_ways(self.blocks, start, image, places)
        tokens = self.norm(tokens + self.final_attn(tokens + start, image + places, image))
        of_object, of_iou, of_masks = tokens[:, :, 0], tokens[:, :, 1], tokens[:, :, 2 : 2 + len(self.mask_tokens)]
        painted = self._painted(rearrange(image, "b p (h w) d -> b p d h w", h=rows), embedding)
        return Masks(
            paint(self.mask_mlps, of_masks, painted),
            self.iou_head(of_iou).sigmoid(),
            of_masks,
            self.object_head(of_object)[..., 0],
        )

    def tokens(self, sparse: Float[Tensor, "b p q d"]) -> Float[Tensor, "b p _ d"]:
        """Returns the tokens that the blocks work on: of the object, of the IoU, of each mask, and of the prompt."""
        own = torch.cat([self.object_token, self.iou_token, self.mask_tokens])
        return torch.cat([own.expand(*sparse.shape[:2], -1, -1), sparse], dim=2)

    def _painted(self, image: Float[Tensor, "b p d h w"], embedding: Embedding) -> Float[Tensor, "bp e low_h low_w"]:
        """Returns what each pixel of a low-resolution mask is described by."""
        count = image.shape[1]
        eighths, quarters = (
            map[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1) for map in (embedding.eighths, embedding.quarters)
        )
        x = self.to_eighths(image.flatten(0, 1)) + eighths
        x = self.to_quarters(F.gelu(self.norm_eighths(x)))
        return F.gelu(x + quarters)


def several(masks: Masks) -> Masks:
    """Returns the masks that answer ambiguous prompts."""
    return Masks(masks.logits[:, :, 1:], masks.iou_scores[:, :, 1:], masks.tokens[:, :, 1:], masks.object_scores)


def single(masks: Masks, *, stable: bool = True) -> Masks:
    """Returns the mask that answers other prompts.

    With `stable`, one whose outline moves much when the threshold does is replaced by the best of the others. The
    token stays that of the first mask, as in the authors' code.
    """
    logits, scores = masks.logits[:, :, :1], masks.iou_scores[:, :, :1]
    if stable:
        best = best_of(several(masks))
        kept = stability(logits) >= LEAST_STABILITY
        logits = torch.where(kept[..., None, None], logits, best.logits)
        scores = torch.where(kept, scores, best.iou_scores)
    return Masks(logits, scores, masks.tokens[:, :, :1], masks.object_scores)


def best_of(masks: Masks) -> Masks:
    """Returns, of each prompt, the mask that is said to be best."""
    best = masks.iou_scores.argmax(dim=2, keepdim=True)
    return Masks(
        masks.logits.take_along_dim(best[..., None, None], dim=2),
        masks.iou_scores.take_along_dim(best, dim=2),
        masks.tokens.take_along_dim(best[..., None], dim=2),
        masks.object_scores,
    )


def stability(logits: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b"]:
    """Returns the IoU of masks with the threshold a little above and a little below zero; 1 where both are empty."""
    inner, outer = ((logits > threshold).flatten(-2).sum(dim=-1) for threshold in (OUTLINE, -OUTLINE))
    return torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
