"""An exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nexus.training.sharding import local


class WeightAverage:
    """Keeps `average = decay * average + (1 - decay) * weights`, and whole-number and buffer values as they are.

    In the first steps the decay is at most `(1 + t) / (10 + t)`, so that the random start is forgotten soon
    (as `tf.train.ExponentialMovingAverage` does with `num_updates`).

    Attributes:
        decay: Share of the average that is kept per step.
        updates: Steps taken.
        values: The average, by the names of the state dict.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = {name for name, _ in model.named_parameters()}
        averages, weights = [], []
        for name, value in model.state_dict().items():
            if name in parameters and value.is_floating_point():
                averages.append(local(self.values[name]))
                weights.append(local(value))
            else:
                self.values[name].copy_(value)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the context the model has the averaged weights."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        copy_values(model, self.values)
        try:
            yield
        finally:
            copy_values(model, own)


@torch.no_grad()
def copy_values(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Writes values into a model's parameters and buffers, in place."""
    for name, value in model.state_dict().items():
        value.copy_(values[name])
