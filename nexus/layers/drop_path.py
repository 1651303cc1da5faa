"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth", 2016. https://arxiv.org/abs/1603.09382"""

from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops the residual branch of whole images in training, and scales the rest so that the mean stays.

    Args:
        rate: Probability that an image's branch is dropped, in [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"The rate of DropPath is {rate}; it must be at least 0 and below 1.")
        self.rate = rate

    def forward(self, branch: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        mask = branch.new_empty((branch.shape[0],) + (1,) * (branch.ndim - 1)).bernoulli_(keep)
        return branch * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
    """Returns the rate of each block: 0 for the first, rising linearly to `rate` for the last (Sec. 3, Eq. 4)."""
    return [rate * index / max(1, num_blocks - 1) for index in range(num_blocks)]
