"""Recurrent cells and layers, with torch's names and order of gates.

Dims: n batch, t time, i input width, h hidden width.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from mithril.logical.connection import Expression, IOKey, Size, is_given
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.models.common import op, parameter


def piece(x: Expression, place: int, size: int) -> Expression:
    """Returns the columns of one gate."""
    return x[:, place * size : (place + 1) * size]


def rnn_step(
    of_input: Expression, of_hidden: Expression, states: tuple[Expression, ...], size: int
) -> tuple[Expression, ...]:
    """h' = tanh(W x + b + U h + c). Elman 1990."""
    return (op("tanh")(of_input + of_hidden),)


def lstm_step(
    of_input: Expression, of_hidden: Expression, states: tuple[Expression, ...], size: int
) -> tuple[Expression, ...]:
    """Input, forget, cell and output gates. Hochreiter & Schmidhuber 1997; Gers et al. 2000."""
    total = of_input + of_hidden
    i, f, o = (op("sigmoid")(piece(total, place, size)) for place in (0, 1, 3))
    c = f * states[1] + i * op("tanh")(piece(total, 2, size))
    return o * op("tanh")(c), c


def gru_step(
    of_input: Expression, of_hidden: Expression, states: tuple[Expression, ...], size: int
) -> tuple[Expression, ...]:
    """Reset, update and new gates. Cho et al. 2014. https://arxiv.org/abs/1406.1078"""
    r, z = (op("sigmoid")(piece(of_input, place, size) + piece(of_hidden, place, size)) for place in (0, 1))
    new = op("tanh")(piece(of_input, 2, size) + r * piece(of_hidden, 2, size))
    return ((1 - z) * new + z * states[0],)


class Kind(NamedTuple):
    """A recurrence.

    Attributes:
        step: The states after one step (n, h), from what the input and the hidden state give to the gates
            (n, gates * h), the states before and h.
        gates: How many there are.
        states: Their names.
    """

    step: Callable[[Any, Any, tuple[Any, ...], int], tuple[Any, ...]]
    gates: int
    states: tuple[str, ...]

    def linear(self, x: Expression, part: str, size: int, suffix: str = "") -> Expression:
        """Returns what the input (`part` "ih") or the hidden state ("hh") gives to the gates."""
        weight = parameter(f"weight_{part}{suffix}", [self.gates * size, None])
        return op("linear")(input=x, weight=weight, bias=parameter(f"bias_{part}{suffix}", [self.gates * size]))


ELMAN, LONG_SHORT, GATED = Kind(rnn_step, 1, ("h",)), Kind(lstm_step, 4, ("h", "c")), Kind(gru_step, 3, ("h",))


def zero_state(x: Expression, n: Size, size: int) -> Expression:
    """Returns zeros (n, size) in the dtype of `x` (n, i)."""
    return op("zeros_like")(x[:, :1]).broadcast_to(n, size)


class Cell(Model):
    """One step of a recurrent network. Parameters: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.

    Keys: `input` (n, i); the states `h` (and `c` of an LSTM), each (n, h); their next values `h_next` (and `c_next`).
    """

    kind: ClassVar[Kind] = ELMAN

    def __init__(self, hidden_size: int, name: str | None = None):
        super().__init__(name)
        self.hidden_size = hidden_size
        kind, before = self.kind, tuple(IOKey(state) for state in self.kind.states)
        of_input, of_hidden = (kind.linear(x, p, hidden_size) for x, p in ((IOKey("input"), "ih"), (before[0], "hh")))
        for state, value in zip(kind.states, kind.step(of_input, of_hidden, before, hidden_size)):
            self |= op("buffer")(input=value, output=IOKey(f"{state}_next"))
        self.set_cin("input")
        self.set_cout("h_next")


class RNNCell(Cell):
    __doc__ = Cell.__doc__


class LSTMCell(Cell):
    __doc__ = Cell.__doc__
    kind = LONG_SHORT


class GRUCell(Cell):
    __doc__ = Cell.__doc__
    kind = GATED


MAX_STEPS = 10_000
"""Longest sequence that is unrolled."""


class Recurrent(Operator):
    """A recurrent layer over a sequence (n, t, i), unrolled in time.

    Keys: `input`; `h` (and `c` of an LSTM), where it starts, zeros if they are not wired; `output`, the hidden state of
    every step (n, t, h); `last` (and `last_c`), the states after the last step (n, h).
    Parameters are torch's: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`. The length must be known when
    the model is compiled.
    """

    output_names = ("output", "last")
    kind: ClassVar[Kind] = ELMAN

    def __init__(self, hidden_size: int, name: str | None = None):
        super().__init__(name=name)
        self.hidden_size = hidden_size

    def create_model(self) -> Model:
        model, sequence = Model(), IOKey("input")
        n, t, _ = sequence.shape
        if not isinstance(t, int):
            raise ValueError(f"{type(self).__name__} is unrolled in time, and the length {t} of its input is unknown.")
        if t > MAX_STEPS:
            raise ValueError(f"{type(self).__name__} is unrolled in time; {t} steps are too many, {MAX_STEPS} may be.")
        zeros = zero_state(sequence[:, 0], n, self.hidden_size)
        kind, size, outputs = self.kind, self.hidden_size, []
        states = tuple(IOKey(s) if is_given(s) else zeros for s in kind.states)
        of_input = kind.linear(sequence, "ih", size, "_l0")
        for place in range(t):
            states = kind.step(of_input[:, place], kind.linear(states[0], "hh", size, "_l0"), states, size)
            outputs.append(states[0])
        model |= op("stack", axis=1)(outputs, output=IOKey("output"))
        for key, state in zip(self.output_names[1:], states):
            model |= op("buffer")(input=state, output=IOKey(key))
        return model


class RNN(Recurrent):
    __doc__ = Recurrent.__doc__


class LSTM(Recurrent):
    __doc__ = Recurrent.__doc__
    output_names = ("output", "last", "last_c")
    kind = LONG_SHORT


class GRU(Recurrent):
    __doc__ = Recurrent.__doc__
    kind = GATED
