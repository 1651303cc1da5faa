"""A torch module as a model: names, structure, values, and what cannot be brought over."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mithril as ml


class Block(nn.Module):
    """A residual block with an in-place activation and dropout."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.drop(self.act(self.fc(self.norm(x))))


class Net(nn.Module):
    """Blocks, buffers in and out of the state dict, tied weights, a constant, an unused parameter, nested outputs."""

    def __init__(self, width=6, depth=4):
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 3, bias=False)
        self.head.weight = nn.Parameter(torch.randn(3, width))
        self.tied = nn.Linear(width, 3, bias=False)
        self.tied.weight = self.head.weight
        self.unused = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("table", torch.arange(width).float(), persistent=False)

    def forward(self, images, scale=None):
        x = self.stem(images - self.mean)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        x = (x + self.table) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        return {"logits": self.head(x) + self.tied(F.relu(x)), "features": features, "nothing": None}


def run(module, args, backend=None, dynamic=None, inference=True):
    """The compiled model and its outputs as NumPy arrays."""
    model, params = ml.from_torch(module, args, dynamic)
    compiled = ml.compile(model, backend or ml.NumpyBackend(), inference=inference)
    data = {key: value.numpy() for key, value in zip(compiled.data_keys, args)}
    return compiled, params, {k: compiled.backend.to_numpy(v) for k, v in compiled.evaluate(params, data).items()}


def check_close(found, expected):
    """Equal up to 1e-5 of the largest value."""
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def test_values_names_and_structure(net):
    images = torch.randn(2, 3)
    compiled, params, found = run(net, (images,))
    expected = net(images)
    check_close(found["logits"], expected["logits"])
    assert list(found) == ["logits", "features_0", "features_1", "features_2", "features_3"]
    check_close(found["features_2"], expected["features"][2])
    assert compiled.data_keys == ["images"]
    state = {k.replace(".", "_") for k in net.state_dict()} - {"unused", "tied_weight"}
    assert set(params) == state
    assert "mean" in compiled.parameter_keys
    assert "mean" not in compiled.trainable_keys
    assert "blocks_0_norm_weight" in compiled.trainable_keys


def test_blocks_are_one_function():
    torch.manual_seed(0)
    module = nn.ModuleDict({"blocks": nn.Sequential(*[Block(6) for _ in range(5)])})
    module.forward = lambda x: module["blocks"](x)
    compiled, _, _ = run(module.eval(), (torch.randn(2, 6),), ml.TorchBackend())
    assert compiled.source.count("F.linear(") == 1
    assert "for i in range(5):\n" in compiled.source
    assert "def block(params, prefix, x):" in compiled.source


def test_summary_shows_the_modules(net):
    model, _ = ml.from_torch(net, torch.randn(2, 3))
    text = model.summary(depth=3)
    assert "(Net)" in text
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["blocks_1", "Block"] in rows
    assert ["fc", "Linear"] in rows


def test_open_batch(net):
    model, params = ml.from_torch(net, torch.randn(2, 3), {"images": {0: "batch"}})
    compiled = ml.compile(model, ml.NumpyBackend(), inference=True)
    assert compiled.shapes["images"] == [None, 3]
    images = torch.randn(5, 3)
    found = compiled.evaluate(params, {"images": images.numpy()})
    check_close(found["logits"], net(images)["logits"])


class Returns(nn.Module):
    """Calls a function, for one-line modules."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, *others):
        return self.function(x, *others)


def test_outputs_of_a_tuple_and_of_a_tensor():
    _, _, found = run(Returns(lambda x: (x + 1, [x * 2, x])), (torch.ones(2),))
    assert {k: v.tolist() for k, v in found.items()} == {"output_0": [2, 2], "output_1_0": [2, 2], "output_1_1": [1, 1]}
    assert list(run(Returns(lambda x: x + 1), (torch.ones(2),))[2]) == ["output"]


def test_inputs_by_name_and_nested():
    class Two(nn.Module):
        def forward(self, image, boxes, scale=1.0):
            return image.sum() * scale + boxes[0].sum() - boxes[1].sum()

    a, b, c = torch.ones(2), torch.ones(3), torch.ones(4)
    model, _ = ml.from_torch(Two(), {"boxes": [b, c], "image": a, "scale": 3.0})
    compiled = ml.compile(model, ml.NumpyBackend())
    assert sorted(compiled.data_keys) == ["boxes_0", "boxes_1", "image"]
    assert compiled.evaluate({}, {"image": a, "boxes_0": b, "boxes_1": c})["output"] == 5


def test_a_module_that_is_called_twice_has_one_set_of_parameters():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(6)

        def forward(self, x):
            return self.block(self.block(x))

    torch.manual_seed(0)
    module, x = Twice().eval(), torch.randn(2, 6)
    compiled, params, found = run(module, (x,), ml.TorchBackend())
    assert len(params) == 4
    check_close(found["output"], module(x))
    assert compiled.source.count("F.linear(") == 1


def test_numbered_modules_at_the_root():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(2, 3)
    _, params, found = run(module, (x,), ml.TorchBackend())
    assert set(params) == {"0_weight", "0_bias", "2_weight", "2_bias"}
    check_close(found["output"], module(x))


def test_changes_of_views_are_functionalized():
    def mask(x):
        y = x * 2
        y[:, 0] = 7
        return y

    x = torch.randn(2, 3)
    found = run(Returns(mask), (x,), ml.JaxBackend())[2]
    np.testing.assert_array_equal(found["output"], mask(x).numpy())


def test_dropout_of_a_training_module_follows_compile():
    module, x = Block(6).train(), torch.randn(4, 6)
    _, _, found = run(module, (x,), inference=True)
    check_close(found["output"], module.eval()(x))
    model, params = ml.from_torch(module.train(), x)
    outputs, state = ml.compile(model, ml.NumpyBackend()).evaluate(params, {"x": x.numpy()}, state={})
    assert "random_key" in state
    assert not np.allclose(outputs["output"], found["output"])


class Resampling(nn.Module):
    def forward(self, images, grid):
        return {
            "exact": F.interpolate(images, scale_factor=1.5, mode="nearest-exact"),
            "cubic": F.grid_sample(images, grid, "bicubic", "reflection", align_corners=True),
            "einsum": torch.einsum("b...w,b...w->b...", images, images.flip(-1)),
            "running": torch.logcumsumexp(images, 1),
        }


def test_resampling_einsum_and_running_sums():
    args = torch.randn(2, 3, 4, 5), torch.rand(2, 6, 3, 2) * 3 - 1.5
    found = run(Resampling(), args)[2]
    for key, expected in Resampling()(*args).items():
        check_close(found[key], expected)
