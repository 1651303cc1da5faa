"""The vision-language path aggregation network of YOLO-World (Sec. 3.3).

Dims: b images, k texts (of each image, or 1 x k of all), t their width, c d channels, h w places of a map, e one head's
width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.csp import Bottleneck, conv_unit, gathered
from nexus.models.cv.yolo_world.config import YOLOWorldConfig

POOL_SIDE = 3


class TextGate(nn.Module):
    """Lets through of a map what some text asks for (Eq. 1, max-sigmoid attention).

    A head of the map is scaled by the sigmoid of how well it fits the text that fits it best. Neither the order of the
    texts matters nor that one stands twice; but each further text may change every place.
    """

    def __init__(self, dim: int, text_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.guide: nn.Module = nn.Linear(text_dim, dim)
        self.bias = nn.Parameter(torch.zeros(num_heads))
        self.project = conv_unit(dim, dim, 3, act=False)

    def forward(self, x: Float[Tensor, "b d h w"], texts: Float[Tensor, "_ k t"]) -> Float[Tensor, "b d h w"]:
        guides = rearrange(self.guide(texts), "b k (heads e) -> b heads k e", heads=self.num_heads)
        fits = guides @ rearrange(x, "b (heads e) h w -> b heads e (h w)", heads=self.num_heads)
        logits = fits.amax(dim=2) / guides.shape[-1] ** 0.5 + self.bias[:, None]
        open_ = logits.sigmoid().unflatten(-1, x.shape[-2:])[:, :, None]
        return (self.project(x).unflatten(1, (self.num_heads, -1)) * open_).flatten(1, 2)

    def fix(self, texts: Float[Tensor, "k t"]) -> None:
        """Makes these the texts, whatever is asked from now on."""
        with torch.no_grad():
            self.guide = Fixed(self.guide(texts)[None])


class Fixed(nn.Module):
    """Gives always the same."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, given: Tensor) -> Tensor:
        return self.value


class GuidedStage(nn.Module):
    """A stage that gathers, beside what its blocks make, what texts let through of it (Fig. 4)."""

    def __init__(self, in_dim: int, dim: int, depth: int, text_dim: int, num_heads: int) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = conv_unit(in_dim, 2 * half)
        self.conv2 = conv_unit((3 + depth) * half, dim)
        self.blocks = nn.ModuleList([Bottleneck(half, shortcut=False) for _ in range(depth)])
        self.attention = TextGate(half, text_dim, num_heads)

    def forward(self, x: Float[Tensor, "b c h w"], texts: Float[Tensor, "_ k t"]) -> Float[Tensor, "b d h w"]:
        parts = gathered(self.conv1(x), self.blocks)
        return self.conv2(torch.cat([*parts, self.attention(parts[-1], texts)], dim=1))


class ImagePooling(nn.Module):
    """Texts look at 3 x 3 maxima of each map, and are told what they see (Sec. 3.3, image-pooling attention)."""

    def __init__(self, dims: Sequence[int], text_dim: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projections = nn.ModuleList([nn.Conv2d(one, dim, 1) for one in dims])
        self.query = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, dim))
        self.key = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.value = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.proj = nn.Linear(dim, text_dim)

    def forward(self, texts: Float[Tensor, "_ k t"], maps: Sequence[Tensor]) -> Float[Tensor, "b k t"]:
        pooled = [F.adaptive_max_pool2d(layer(x), POOL_SIDE) for layer, x in zip(self.projections, maps)]
        seen = rearrange(torch.stack(pooled, dim=1), "b l d h w -> b (l h w) d")
        query, key, value = (
            rearrange(layer(x), "b n (heads e) -> b heads n e", heads=self.num_heads)
            for layer, x in ((self.query, texts.expand(len(seen), -1, -1)), (self.key, seen), (self.value, seen))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return texts + self.proj(rearrange(mixed, "b heads k e -> b k (heads e)"))


class Neck(nn.Module):
    """From coarse to fine, and back, guided by texts."""

    def __init__(self, config: YOLOWorldConfig) -> None:
        super().__init__()
        p3, p4, p5 = dims = config.dims[2:]
        n3, n4, n5 = config.neck_num_heads
        depth, width = config.neck_depth, config.projection_dim
        self.top_down = nn.ModuleList(
            [GuidedStage(p5 + p4, p4, depth, width, n4), GuidedStage(p4 + p3, p3, depth, width, n3)]
        )
        pooling = ImagePooling(dims, width, config.pooling_dim, config.pooling_num_heads)
        self.pooling: nn.Module | None = pooling if config.image_pooling else None
        self.shrink = nn.ModuleList([conv_unit(p3, p3, 3, 2), conv_unit(p4, p4, 3, 2)])
        self.bottom_up = nn.ModuleList(
            [GuidedStage(p3 + p4, p4, depth, width, n4), GuidedStage(p4 + p5, p5, depth, width, n5)]
        )

    def forward(self, features: Sequence[Tensor], texts: Float[Tensor, "_ k t"]) -> list[Float[Tensor, "b _ _ _"]]:
        c3, c4, c5 = features
        m4 = self.top_down[0](torch.cat([F.interpolate(c5, scale_factor=2.0), c4], dim=1), texts)
        p3 = self.top_down[1](torch.cat([F.interpolate(m4, scale_factor=2.0), c3], dim=1), texts)
        if self.pooling is not None:
            texts = self.pooling(texts, [p3, m4, c5])
        p4 = self.bottom_up[0](torch.cat([self.shrink[0](p3), m4], dim=1), texts)
        return [p3, p4, self.bottom_up[1](torch.cat([self.shrink[1](p4), c5], dim=1), texts)]
