"""The head of YOLO-World: classes by comparison with texts, boxes by distributions of distances (Sec. 3.3).

Dims: b images, k texts, t width of the shared space, d channels, h w places of a map, n places of all maps, r bins.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.csp import NORM_EPS, NORM_MOMENTUM, conv_unit
from nexus.models.cv.yolo_world.config import YOLOWorldConfig

STRIDES = (8, 16, 32)
OBJECTS_PER_IMAGE, REFERENCE_SIZE, REFERENCE_CLASSES = 5, 640, 80
"""At the start of training each class is so likely that an image of that many pixels a side has that many objects."""


class TextContrast(nn.Module):
    """How well each place fits each text (Eq. 2): a scaled product with texts of length 1, and a shift."""

    def __init__(self, dim: int, kind: str, stride: int) -> None:
        super().__init__()
        per_place = OBJECTS_PER_IMAGE / REFERENCE_CLASSES / (REFERENCE_SIZE / stride) ** 2
        self.norm: nn.Module | None = None
        if kind == "batch":
            self.norm = nn.BatchNorm2d(dim, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.logit_scale = nn.Parameter(torch.tensor(-1.0 if kind == "batch" else math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(math.log(per_place)))

    def forward(self, x: Float[Tensor, "b t h w"], texts: Float[Tensor, "_ k t"]) -> Float[Tensor, "b k h w"]:
        x = F.normalize(x, dim=1) if self.norm is None else self.norm(x)
        fits = F.normalize(texts, dim=-1) @ x.flatten(2)
        return (fits * self.logit_scale.exp() + self.bias).unflatten(-1, x.shape[-2:])


class FixedContrast(nn.Module):
    """A comparison with texts that do not change any more: a 1x1 convolution (Sec. 3.4, re-parameterization)."""

    def __init__(self, contrast: TextContrast, texts: Float[Tensor, "k t"]) -> None:
        super().__init__()
        self.norm, scale = contrast.norm, contrast.logit_scale
        with torch.no_grad():
            weight = F.normalize(texts, dim=-1) * scale.exp()
        self.conv = nn.Conv2d(texts.shape[1], len(texts), 1).to(texts)
        self.conv.load_state_dict(
            {"weight": weight[:, :, None, None], "bias": contrast.bias.detach().expand(len(texts)).clone()}
        )

    def forward(self, x: Float[Tensor, "b t h w"], texts: Tensor) -> Float[Tensor, "b k h w"]:
        return self.conv(F.normalize(x, dim=1) if self.norm is None else self.norm(x))


class Head(nn.Module):
    """Logits of texts and distributions of distances at every place of three maps."""

    def __init__(self, config: YOLOWorldConfig) -> None:
        super().__init__()
        dims, sides = config.dims[2:], 4 * config.num_bins
        box_dim, class_dim = max(16, dims[0] // 4, sides), max(dims[0], config.class_dim)
        self.cls = nn.ModuleList([_branch(dim, class_dim, config.projection_dim) for dim in dims])
        self.box = nn.ModuleList([_branch(dim, box_dim, sides) for dim in dims])
        for box in self.box:
            nn.init.constant_(box.get_parameter("2.bias"), 1.0)
        self.contrast = nn.ModuleList([TextContrast(config.projection_dim, config.contrast, s) for s in STRIDES])

    def forward(
        self, maps: Sequence[Tensor], texts: Float[Tensor, "_ k t"]
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4 r"]]:
        fits = [contrast(layer(x), texts) for contrast, layer, x in zip(self.contrast, self.cls, maps)]
        logits = [rearrange(x, "b k h w -> b (h w) k") for x in fits]
        bins = [rearrange(layer(x), "b (s r) h w -> b (h w) s r", s=4) for layer, x in zip(self.box, maps)]
        return torch.cat(logits, dim=1), torch.cat(bins, dim=1)


def _branch(dim: int, inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(conv_unit(dim, inner, 3), conv_unit(inner, inner, 3), nn.Conv2d(inner, out, 1))
