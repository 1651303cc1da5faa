"""Metrics of classification that add up over batches and processes."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.tasks.distributed import sum_over_processes


class ClassificationMetrics:
    """Top-1 and top-5 accuracy and cross-entropy (nats, without label smoothing), each the mean over images.

    Top-5 counts the first `min(5, k)` guesses of k classes. A soft label (MixUp) counts as its heaviest class in the
    accuracies, and as it is in the loss. The sums stay on the device of the outputs, so that `update` does not wait
    for it.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64)  # images, top-1 hits, top-5 hits, sum of losses

    @torch.inference_mode(False)  # the sums are added to later, outside of it
    @torch.no_grad()
    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch: `outputs["logits"]` (b, k) and `batch["labels"]` (b,) or, soft, (b, k)."""
        logits: Float[Tensor, "b k"] = outputs["logits"].float()
        labels: Tensor = batch["labels"]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        hits = correct_guesses(logits, labels)
        counts = [hits.new_tensor(len(hits), dtype=torch.float64), hits[:, 0].sum(), hits.any(dim=1).sum(), loss]
        self._sums = self._sums.to(logits.device) + torch.stack([count.double() for count in counts])

    def state(self) -> dict[str, Tensor]:
        """Returns the sums themselves: adding another process's state in place merges it."""
        return {"sums": self._sums}

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        sum_over_processes(self.state().values())

    def compute(self) -> dict[str, float]:
        """Returns `top1` and `top5` (0 to 1) and `loss`.

        Raises:
            ValueError: No image was seen.
        """
        images, top1, top5, loss = self._sums.tolist()
        if images == 0:
            raise ValueError("There is nothing to measure: not one image was seen. Is the data set empty?")
        return {"top1": top1 / images, "top5": top5 / images, "loss": loss / images}


def correct_guesses(logits: Float[Tensor, "b k"], labels: Tensor, guesses: int = 5) -> Tensor:
    """Returns (b, min(guesses, k)), true where the guess of that rank is the label (b,) or soft label (b, k)."""
    hard = labels.argmax(dim=1) if labels.is_floating_point() else labels
    ranked = logits.topk(min(guesses, logits.shape[1]), dim=1).indices
    return ranked == hard[:, None]
