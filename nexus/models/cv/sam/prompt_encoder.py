"""SAM's prompt encoder: points, boxes and masks as vectors beside and inside the image's.

Kirillov et al., "Segment Anything", 2023, Appendix A, "Prompt encoder". Positions are random Fourier features:
Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains", 2020.

Dims: b batch of prompts (of `encode`: images, each with p prompts), n points, q tokens of a prompt, h w tokens of the
image down and across, d width.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nexus.layers.channel_norm import ChannelNorm
from nexus.models.cv.sam.prompts import Prompts

NEGATIVE, POSITIVE, NO_POINT = 0, 1, -1
"""Labels of points: not of the object, of the object, and a place that holds none."""


class FourierPositions(nn.Module):
    """Places in [0, 1] as sines and cosines of random frequencies, which are drawn once and kept."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, width // 2))

    def forward(self, places: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n d"]:
        """Returns the features of (x, y), as shares of the image's width and height."""
        angles = 2 * math.pi * ((2 * places - 1) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, sides: tuple[int, int]) -> Float[Tensor, "d h w"]:
        """Returns the features of the middles of an image's tokens."""
        like = self.frequencies
        y, x = ((torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side for side in sides)
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return rearrange(self(torch.stack([columns, rows], dim=-1)), "h w d -> d h w")


class PromptEncoder(nn.Module):
    """Points and boxes become tokens, a mask is added to the image's embedding.

    Args:
        width: Of the embedding and the tokens.
        narrow: Channels inside the encoder of masks.
        patch_size: Side in pixels of one of the embedding's tokens.
        always_ended: Whether a token of no point follows boxes too, as in SAM 2; in SAM it follows points alone.
    """

    def __init__(self, width: int, narrow: int, patch_size: int, *, always_ended: bool = False) -> None:
        super().__init__()
        self.patch_size, self.always_ended = patch_size, always_ended
        self.positions = FourierPositions(width)
        self.point_embed = nn.Parameter(torch.randn(2, width))
        self.corner_embed = nn.Parameter(torch.randn(2, width))
        self.no_point = nn.Parameter(torch.randn(1, width))
        self.no_mask = nn.Parameter(torch.randn(1, width))
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, narrow // 4, 2, stride=2),
            ChannelNorm(narrow // 4),
            nn.GELU(),
            nn.Conv2d(narrow // 4, narrow, 2, stride=2),
            ChannelNorm(narrow),
            nn.GELU(),
            nn.Conv2d(narrow, width, 1),
        )

    def encode(
        self, prompts: Prompts, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "b p q d"], Float[Tensor, "b #p d #h #w"]]:
        """Returns the tokens of points and boxes, and what masks (or their lack) add to an image of `grid` patches."""
        images, count = next(value for value in prompts if value is not None).shape[:2]
        points, labels, boxes, masks = (None if value is None else value.flatten(0, 1) for value in prompts)
        if points is None and boxes is None:
            sparse = self.no_point.new_zeros(images * count, 0, self.no_point.shape[1])
        else:
            sparse = self.sparse(grid, points, labels, boxes)
        dense = self.dense(None if masks is None else masks[:, None])
        dense = (
            dense[None].expand(images, *dense.shape)
            if masks is None
            else rearrange(dense, "(b p) d h w -> b p d h w", b=images)
        )
        return rearrange(sparse, "(b p) q d -> b p q d", b=images), dense

    def sparse(
        self,
        grid: tuple[int, int],
        points: Float[Tensor, "b n 2"] | None,
        labels: Int[Tensor, "b n"] | None,
        boxes: Float[Tensor, "b 4"] | None,
    ) -> Float[Tensor, "b tokens d"]:
        """Returns the tokens of points and boxes.

        Args:
            grid: Tokens of the image down and across.
            points: (x, y) in pixels of what the image encoder saw.
            labels: 1 of the object, 0 not of it, -1 no point.
            boxes: x1, y1, x2, y2 in the same pixels. Points without a box get one more token, of no point.
        """
        tokens = []
        if points is not None:
            assert labels is not None
            tokens.append(self._points(grid, points, labels))
        if boxes is None or self.always_ended:
            count = next(len(value) for value in (points, boxes) if value is not None)
            tokens.append(self.no_point.expand(count, 1, -1))
        if boxes is not None:
            tokens.append(
                self._places(grid, rearrange(boxes, "b (corner xy) -> b corner xy", xy=2)) + self.corner_embed
            )
        return torch.cat(tokens, dim=1)

    def encode_fixed(
        self,
        grid: tuple[int, int],
        points: Float[Tensor, "b p n 2"],
        labels: Int[Tensor, "b p n"],
        masks: Float[Tensor, "b p low_h low_w"],
        has_masks: Bool[Tensor, "b p"],
    ) -> tuple[Float[Tensor, "b p n d"], Float[Tensor, "b p d h w"]]:
        """Returns what `encode` does, for prompts of any kind as tensors of fixed rank, as a graph needs them.

        Args:
            grid: Tokens of the image down and across.
            points: (x, y) in pixels of what the image encoder saw: points, and both corners of a box.
            labels: 1 of the object, 0 not of it, -1 no point, 2 and 3 the first and the second corner of a box. Points
                without a box end with one of no point.
            masks: Logits, four to a token's side.
            has_masks: Whether a prompt has its mask.
        """
        kinds = torch.cat([self.no_point, self.point_embed, self.corner_embed])
        placed = self._places(grid, points)
        missing = (labels == NO_POINT)[..., None]
        sparse = kinds[labels + 1] + torch.where(missing, placed.new_zeros(()), placed)
        dense = self.mask_downscaling(masks.flatten(0, 1)[:, None]).unflatten(0, masks.shape[:2])
        return sparse, torch.where(has_masks[..., None, None, None], dense, self.no_mask[0, :, None, None])

    def _points(self, grid: tuple[int, int], points: Tensor, labels: Tensor) -> Tensor:
        missing = (labels == NO_POINT)[..., None]
        kinds = self.point_embed[labels.clamp(min=NEGATIVE)]
        return torch.where(missing, self.no_point, self._places(grid, points) + kinds)

    def _places(self, grid: tuple[int, int], pixels: Tensor) -> Tensor:
        """Returns the features of places in pixels, whose middles are meant."""
        rows, columns = grid
        size = torch.tensor([columns * self.patch_size, rows * self.patch_size], device=pixels.device)
        return self.positions(((pixels + 0.5) / size).to(self.point_embed.dtype))

    def dense(self, masks: Float[Tensor, "b 1 low_h low_w"] | None) -> Float[Tensor, "b d h w"]:
        """Returns what is added to the image's embedding: of mask logits, four to a token's side, or of their lack."""
        if masks is None:
            return self.no_mask[:, :, None, None]
        return self.mask_downscaling(masks)
