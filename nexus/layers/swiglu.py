"""The gated perceptron of Shazeer, "GLU Variants Improve Transformer", 2020. https://arxiv.org/abs/2002.05202"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """Two projections of each token, one gated by the SiLU of the other, then back to the token's width (Eq. 6).

    The rows of `w12.weight` are those of the gate, then those of the values.

    Args:
        embed_dim: Width of the tokens.
        hidden_dim: Width of the gate and of the values.
        norm_eps: Epsilon of a layer norm before the last projection (EVA-02's sub-LN); None leaves it out.
        dropout: Probability of dropping an output value in training.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, *, norm_eps: float | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.w12 = nn.Linear(embed_dim, 2 * hidden_dim)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(hidden_dim, eps=norm_eps)
        self.w3 = nn.Linear(hidden_dim, embed_dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        gate, values = self.w12(x).chunk(2, dim=-1)
        return self.drop(self.w3(self.norm(F.silu(gate) * values)))
