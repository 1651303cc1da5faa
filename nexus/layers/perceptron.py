"""Linear layers with ReLU between them, as the box heads of set predictors have."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Linear layers from width to width, with ReLU after each but the last: `Perceptron(256, 256, 4)` has two."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise(dims)])

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the answer."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n k"]:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)
