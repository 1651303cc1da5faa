"""Recurrent layers and cells, unrolled in time. They take their weights as aten orders them.

Dims: n batch, t time, i input width, h hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import MAPPINGS, Mapping, shape_of
from mithril.logical.connection import Expression, Operand, record
from mithril.models.recurrent import ELMAN, GATED, LONG_SHORT, Kind


def _relu_step(
    of_input: Expression, of_hidden: Expression, states: tuple[Expression, ...], size: int
) -> tuple[Expression, ...]:
    return (record("relu", input=of_input + of_hidden),)


KINDS = {"rnn_tanh": ELMAN, "rnn_relu": Kind(_relu_step, 1, ("h",)), "lstm": LONG_SHORT, "gru": GATED}


def _linear(x: Expression, weight: Expression | None, bias: Expression | None = None) -> Expression:
    return record("linear", input=x, weight=weight, **({} if bias is None else {"bias": bias}))


def _sequence(
    kind: Kind,
    x: Expression,
    states: tuple[Expression, ...],
    weights: Sequence[Expression | None],
    size: int,
    order: range,
) -> tuple[Expression, tuple[Expression, ...]]:
    """One direction of one layer over `x` (t, n, i): the hidden state after each step, and the last states.

    `weights` are those of the input and of the hidden state, their two biases and the hidden state's projection; the
    last three may be None.
    """
    of_input, outputs = _linear(x, weights[0], weights[2]), {}
    for place in order:
        states = kind.step(of_input[place], _linear(states[0], weights[1], weights[3]), states, size)
        if weights[4] is not None:
            states = (_linear(states[0], weights[4]), *states[1:])
        outputs[place] = states[0]
    return record("stack", input=[outputs[place] for place in sorted(outputs)], axis=0), states


def _layers(kind: Kind) -> Mapping:
    def layers(
        node: Node,
        input: Expression,
        states: Expression | Sequence[Expression],
        params: Sequence[Expression],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Operand, ...]:
        if dropout and train and num_layers > 1:
            raise ConversionError(f"Dropout {dropout} between recurrent layers has no mapping: call `.eval()` first.")
        length = shape_of(node.args[0])[1 if batch_first else 0]  # a number: torch.export leaves no time axis open
        x = input.transpose((1, 0, 2)) if batch_first else input
        before = [states] if isinstance(states, Expression) else states
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        size = shape_of(node.args[2][0])[0] // kind.gates  # type: ignore[index, arg-type]
        after = []
        for layer in range(num_layers):
            outputs = []
            for direction in range(directions):
                row = layer * directions + direction
                own = list(params[row * each : (row + 1) * each])
                weights = own[:2] + (own[2:4] if has_biases else [None, None])
                weights += own[len(own) - 1 :] if each in (3, 5) else [None]
                order = range(length) if direction == 0 else range(length - 1, -1, -1)
                output, last = _sequence(kind, x, tuple(state[row] for state in before), weights, size, order)
                outputs.append(output)
                after.append(last)
            x = outputs[0] if directions == 1 else record("concat", input=outputs, axis=-1)
        stacked = (record("stack", input=list(last), axis=0) for last in zip(*after))
        return (x.transpose((1, 0, 2)) if batch_first else x, *stacked)

    return layers


def _cell(kind: Kind) -> Mapping:
    def cell(
        node: Node,
        input: Expression,
        states: Expression | Sequence[Expression],
        weight: Expression,
        hidden: Expression,
        bias: Expression | None = None,
        hidden_bias: Expression | None = None,
    ) -> Operand | tuple[Operand, ...]:
        before = (states,) if isinstance(states, Expression) else tuple(states)
        size = shape_of(node.args[2])[0] // kind.gates
        after = kind.step(_linear(input, weight, bias), _linear(before[0], hidden, hidden_bias), before, size)
        return after if len(after) > 1 else after[0]

    return cell


for _name, _kind in KINDS.items():
    MAPPINGS[f"{_name}.input"] = _layers(_kind)
    MAPPINGS[f"{_name}_cell"] = _cell(_kind)
