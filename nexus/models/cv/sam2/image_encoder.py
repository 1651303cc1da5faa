"""SAM 2's image encoder: the trunk, and what is made of the ends of its stages.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 ("Image encoder") and Appendix D.1.

Dims: b batch, c channels, h w tokens of 16 pixels down and across, d width.
"""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.models.cv.sam2.config import SAM2Config
from nexus.models.cv.sam2.hiera import Hiera


class Embedding(NamedTuple):
    """What the mask decoder and the memory are told of images.

    Attributes:
        tokens: (b, d, h, w), a vector for each 16 pixels.
        eighths: (b, d / 4, 2h, 2w), for each 8 pixels.
        quarters: (b, d / 8, 4h, 4w), for each 4 pixels.
    """

    tokens: Tensor
    eighths: Tensor
    quarters: Tensor


class ImageEncoder(nn.Module):
    """From images to embeddings: a feature pyramid over the trunk, whose coarsest map only enriches the next."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.trunk = Hiera(config)
        self.neck = nn.ModuleList([nn.Conv2d(config.trunk_embed_dim << stage, width, 1) for stage in range(4)])
        self.to_quarters = nn.Conv2d(width, width // 8, 1)
        self.to_eighths = nn.Conv2d(width, width // 4, 1)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Embedding:
        """Returns the embedding of normalized images, whose sides are multiples of 32.

        Raises:
            ValueError: The channels or the size do not fit.
        """
        quarters, eighths, sixteenths, coarsest = (
            lateral(end) for lateral, end in zip(self.neck, self.trunk(images), strict=True)
        )
        tokens = sixteenths + F.interpolate(coarsest, scale_factor=2.0, mode="nearest")
        return Embedding(tokens, self.to_eighths(eighths), self.to_quarters(quarters))
