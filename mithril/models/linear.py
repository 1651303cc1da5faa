"""Dense layers."""

from collections.abc import Sequence

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter, switch, whole


class Linear(Model):
    """`input @ weight.T + bias`, (..., i) to (..., dimension).

    Keys: `input`, `weight` (dimension, i), `bias` (dimension), `output`.
    """

    def __init__(self, dimension: int, use_bias: bool = True, name: str | None = None):
        whole("Linear", dimension=dimension)
        advice = f"The input's width is deduced from the data: Linear({use_bias}) has {use_bias} outputs."
        switch("Linear", "use_bias", use_bias, advice)
        super().__init__(name)
        wires = {"bias": parameter("bias", [dimension])} if use_bias else {}
        weight = parameter("weight", [dimension, None])
        self |= op("linear")(input="input", weight=weight, **wires, output=IOKey("output"))


class Embedding(Model):
    """Rows of a table: integers (...) below `vocabulary` to (..., dimension). Keys: `input`, `weight`, `output`."""

    def __init__(self, vocabulary: int, dimension: int, name: str | None = None):
        whole("Embedding", vocabulary=vocabulary, dimension=dimension)
        super().__init__(name)
        weight = parameter("weight", [vocabulary, dimension])
        self |= op("embedding")(input=IOKey("input", type=int), weight=weight, output=IOKey("output"))


class MLP(Model):
    """Linear layers, each followed by its activation; they are called `linear_0`, `linear_1`, ...

    Args:
        activations: Models to put after each layer, `Buffer()` for none.
        dimensions: Width of each layer's output; as many as activations.
    """

    def __init__(self, activations: Sequence[Model], dimensions: Sequence[int], name: str | None = None):
        super().__init__(name)
        if len(activations) != len(dimensions) or not dimensions:
            raise ValueError(
                f"MLP has {len(activations)} activations and {len(dimensions)} dimensions;"
                " give one activation per dimension, Buffer() for none."
            )
        last = len(dimensions) - 1
        for i, (activation, dimension) in enumerate(zip(activations, dimensions)):
            linear = Linear(dimension, name=f"linear_{i}")
            self += linear(input="input") if i == 0 else linear
            self += activation(output=IOKey("output")) if i == last else activation


class LinearSVM(Model):
    """A linear support vector machine, (..., i) to (..., 1); trained with `HingeLoss` on `output`.

    Keys: `input`, `weight` (1, i), `bias` (1), `output`, the signed distance to the margin, and `decision_output`, its
    sign: -1 or 1.
    """

    def __init__(self, name: str | None = None):
        super().__init__(name)
        weight, bias = parameter("weight", [1, None]), parameter("bias", [1])
        self |= op("linear")(input="input", weight=weight, bias=bias, output=IOKey("output"))
        self |= op("sign")(input="output", output=IOKey("decision_output"))
        self.set_cout("output")
