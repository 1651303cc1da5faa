"""SAM 2's object pointers: what the mask decoder knew of the object in a frame, as a few tokens of memory.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 ("Memory encoder and memory bank").

Dims: b batch, p pointers, m tokens of memory, d width, e a memory's width.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.perceptron import Perceptron
from nexus.models.cv.sam2.config import SAM2Config


class Pointers(nn.Module):
    """Makes pointers of the mask decoder's tokens, and tokens of memory of pointers."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.memory_dim = config.memory_dim
        self.proj = Perceptron(width, width, width, width)
        self.absent = nn.Parameter(torch.zeros(1, width))
        self.time_proj = nn.Linear(width, config.memory_dim) if config.pointer_times else None
        nn.init.trunc_normal_(self.absent, std=0.02)

    def forward(self, tokens: Float[Tensor, "b d"], present: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Returns the pointers of mask tokens; of objects that are not in the frame (`present` 0) the same one."""
        return torch.where(present[:, None] > 0, self.proj(tokens), self.absent)

    def as_memory(self, pointers: Float[Tensor, "b p d"]) -> Float[Tensor, "b m e"]:
        """Returns pointers cut into tokens as wide as a memory."""
        return rearrange(pointers, "b p (parts e) -> b (p parts) e", e=self.memory_dim)

    def times(self, shares: Float[Tensor, " p"], width: int) -> Float[Tensor, "m e"]:
        """Returns what the tokens of pointers say of when they were.

        Args:
            shares: How many frames ago, as shares of the longest time.
            width: Of a pointer.
        """
        parts = width // self.memory_dim
        if self.time_proj is None:
            return shares.new_zeros(len(shares) * parts, self.memory_dim)
        return repeat(self.time_proj(sine_of(shares, width)), "p e -> (p parts) e", parts=parts)


def sine_of(places: Float[Tensor, " p"], width: int) -> Float[Tensor, "p d"]:
    """Returns places on a line as sines, then cosines."""
    half = width // 2
    pairs = torch.arange(half, device=places.device, dtype=places.dtype) // 2
    angles = places[:, None] / 10_000 ** (2 * pairs / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
