"""Which guesses are right."""

from jaxtyping import Bool, Float
from torch import Tensor


def correct_guesses(logits: Float[Tensor, "b k"], labels: Tensor, guesses: int = 5) -> Bool[Tensor, "b g"]:
    """Returns (b, min(guesses, k)), true where the guess of that rank is the label (b,) or soft label (b, k)."""
    hard = labels.argmax(dim=1) if labels.is_floating_point() else labels
    ranked = logits.topk(min(guesses, logits.shape[1]), dim=1).indices
    return ranked == hard[:, None]
