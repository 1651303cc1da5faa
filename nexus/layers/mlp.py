"""The two-layer perceptron of a transformer block."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


class Mlp(nn.Module):
    """Widens each token, applies the activation, and narrows it again."""

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = activation()
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
