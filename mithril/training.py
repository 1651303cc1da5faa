"""What a model is trained with: losses, penalties on its weights and metrics become outputs beside its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from mithril.errors import ConnectionError, nearest
from mithril.logical.connection import Connection, Expression, IOKey, Wiring
from mithril.logical.model import Model, snake_case
from mithril.logical.operator import Operator
from mithril.models.common import op
from mithril.physical.infer import as_composite

Reduction = Literal["mean", "sum", "none"]
Penalty = Callable[[Any], Any]


def l1(weight: Any) -> Expression:
    """Sum of absolute values; makes weights sparse. Tibshirani 1996."""
    return abs(weight).sum()


def l2(weight: Any) -> Expression:
    """Half the sum of squares, so that its gradient is the weight itself: the weight decay of torch.optim.SGD."""
    return 0.5 * (weight * weight).sum()


def tikhonov(matrix: object) -> Penalty:
    """Half the sum of squares of `matrix @ weight`.

    Args:
        matrix: An array or a key, (r, o) for weights (o, i).
    """

    def penalty(weight: object) -> Expression:
        product: Any = op("matmul")(matrix, weight)
        return 0.5 * (product * product).sum()

    return penalty


class TrainModel(Model):
    """A copy of a model with a scalar output `loss`: the weighted sum of its losses and penalties.

    Keys of inputs, outputs and parameters stay the model's own, so that trained parameters fit the model itself.

        train = TrainModel(model)
        train.add_loss(SquaredError(), input="output", target="target")
        train.add_regularization(l2, 1e-4)
        compiled = ml.compile(train, backend, shapes=..., data_keys={"input", "target"})
        outputs, gradients = compiled.evaluate_all(params, batch, {"loss": 1.0})
    """

    def __init__(self, model: Model):
        super().__init__()
        as_composite(model).copy_into(self, {})
        self.name = model.name or snake_case(model.type_name)
        for connection in self.outputs:
            name = connection.key if connection.named else "output"
            self.expose_keys(**{name: connection})
        self._terms = 0

    def add_loss(
        self, loss: Model, reduction: Reduction = "mean", weight: float = 1.0, name: str | None = None, **wires: object
    ) -> TrainModel:
        """Add a loss to the sum; its reduced value, not weighted, is an output of its own.

        Args:
            loss: A model with one output, such as `SquaredError()`.
            reduction: How its elements become one number; "none" where it gives a scalar.
            weight: Factor in the sum.
            name: Of the output; the loss's type if None.
            wires: Its inputs by key, as in a call: `input="output", target="target"`.

        Raises:
            ConnectionError: the name is taken, or there is no such key.
        """
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'none'.")
        self._check_wires(loss, wires)
        value: Any = loss(**wires)
        value = value if reduction == "none" else op(reduction)(value)
        return self._add_term(self._expose(value, name or snake_case(loss.type_name)), weight)

    def add_regularization(self, penalty: Penalty, coefficient: float, pattern: str = r"weight$") -> TrainModel:
        """Add a penalty on parameters to the sum.

        Args:
            penalty: `l1`, `l2`, `tikhonov(matrix)`, or a function of a weight that gives a scalar expression.
            coefficient: Factor in the sum.
            pattern: Regular expression that is searched for in the keys of parameters.

        Raises:
            ConnectionError: no parameter fits. Those inside an `Operator` are not known before it is compiled.
        """
        keys = dict(parameters(self))
        found = [connection for key, connection in keys.items() if re.search(pattern, key)]
        if not found:
            raise ConnectionError(
                f"No parameter of {self!r} fits the pattern {pattern!r}.{nearest(pattern.strip('^$'), keys)}"
            )
        total: Any = penalty(found[0])
        for connection in found[1:]:
            total = total + penalty(connection)
        return self._add_term(total, coefficient)

    def add_metric(self, metric: Model, name: str | None = None, **wires: object) -> TrainModel:
        """Add an output that is not part of the sum. Args: as of `add_loss`."""
        self._check_wires(metric, wires)
        self._expose(metric(**wires), name or snake_case(metric.type_name))
        return self

    def _check_wires(self, added: Model, wires: Mapping[str, Any]) -> None:
        """A loss looks at something that the model has; its other keys, such as a target, may be new data.

        Raises:
            ConnectionError: its first input is not wired, or to a key that the model does not have.
        """
        known = [*self.output_keys, *self.input_keys]
        bound = {added.binding_key(key): value for key, value in wires.items()}
        first = added.cin_key or next(iter(added.input_keys), None)
        looks = bound.get(first) if first is not None else None
        if first is not None and first not in bound:
            raise ConnectionError(
                f"{added!r} needs a key of {self!r} for its {first}: {first}=...{nearest('output', known)}"
            )
        if isinstance(looks, str) and looks not in self.connections:
            raise ConnectionError(f"{self!r} has no key '{looks}' for {added!r}.{nearest(looks, known)}")

    def _expose(self, value: Wiring, name: str) -> Connection:
        if name in self.connections:
            raise ConnectionError(f"{self!r} already has a connection named '{name}'; give another name.")
        self |= op("buffer")(input=value, output=IOKey(name))
        return self.connections[name]

    def _add_term(self, term: Any, weight: float) -> TrainModel:
        """Let `loss` be what it was plus a term."""
        term = term if weight == 1 else weight * term
        if self._terms:
            self.rename_key("loss", f"loss_{self._terms}")
            self.exposed.remove(f"loss_{self._terms}")
            term = self.connections[f"loss_{self._terms}"] + term
        self._expose(term, "loss")
        self._terms += 1
        return self


def parameters(model: Model, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Connection]]:
    """Keys and connections of what is trainable in a model and, where nothing is wired to it, in those inside it."""
    for key, connection in model.connections.items():
        if connection.trainable and connection.producer is None and connection.named:
            yield "_".join((*prefix, key)), connection
    for node in model.nodes:
        if isinstance(node.model, Operator) or node.model.shares is not None:
            continue
        for key, connection in parameters(node.model, (*prefix, node.name)):
            bound = node.bindings.get(connection.key) if connection.model is node.model else None
            if bound is None or (isinstance(bound, Connection) and not bound.named and bound.producer is None):
                yield key, connection
