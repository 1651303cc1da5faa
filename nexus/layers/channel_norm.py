"""Layer norm over the channels of a map."""

from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalizes the channels of each pixel (Ba et al., "Layer Normalization", 2016), for maps (b, d, h, w)."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__(width, eps=eps)

    def forward(self, input: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
