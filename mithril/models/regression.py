"""Regression on features: logistic and polynomial. Linear regression is `Linear`.

Dims: d features, k classes, o outputs.
"""

import math
from itertools import combinations_with_replacement

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.models.common import op, parameter


class LogisticRegression(Model):
    """Class scores and probabilities of features (..., d).

    Keys: `input`, `weight` (k, d), `bias` (k), `output`, the scores before sigmoid or softmax, and `probabilities`,
    both (..., k). Trained on `output` with `BinaryCrossEntropy`, or with `CrossEntropy` for several classes.

    Args:
        num_classes: 2 gives one score per point, for the second class (k is 1); more give one per class.
    """

    def __init__(self, num_classes: int = 2, name: str | None = None):
        super().__init__(name)
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; there must be at least 2.")
        rows = 1 if num_classes == 2 else num_classes
        weight, bias = parameter("weight", [rows, None]), parameter("bias", [rows])
        self |= op("linear")(input="input", weight=weight, bias=bias, output=IOKey("output"))
        self |= op("sigmoid" if rows == 1 else "softmax")(input="output", output=IOKey("probabilities"))
        self.set_cout("output")


MAX_PRODUCTS = 1_000_000
"""Most features that are made of others."""


class PolynomialFeatures(Operator):
    """Products of up to `degree` of the features (..., d), each once: x, y, x², xy, y², ... without the constant 1."""

    def __init__(self, degree: int, name: str | None = None):
        super().__init__(name=name)
        if degree < 1:
            raise ValueError(f"degree is {degree}; it must be at least 1.")
        self.degree = degree

    def create_model(self) -> Model:
        model, x = Model(), IOKey("input")
        size = x.shape[-1]
        if not isinstance(size, int):
            raise ValueError(f"PolynomialFeatures needs to know how many features there are; the input has {size}.")
        fewer = min(size, self.degree)
        if fewer > 20 or math.comb(size + self.degree, fewer) > MAX_PRODUCTS:
            raise ValueError(f"PolynomialFeatures of degree {self.degree} has over {MAX_PRODUCTS} products of {size}.")
        products = [x[..., :]]
        before: dict[tuple[int, ...], int] = {(place,): place for place in range(size)}
        for degree in range(2, self.degree + 1):
            factors = list(combinations_with_replacement(range(size), degree))
            shorter = [before[places[:-1]] for places in factors]
            products.append(products[-1][..., shorter] * x[..., [places[-1] for places in factors]])
            before = {places: number for number, places in enumerate(factors)}
        model |= op("concat", axis=-1)(products, output=IOKey("output"))
        return model


class PolynomialRegression(Model):
    """A polynomial of features, (..., d) to (..., o). Keys: `input`, `weight` (o, products), `bias` (o), `output`."""

    def __init__(self, degree: int, dimension: int = 1, name: str | None = None):
        super().__init__(name)
        weight, bias = parameter("weight", [dimension, None]), parameter("bias", [dimension])
        self |= PolynomialFeatures(degree)(input="input", output="features")
        self |= op("linear")(input="features", weight=weight, bias=bias, output=IOKey("output"))
