"""How well hidden patches are painted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nexus.tasks.distributed import sum_over_processes
from nexus.tasks.report import Report

if TYPE_CHECKING:
    from nexus.data import Dataset


class ReconstructionMetrics:
    """How well hidden patches are painted, over all of them.

    `explained` is the share of their variance that the model explains (R squared): 1 is perfect, 0 is no better than
    their mean. `loss` is the mean squared error. The sums stay on the device of the outputs.

    Args:
        name: Of the task.
    """

    def __init__(self, name: str = "") -> None:
        self.name, self._seen = name, torch.zeros(1, dtype=torch.int64)
        self._sums = torch.zeros(4, dtype=torch.float64)  # values, targets, squared targets, squared errors

    @torch.inference_mode(False)  # the sums are added to later, outside of it
    @torch.no_grad()
    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch: `predictions` and `target` (b, n, p) where `mask` (b, n) is 1."""
        self._seen = self._seen + len(batch["index"])
        predictions, target = outputs["predictions"].double(), outputs["target"].double()
        mask = outputs["mask"].double()[..., None]
        error = (predictions - target) ** 2
        sums = [(mask * value).sum() for value in (torch.ones_like(target), target, target**2, error)]
        self._sums = self._sums.to(mask.device) + torch.stack(sums)

    def state(self) -> dict[str, Tensor]:
        """Returns the sums themselves: adding another process's state in place merges it."""
        return {"sums": self._sums}

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        sum_over_processes([*self.state().values(), self._seen])

    def compute(self) -> dict[str, float]:
        """Returns `explained` (at most 1) and `loss`.

        Raises:
            ValueError: No hidden patch was seen.
        """
        count, total, squares, errors = self._sums.tolist()
        if count == 0:
            raise ValueError("There is nothing to measure: not one hidden patch was seen. Is the data set empty?")
        variance = max(squares - total**2 / count, 1e-12)
        return {"explained": 1 - errors / variance, "loss": errors / count}

    def report(self, dataset: "Dataset") -> Report:
        """Returns the figures."""
        return Report(data=dataset.name, task=self.name, num_images=int(self._seen), metrics=self.compute())
