"""Touvron et al., "Going deeper with Image Transformers", 2021, Sec. 2. https://arxiv.org/abs/2103.17239"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies each channel of a residual branch by a learned factor.

    Args:
        embed_dim: Width of the tokens.
        initial: Every factor at the start; small values let deep networks begin near the identity.
    """

    def __init__(self, embed_dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), initial))

    def forward(self, branch: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return branch * self.gamma
