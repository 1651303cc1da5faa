"""Four ways to compose a model: layer by layer, with named wires, with expressions, and as an operator of your own."""

import numpy as np
import torch

import mithril as ml
from mithril.models import (
    Add,
    BatchNorm2D,
    Buffer,
    Concat,
    Convolution2D,
    Linear,
    LSTMCell,
    Model,
    Operator,
    Relu,
    Sigmoid,
    Split,
    Tanh,
)


def perceptron(widths):
    """`+=` puts each layer behind the one before."""
    model = Model(name="perceptron")
    for width in widths[:-1]:
        model += Linear(width)
        model += Relu()
    model += Linear(widths[-1])
    return model


def residual(channels):
    """`|=` adds a layer with its wires as named; the shortcut starts at the block's own input."""
    block = Model(name="residual")
    block |= Convolution2D(channels, kernel_size=3, padding=1)(input="image", output="conv")
    block |= BatchNorm2D(channels)(input="conv", output="norm")
    block |= Relu()(input="norm", output="main")
    block |= Add()(left="image", right="main", output=ml.IOKey("output"))
    return block


def lstm_cell(hidden):
    """Layers are values: what a gate computes is written as it stands in the paper."""
    cell = Model(name="cell")
    x, h, c = ml.IOKey("x"), ml.IOKey("h"), ml.IOKey("c")
    gates = Linear(4 * hidden, name="gates")(Concat(axis=1)([x, h]))
    pieces = Split(split_size=hidden, axis=1)(gates)
    i, f, g, o = Sigmoid()(pieces[0]), Sigmoid()(pieces[1]), Tanh()(pieces[2]), Sigmoid()(pieces[3])
    c_next = f * c + i * g
    cell |= Buffer()(c_next, output=ml.IOKey("c_next"))
    cell |= Buffer()(o * Tanh()(c_next), output=ml.IOKey("h_next"))
    return cell


class ChannelShuffle(Operator):
    """`create_model` runs when the rank is known, so shapes unpack; an unknown batch size stays a symbol."""

    def __init__(self, groups, name=None):
        super().__init__(name=name)
        self.groups = groups

    def create_model(self):
        model, images = Model(), ml.IOKey("input")
        n, c, h, w = images.shape
        grouped = images.reshape(n, self.groups, c // self.groups, h, w)
        model |= Buffer()(grouped.transpose(0, 2, 1, 3, 4).reshape(n, c, h, w), output=ml.IOKey("output"))
        return model


def show(model, **shapes):
    """The PyTorch source of a model and its output on random data."""
    compiled = ml.compile(model, ml.TorchBackend(), shapes=shapes, inference=True)
    data = {key: torch.randn([2 if size is None else size for size in shape]) for key, shape in shapes.items()}
    print(compiled.source)
    return compiled, compiled.evaluate({**compiled.randomize_params(0), **compiled.initial_state()}, data), data


if __name__ == "__main__":
    show(perceptron([16, 8, 2]), input=[None, 4])
    show(residual(8), image=[None, 8, 6, 6])

    compiled, ours, data = show(lstm_cell(3), x=[2, 5], h=[2, 3], c=[2, 3])
    params = compiled.randomize_params(0)
    cell = ml.compile(LSTMCell(3), ml.TorchBackend(), shapes={"input": [2, 5]})
    zeros = torch.zeros(12)
    split = dict(zip(("weight_ih", "weight_hh"), params["gates_weight"].split([5, 3], dim=1)))
    ready_made = cell.evaluate(
        {**split, "bias_ih": params["gates_bias"], "bias_hh": zeros},
        {"input": data["x"], "h": data["h"], "c": data["c"]},
    )
    print("the cell is the ready-made one:", torch.allclose(ours["h_next"], ready_made["h_next"], atol=1e-6))

    _, shuffled, data = show(ChannelShuffle(2), input=[None, 6, 1, 1])
    print("channels", np.arange(6), "become", np.arange(6).reshape(2, 3).T.ravel())
    print("as torch does:", torch.equal(shuffled["output"], torch.nn.ChannelShuffle(2)(data["input"])))
