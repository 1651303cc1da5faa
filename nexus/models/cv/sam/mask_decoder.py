"""SAM's mask decoder: tokens of prompts and masks look at the image, and the image at them; then masks are painted.

Kirillov et al., "Segment Anything", 2023, Appendix A, "Lightweight mask decoder", Fig. 14.

Dims: b images, p prompts of an image, q tokens, n tokens of the image, k masks, h w tokens down and across, d width,
e one head's width.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers import Mlp
from nexus.layers.channel_norm import ChannelNorm
from nexus.layers.perceptron import Perceptron
from nexus.models.cv.sam.config import SAMConfig

SCALE = 4
"""Pixels of a low-resolution mask along the side of one of the image's tokens."""


class NarrowAttention(nn.Module):
    """Attention of queries to keys in a space of `inner_dim`, for each prompt.

    Where keys serve all prompts of an image, their second dimension is 1, and they are projected once.
    """

    def __init__(self, embed_dim: int, inner_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, inner_dim)
        self.k_proj = nn.Linear(embed_dim, inner_dim)
        self.v_proj = nn.Linear(embed_dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, embed_dim)

    def forward(
        self, query: Float[Tensor, "b #p q d"], key: Float[Tensor, "b #p n d"], value: Float[Tensor, "b #p n d"]
    ) -> Float[Tensor, "b p q d"]:
        prompts = max(query.shape[1], key.shape[1])
        q, k, v = (
            self._heads(project(x), prompts)
            for project, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(rearrange(x, "(b p) heads q e -> b p q (heads e)", p=prompts))

    def maps(self, query: Tensor, key: Tensor) -> Float[Tensor, "b p heads q n"]:
        """Returns the attention weights that `forward` uses; each row sums to 1."""
        prompts = max(query.shape[1], key.shape[1])
        q, k = self._heads(self.q_proj(query), prompts), self._heads(self.k_proj(key), prompts)
        scores = q * q.shape[-1] ** -0.5 @ k.mT
        return rearrange(scores.softmax(dim=-1), "(b p) heads q n -> b p heads q n", p=prompts)

    def _heads(self, x: Tensor, prompts: int) -> Float[Tensor, "bp heads n e"]:
        x = rearrange(x, "b p n (heads e) -> b p heads n e", heads=self.num_heads)
        return x.expand(-1, prompts, -1, -1, -1).flatten(0, 1)


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the image, go through an MLP, and the image attends to them (Fig. 14).

    Args:
        width: Of the tokens and of the image's.
        heads: Of every attention.
        mlp_dim: Width inside the MLP.
        eps: Of the layer norms.
        first: In the first block the tokens are replaced by what they read of each other; later it is added.
    """

    def __init__(self, width: int, heads: int, mlp_dim: int, *, eps: float = 1e-5, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = NarrowAttention(width, width, heads)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.token_to_image = NarrowAttention(width, width // 2, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_dim, activation=nn.ReLU)
        self.norm3 = nn.LayerNorm(width, eps=eps)
        self.image_to_token = NarrowAttention(width, width // 2, heads)
        self.norm4 = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        tokens: Float[Tensor, "b p q d"],
        image: Float[Tensor, "b #p n d"],
        start: Float[Tensor, "b p q d"],
        positions: Float[Tensor, "n d"],
    ) -> tuple[Float[Tensor, "b p q d"], Float[Tensor, "b p n d"]]:
        """Returns the next tokens and image; `start`, the tokens as they were at first, are their positions."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + start
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed = image + positions
        tokens = self.norm2(tokens + self.token_to_image(tokens + start, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.norm4(image + self.image_to_token(placed, tokens + start, tokens))


class MaskDecoder(nn.Module):
    """From an image's embedding and its prompts to masks, and to how good each is said to be."""

    def __init__(self, config: SAMConfig) -> None:
        super().__init__()
        width, count = config.embed_dim, config.num_masks + 1
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(count, width))
        heads, mlp_dim, eps = config.decoder_num_heads, config.decoder_mlp_dim, config.decoder_norm_eps
        self.blocks = nn.ModuleList(
            [TwoWayBlock(width, heads, mlp_dim, eps=eps, first=not number) for number in range(config.decoder_depth)]
        )
        self.final_attn = NarrowAttention(width, width // 2, heads)
        self.norm = nn.LayerNorm(width)
        self.upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            ChannelNorm(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.mask_mlps = nn.ModuleList([Perceptron(width, width, width, width // 8) for _ in range(count)])
        self.iou_head = Perceptron(width, *[config.iou_head_dim] * (config.iou_head_depth - 1), count)

    def forward(
        self,
        embeddings: Float[Tensor, "b d h w"],
        positions: Float[Tensor, "d h w"],
        sparse: Float[Tensor, "b p q d"],
        dense: Float[Tensor, "b #p d #h #w"],
    ) -> tuple[Float[Tensor, "b p k low_h low_w"], Float[Tensor, "b p k"]]:
        """Returns the logits of all masks, the one for unambiguous prompts first, and the predicted IoU of each."""
        rows = embeddings.shape[2]
        start = self.tokens(sparse)
        image = rearrange(embeddings[:, None] + dense, "b p d h w -> b p (h w) d")
        places = rearrange(positions, "d h w -> (h w) d")
        tokens, image = look_both_ways(self.blocks, start, image, places)
        tokens = self.norm(tokens + self.final_attn(tokens + start, image + places, image))
        iou_token, mask_tokens = tokens[:, :, 0], tokens[:, :, 1 : 1 + len(self.mask_tokens)]
        painted = self.upscaling(rearrange(image, "b p (h w) d -> (b p) d h w", h=rows))
        return paint(self.mask_mlps, mask_tokens, painted), self.iou_head(iou_token)

    def tokens(self, sparse: Float[Tensor, "b p q d"]) -> Float[Tensor, "b p _ d"]:
        """Returns the tokens that the blocks work on: of the IoU, of each mask, and of the prompt."""
        own = torch.cat([self.iou_token, self.mask_tokens])
        return torch.cat([own.expand(*sparse.shape[:2], -1, -1), sparse], dim=2)


def look_both_ways(
    blocks: Iterable[nn.Module],
    start: Float[Tensor, "b p q d"],
    image: Float[Tensor, "b #p n d"],
    places: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, "b p q d"], Float[Tensor, "b p n d"]]:
    """Returns tokens and image after two-way blocks; `start` are the tokens as they come, `places` the positions."""
    tokens = start
    for block in blocks:
        tokens, image = block(tokens, image, start, places)
    return tokens, image


def paint(
    mlps: Iterable[nn.Module], tokens: Float[Tensor, "b p k d"], painted: Float[Tensor, "bp e low_h low_w"]
) -> Float[Tensor, "b p k low_h low_w"]:
    """Returns the logits of masks: each token, through its MLP, says what each pixel's vector counts."""
    brushes = torch.stack([mlp(token) for mlp, token in zip(mlps, tokens.unbind(2))], dim=2)
    masks = rearrange(brushes, "b p k e -> (b p) k e") @ painted.flatten(2)
    return rearrange(masks, "(b p) k (h w) -> b p k h w", p=tokens.shape[1], h=painted.shape[2])


def enlarge(masks: Float[Tensor, "b p k low_h low_w"], size: tuple[int, int]) -> Float[Tensor, "b p k h w"]:
    """Returns low-resolution logits at `size`: bilinear."""
    large = F.interpolate(masks.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    return large.unflatten(0, masks.shape[:2])
