"""Kernels and the models made of them: support vector machines and Gaussian processes.

A kernel is a model with the keys `left` (n, d), `right` (m, d) and `output` (n, m).

Dims: n m points, d features.
"""

import math
from typing import Any

from mithril.logical.connection import Expression, IOKey, Size
from mithril.logical.model import Model
from mithril.models.common import named, op, parameter


def diagonal(size: Size) -> Expression:
    """Returns a mask (size, size), true on the diagonal."""
    places = op("arange")(stop=size)
    return places[:, None] == places


def squared_differences(left: Expression, right: Expression) -> Expression:
    """Returns |x - y|² (n, m) as it is written: exact for near points, in n m d numbers of memory."""
    return op("square")(left[:, None] - right).sum(axis=-1)


class DistanceMatrix(Model):
    """Euclidean distances of the points `left` (n, d) and `right` (m, d); the gradient of a distance of 0 is 0."""

    def __init__(self, name: str | None = None):
        super().__init__(name)
        squares = squared_differences(IOKey("left"), IOKey("right"))
        roots: Any = op("where")(squares > 0, squares, 1.0)
        self |= op("where")(squares > 0, roots.sqrt(), 0.0, output=IOKey("output"))
        self.set_cin("left")


class RBFKernel(Model):
    """exp(-gamma |x - y|²), the Gaussian kernel.

    Args:
        gamma: 1 / (2 l²) for a length scale l. None learns it, as the parameter `log_gamma`.
    """

    def __init__(self, gamma: float | None = None, name: str | None = None):
        super().__init__(name)
        left, right = IOKey("left"), IOKey("right")
        norms = [op("square")(x).sum(axis=-1) for x in (left, right)]
        squares = op("relu")(norms[0][:, None] + norms[1] - 2 * (left @ right.T))
        scale: Any = parameter("log_gamma", []).exp() if gamma is None else gamma
        self |= op("exp")(-scale * squares, output=IOKey("output"))
        self.set_cin("left")


class PolynomialKernel(Model):
    """(gamma x·y + coef0)^degree."""

    def __init__(self, degree: int = 3, gamma: float = 1.0, coef0: float = 1.0, name: str | None = None):
        super().__init__(name)
        products = gamma * (IOKey("left") @ IOKey("right").T) + coef0
        self |= op("power")(products, degree, output=IOKey("output"))
        self.set_cin("left")


class KernelSVM(Model):
    """A support vector machine in the space of a kernel, (n, d) to (n, 1). Cortes & Vapnik 1995.

    f(x) = Σ weight_i k(x, s_i) + bias. With m support vectors s: keys `input`; `support_vectors` (m, d), held fixed;
    `weight` (1, m), scikit-learn's `dual_coef_`; `bias` (1); `output`, f; `decision_output`, its sign; `norm`, |f|² / 2
    in the kernel's space. It is trained with C times the summed `HingeLoss` of `output` plus `norm`.

    Args:
        kernel: A model such as `RBFKernel(0.1)`.
    """

    def __init__(self, kernel: Model, name: str | None = None):
        super().__init__(name)
        support, weight = IOKey("support_vectors", buffer=True), parameter("weight", [1, None])
        found = named(kernel, "kernel")(left=IOKey("input"), right=support)
        self |= op("linear")(input=found, weight=weight, bias=parameter("bias", [1]), output=IOKey("output"))
        self |= op("sign")(input="output", output=IOKey("decision_output"))
        gram: Any = kernel.shared()(left=support, right=support)
        self |= op("buffer")(input=0.5 * (weight @ gram * weight).sum(), output=IOKey("norm"))
        self.set_cin("input")
        self.set_cout("output")


class GaussianProcess(Model):
    """Gaussian-process regression. Rasmussen & Williams 2006, Algorithm 2.1.

    The prior is a process of covariance exp(`log_amplitude`) k(x, y), seen with noise of variance exp(`log_noise`).
    Keys: `input` (m, d), where to predict; `train_input` (n, d) and `train_target` (n); the two parameters and the
    kernel's. Outputs: the posterior `mean` (m), `std` (m) and `covariance` (m, m), without noise, and
    `log_marginal_likelihood` (), Eq. 2.30, which training makes large.

    Args:
        kernel: A model such as `RBFKernel()`.
    """

    def __init__(self, kernel: Model, name: str | None = None):
        super().__init__(name)
        x, seen, target = IOKey("input"), IOKey("train_input"), IOKey("train_target")
        amplitude, noise = (parameter(key, []).exp() for key in ("log_amplitude", "log_noise"))
        on_seen, on_new = diagonal(seen.shape[0]), diagonal(x.shape[0])
        prior: Any = amplitude * named(kernel, "kernel")(left=seen, right=seen)
        root: Any = op("cholesky")(op("where")(on_seen, prior + noise, prior))
        weights: Any = op("solve")(root, target[:, None])
        reach: Any = op("solve")(root, amplitude * kernel.shared()(left=seen, right=x))
        covariance = amplitude * kernel.shared()(left=x, right=x) - reach.T @ reach
        variance = op("where")(on_new, covariance, 0.0).sum(axis=-1)
        spread = op("where")(on_seen, root, 1.0).log().sum()
        evidence = -0.5 * (op("square")(weights) + math.log(2 * math.pi)).sum() - spread
        self |= op("buffer")(input=(reach.T @ weights)[:, 0], output=IOKey("mean"))
        self |= op("sqrt")(op("relu")(variance), output=IOKey("std"))
        self |= op("buffer")(input=covariance, output=IOKey("covariance"))
        self |= op("buffer")(input=evidence, output=IOKey("log_marginal_likelihood"))
        self.set_cin("input")
        self.set_cout("mean")
