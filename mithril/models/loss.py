"""Losses. Keys: `input` (the prediction), `target`, `output`; one value per element, reduced by `TrainModel` or by you.

`CrossEntropy` (class scores (n, k, ...) and integer targets (n, ...)) is an operator of the table.
"""

from typing import Any

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.common import op


class Loss(Model):
    """A loss per element of `input` against `target`; subclasses write it down in `elements`."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        self |= op("buffer")(input=self.elements(IOKey("input"), IOKey("target")), output=IOKey("output"))
        self.set_cin("input")

    def elements(self, input: Any, target: Any) -> Expression:
        """The loss as an expression of prediction and target."""
        raise NotImplementedError(f"{type(self).__name__} does not define elements.")


class SquaredError(Loss):
    """(input - target)²."""

    def elements(self, input: Any, target: Any) -> Expression:
        return op("square")(input - target)


class AbsoluteError(Loss):
    """|input - target|."""

    def elements(self, input: Any, target: Any) -> Expression:
        return abs(input - target)


class HuberLoss(Loss):
    """Squared, halved, up to a difference of `delta`, and linear beyond it. Huber 1964."""

    def __init__(self, delta: float = 1.0, name: str | None = None):
        self.delta = delta
        super().__init__(name)

    def elements(self, input: Any, target: Any) -> Expression:
        distance = abs(input - target)
        near = op("minimum")(distance, self.delta)
        return near * (distance - 0.5 * near)


class BinaryCrossEntropy(Loss):
    """-target log p - (1 - target) log(1 - p), where p is `sigmoid(input)`.

    Args:
        from_logits: False where `input` is p itself; logs are then held above -100, as torch does.
    """

    def __init__(self, from_logits: bool = True, name: str | None = None):
        self.from_logits = from_logits
        super().__init__(name)

    def elements(self, input: Any, target: Any) -> Expression:
        if self.from_logits:
            return op("relu")(input) - input * target + op("log1p")((-abs(input)).exp())
        present, absent = (op("maximum")(p.log(), -100.0) for p in (input, 1 - input))
        return -(target * present + (1 - target) * absent)


class KLDivergence(Loss):
    """target (log target - input), where `input` is the log of a distribution and `target` one; 0 where target is 0."""

    def elements(self, input: Any, target: Any) -> Expression:
        positive: Any = op("where")(target > 0, target, 1.0)
        return target * (positive.log() - input)


class HingeLoss(Loss):
    """max(0, 1 - input target), for targets -1 and 1. The loss of a linear support vector machine."""

    def elements(self, input: Any, target: Any) -> Expression:
        return op("relu")(1 - input * target)


class SquaredHingeLoss(Loss):
    """max(0, 1 - input target)², for targets -1 and 1."""

    def elements(self, input: Any, target: Any) -> Expression:
        return op("square")(op("relu")(1 - input * target))


class QuantileLoss(Loss):
    """Its smallest mean is at the quantile of the target. Koenker & Bassett 1978.

    Args:
        quantile: Between 0 and 1.
    """

    def __init__(self, quantile: float, name: str | None = None):
        if not 0 < quantile < 1:
            raise ValueError(f"quantile is {quantile}; it must be between 0 and 1, such as 0.5 for the median.")
        self.quantile = quantile
        super().__init__(name)

    def elements(self, input: Any, target: Any) -> Expression:
        below = target - input
        return op("maximum")(self.quantile * below, (self.quantile - 1) * below)
