"""Losses. Keys: `input` (the prediction), `target`, `output`; one value per element, reduced by `TrainModel` or by you.

`CrossEntropy` (class scores (n, k, ...) and integer targets (n, ...)) is an operator of the table.
"""

import math
from typing import Any

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.common import op, positive, switch


class Loss(Model):
    """A loss per element of `input` against `target`; subclasses write it down in `elements`."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        self |= op("buffer")(input=self.elements(IOKey("input"), IOKey("target")), output=IOKey("output"))
        self.set_cin("input")

    def elements(self, input: Expression, target: Expression) -> Expression:
        """The loss as an expression of prediction and target."""
        raise NotImplementedError(f"{type(self).__name__} does not define elements.")


class SquaredError(Loss):
    """(input - target)²."""

    def elements(self, input: Expression, target: Expression) -> Expression:
        return op("square")(input - target)


class AbsoluteError(Loss):
    """|input - target|."""

    def elements(self, input: Expression, target: Expression) -> Expression:
        return abs(input - target)


class HuberLoss(Loss):
    """Squared, halved, up to a difference of `delta`, and linear beyond it. Huber 1964."""

    def __init__(self, delta: float = 1.0, name: str | None = None):
        positive("HuberLoss", delta=delta)
        self.delta = delta
        super().__init__(name)

    def elements(self, input: Expression, target: Expression) -> Expression:
        distance = abs(input - target)
        near = op("minimum")(distance, self.delta)
        return near * (distance - 0.5 * near)


class BinaryCrossEntropy(Loss):
    """-target log p - (1 - target) log(1 - p), where p is `sigmoid(input)`.

    Args:
        from_logits: False where `input` is p itself; logs are then held above -100 and their slopes below 1e12, as
            torch does.
        pos_weight: Factor of the first term: above 1, what is missed costs more than what is found wrongly.
    """

    def __init__(self, from_logits: bool = True, pos_weight: float = 1.0, name: str | None = None):
        switch("BinaryCrossEntropy", "from_logits", from_logits)
        positive("BinaryCrossEntropy", pos_weight=pos_weight)
        self.from_logits, self.pos_weight = from_logits, pos_weight
        super().__init__(name)

    def elements(self, input: Expression, target: Expression) -> Expression:
        if not self.from_logits:
            return -(self.pos_weight * target * held_log(input) + (1 - target) * held_log(1 - input))
        if self.pos_weight == 1:
            return op("softplus")(input) - input * target
        weight = 1 + (self.pos_weight - 1) * target
        return (1 - target) * input + weight * op("softplus")(-input)


def held_log(p: Expression) -> Expression:
    """log p, not below -100 and nowhere steeper than 1e12."""
    steep = 1e12 * (p - 1e-12) + math.log(1e-12)  # goes on straight where log would be steeper
    log = op("log")(op("where")(p > 1e-12, p, 1.0))
    straight = op("maximum")(op("where")(p > 1e-43, held_value(p), -100.0), -100.0) + (steep - op("detach")(steep))
    return op("where")(p > 1e-12, log, straight)


def held_value(p: Expression) -> Expression:
    """log p as a value without a gradient, for the smallest numbers."""
    return op("detach")(op("log")(op("where")(p > 1e-43, p, 1.0)))


class ProbabilityCrossEntropy(Model):
    """-log of the probability of class `target`: probabilities (n, k, ...), integers (n, ...), to one value each.

    Scores that are no probabilities yet are `CrossEntropy`'s. Keys: `input`, `target`, `output`.
    """

    def __init__(self, name: str | None = None):
        super().__init__(name)
        places: Any = op("expand_dims", axis=1)(IOKey("target", type=int))
        found: Any = op("take_along_axis", axis=1)(input=IOKey("input"), index=places)
        self |= op("buffer")(input=-held_log(op("squeeze", axis=1)(found)), output=IOKey("output"))
        self.set_cin("input")


class KLDivergence(Loss):
    """target (log target - input), where `input` is the log of a distribution and `target` one; 0 where target is 0."""

    def elements(self, input: Expression, target: Expression) -> Expression:
        positive: Any = op("where")(target > 0, target, 1.0)
        return target * (positive.log() - input)


class HingeLoss(Loss):
    """max(0, 1 - input target), for targets -1 and 1. The loss of a linear support vector machine."""

    def elements(self, input: Expression, target: Expression) -> Expression:
        return op("relu")(1 - input * target)


class SquaredHingeLoss(Loss):
    """max(0, 1 - input target)², for targets -1 and 1."""

    def elements(self, input: Expression, target: Expression) -> Expression:
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

    def elements(self, input: Expression, target: Expression) -> Expression:
        below = target - input
        return op("maximum")(self.quantile * below, (self.quantile - 1) * below)
