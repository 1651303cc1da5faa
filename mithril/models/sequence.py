"""Networks of sequences, made of recurrent layers and cells.

Dims: n batch, t time, i input width, h hidden width.
"""

from typing import Any

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import named, op
from mithril.models.linear import Linear
from mithril.models.recurrent import Cell, Recurrent, zero_state


class ManyToOne(Model):
    """A sequence (n, t, i) to one output (n, dimension), from the state after the last step.

    Args:
        layer: A recurrent layer, such as `GRU(16)`.
    """

    def __init__(self, layer: Recurrent, dimension: int, name: str | None = None):
        super().__init__(name)
        last = named(layer, "layer")(input="input").last
        self |= Linear(dimension, name="head")(input=last, output=IOKey("output"))
        self.set_cin("input")


class OneToMany(Model):
    """One input (n, dimension) to a sequence (n, steps, dimension): each output is the next step's input.

    Args:
        cell: A recurrent cell, such as `GRUCell(16)`; it starts from zeros.
    """

    def __init__(self, cell: Cell, dimension: int, steps: int, name: str | None = None):
        super().__init__(name)
        x: Any = IOKey("input", shape=[None, dimension])
        states: Any = dict.fromkeys(cell.kind.states, zero_state(x, x.shape[0], cell.hidden_size))
        outputs, head = [], Linear(dimension, name="head")
        for step in range(steps):
            one: Any = (cell.shared() if step else named(cell, "cell"))(input=x, **states)
            states = {state: getattr(one, f"{state}_next") for state in cell.kind.states}
            x = (head.shared() if step else head)(input=states["h"])
            outputs.append(x)
        self |= op("stack", axis=1)(outputs, output=IOKey("output"))
        self.set_cin("input")


class EncoderDecoder(Model):
    """A sequence to another one. Cho et al. 2014; Sutskever et al. 2014.

    Keys: `input` (n, s, i), read by the encoder, whose last states are the decoder's first; `target` (n, t, j), what
    the decoder reads: the outputs wanted so far, moved one step on; `output` (n, t, dimension).

    Args:
        encoder: A recurrent layer, such as `LSTM(16)`.
        decoder: One of the same kind and width.
    """

    def __init__(self, encoder: Recurrent, decoder: Recurrent, dimension: int, name: str | None = None):
        super().__init__(name)
        if (encoder.kind, encoder.hidden_size) != (decoder.kind, decoder.hidden_size):
            raise ValueError(
                f"The decoder {decoder.type_name}({decoder.hidden_size}) cannot start from the states of the encoder"
                f" {encoder.type_name}({encoder.hidden_size}); give both the same type and width."
            )
        encoded = named(encoder, "encoder")(input="input")
        states = {state: getattr(encoded, key) for state, key in zip(encoder.kind.states, encoder.output_names[1:])}
        decoded: Any = named(decoder, "decoder")(input=IOKey("target"), **states)
        self |= Linear(dimension, name="head")(input=decoded.output, output=IOKey("output"))
        self.set_cin("input")
