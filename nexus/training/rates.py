"""Which learning rate to train with: a short run in which the rate rises from step to step.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, Sec. 3.3: below some rate nothing is learnt, above
another the loss grows; a good one lies where it falls fastest.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from nexus.training.assembly import assemble
from nexus.training.distributed import world
from nexus.training.engine import Engine
from nexus.training.fit import make_trainer
from nexus.training.random_state import seed_everything
from nexus.training.recipe import Recipe
from nexus.training.trainer import Trainer, cpu_threads
from nexus.visualization.curves import plot_rates, smooth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIVERGED = 4.0
"""Times the lowest loss so far, at which the test ends."""
WINDOW = 10
"""Steps that a loss is averaged over."""
FEWEST = 10
"""Steps before the loss diverges, below which the curve says nothing."""


@dataclass(frozen=True, repr=False)
class RateTest:
    """What a range test saw.

    Attributes:
        rates: The learning rate of each step, rising.
        losses: The training loss there.
        suggestion: The rate where the smoothed loss falls fastest; None where it falls nowhere.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None

    def __repr__(self) -> str:
        told = "nothing to suggest" if self.suggestion is None else f"lr={self.suggestion:.2g}"
        return f"RateTest({len(self.rates)} steps from {self.rates[0]:.1g} to {self.rates[-1]:.1g}: {told})"

    def plot(self) -> "Figure":
        """Returns the curve: the loss over the rate, with the suggestion."""
        return plot_rates(self.rates, self.losses, smooth(np.array(self.losses), WINDOW), self.suggestion)

    def _repr_png_(self) -> bytes:
        from nexus.visualization.figures import to_png

        return to_png(self.plot())


def find_lr(
    model: nn.Module | str,
    data: Any,
    *,
    recipe: Recipe | str | Path | None = None,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    **overrides: Any,
) -> RateTest:
    """Trains for some steps while the learning rate rises, and says which one to train with.

    A module that is given is left as it was; nothing is written.

    Args:
        model: As for `nexus.fit`, like `data`, `recipe` and `overrides`.
        data: To train on.
        recipe: Its optimizer, batch and augmentation are used; its schedule is not.
        lowest: The rate of the first step.
        highest: The rate of the last.
        steps: How many there are; fewer where the loss diverges before.

    Raises:
        ValueError: The range is empty, several processes run, or what `nexus.fit` refuses.
    """
    trainer = make_trainer(model, data, recipe=recipe, progress="off", overrides=overrides)
    return range_test(trainer, lowest=lowest, highest=highest, steps=steps)


def range_test(trainer: Trainer, *, lowest: float = 1e-7, highest: float = 10.0, steps: int = 100) -> RateTest:
    """Does what `find_lr` does, for a run that has not begun."""
    if not 0 < lowest < highest < math.inf or steps < 2:
        raise ValueError(
            f"The rates go from {lowest} to {highest} in {steps} steps; give 0 < lowest < highest, 2 steps."
        )
    recipe = trainer.recipe
    with cpu_threads(recipe.training.num_threads), world(recipe.training.device) as processes:
        if processes.size > 1:
            raise ValueError("The test of learning rates runs on one process; start it without torchrun.")
        seed_everything(recipe.training.seed)
        parts = assemble(recipe, processes, trainer.model, trainer.train_data, trainer.val_data)
        before = {name: value.detach().clone() for name, value in parts.model.state_dict().items()}
        engine = Engine(parts.model, parts.task, recipe, processes, parts.train.steps_per_epoch)
        engine.schedule = LambdaLR(
            engine.optimizer, lambda step: lowest / recipe.optimizer.lr * (highest / lowest) ** (step / (steps - 1))
        )
        engine.train()
        rates, losses = _rise(engine, _batches(parts.train), steps)
        parts.model.load_state_dict(before)
    return RateTest(tuple(rates), tuple(losses), suggested(rates, losses))


def _batches(loader: Any) -> Iterator[Any]:
    """Yields batches of epoch after epoch."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)


def _rise(engine: Engine, batches: Iterator[Any], steps: int) -> tuple[list[float], list[float]]:
    """Returns the rates and losses of the steps, up to where the loss diverges."""
    rates, losses = [], []
    for batch in itertools.islice(batches, steps):
        rate, values = engine.lr, engine.step(batch)
        loss = sum(v for name, v in zip(engine.loss_names, values.tolist()) if name != "gradient_norm")
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        smoothed = smooth(np.array(losses), WINDOW)
        if len(losses) > FEWEST and smoothed[-1] > DIVERGED * smoothed.min():
            break
    return rates, losses


def suggested(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Returns the rate where the smoothed loss falls fastest, over the logarithm of rates; None where it never does."""
    if len(rates) < FEWEST:
        return None
    smoothed = smooth(np.array(losses), WINDOW)
    slopes = np.gradient(smoothed, np.log(np.array(rates)))
    falling = slopes[WINDOW : int(smoothed.argmin()) + 1]  # before, the mean is of few losses
    if not len(falling) or falling.min() >= 0:
        return None
    return float(rates[WINDOW + int(falling.argmin())])
