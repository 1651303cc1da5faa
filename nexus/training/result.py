"""What a finished run gives back."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nexus.core.notebook import html_table
from nexus.training.log import Record, describe
from nexus.visualization.curves import plot_training_curves
from nexus.visualization.figures import to_data_uri


@dataclass(frozen=True, repr=False)
class FitResult:
    """What a run gave.

    Attributes:
        run_dir: Its folder: `recipe.yaml`, `metrics.jsonl`, `checkpoints/`, `model/`.
        history: The lines of `metrics.jsonl`.
        metrics: The figures of `model` on held-out data, such as `top1`; empty without such data.
        model: The trained model in evaluation mode; None in the other processes of a sharded run.
        seconds: Time that this call took.
        step: The step that `model` is of: the best one, unless the recipe keeps the last.
    """

    run_dir: Path
    history: list[Record]
    metrics: dict[str, float]
    model: nn.Module | None
    seconds: float
    step: int = 0

    def __repr__(self) -> str:
        figures = describe({"kind": "val", **self.metrics}) if self.metrics else "no held-out data"
        return f"FitResult({self.run_dir}: {self._model_name()}, step {self.step}, {figures}, {self.seconds:.1f} s)"

    def _model_name(self) -> str:
        if self.model is None:
            return "no model in this process"
        return f"{type(self.model).__name__} of {sum(one.numel() for one in self.model.parameters()):,} parameters"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures, and the curves of the run."""
        rows = [{"figure": name, "value": value} for name, value in self.metrics.items()]
        table = html_table(rows, f"{self._model_name()}, step {self.step}, {self.run_dir}")
        if not any("loss" in record for record in self.history):
            return table
        return f'{table}<img src="{to_data_uri(plot_training_curves(self.history))}" alt="curves of the run">'
