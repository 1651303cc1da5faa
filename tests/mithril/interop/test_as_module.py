"""Compiled models as torch modules, and weights on their way back."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mithril as ml
from mithril.interop import save_safetensors, state_dict_of
from mithril.models import BatchNorm2D, Convolution2D, Dropout, IOKey, Linear, Model, Relu


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return {"logits": self.head(self.features(images).mean((2, 3)))}


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    net(torch.randn(8, 3, 6, 6))
    return net.eval()


@pytest.fixture
def imported(net):
    model, params = ml.from_torch(net, torch.randn(2, 3, 6, 6), {"images": {0: "batch"}})
    return ml.compile(model, ml.TorchBackend()), params


def test_names_values_and_gradients_are_those_of_the_module(net, imported):
    compiled, params = imported
    module = compiled.as_module(params)
    images = torch.randn(5, 3, 6, 6)
    theirs, ours = net(images)["logits"], module(images)["logits"]
    torch.testing.assert_close(ours, theirs)
    assert set(dict(module.named_parameters())) == set(dict(net.named_parameters()))
    assert set(module.state_dict()) == {k for k in net.state_dict() if "num_batches" not in k}
    theirs.square().sum().backward()
    ours.square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(module.get_parameter(name).grad, parameter.grad)
    assert not net.load_state_dict(module.state_dict(), strict=False).unexpected_keys


def test_training_changes_it_and_the_way_back(net, imported, tmp_path):
    compiled, params = imported
    module = compiled.as_module(params)
    images, labels = torch.randn(16, 3, 6, 6), torch.arange(16) % 2
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(module(images)["logits"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    trained = {key: value.numpy() for key, value in module.params().items()}
    net.load_state_dict(state_dict_of(trained, net))
    torch.testing.assert_close(net(images)["logits"], module(images)["logits"])
    save_safetensors(trained, tmp_path / "net.safetensors", net)
    assert set(load_file(tmp_path / "net.safetensors")) == set(net.state_dict())
    on_numpy = ml.compile(ml.from_torch(net, images)[0], ml.NumpyBackend())
    found = on_numpy.evaluate(trained, {"images": images.numpy()})["logits"]
    np.testing.assert_allclose(found, net(images)["logits"].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_state_of_a_model_of_our_own():
    model = Model()
    model |= Convolution2D(kernel_size=3, out_channels=4, name="conv")(input="image")
    model += BatchNorm2D(name="bn")
    model += Relu()
    model += Dropout(rate=0.5)
    model |= Linear(2, name="head")(input=model.cout.mean(axis=(2, 3)), output=IOKey("output"))
    compiled = ml.compile(model, ml.TorchBackend(), shapes={"image": [None, 3, 6, 6]})
    module = compiled.as_module()
    assert "conv.weight" in dict(module.named_parameters())
    image = torch.randn(8, 3, 6, 6)
    before = module.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    first, second = module(image), module(image)
    assert not torch.equal(first, second)
    mean = next(k for k in before if k.endswith("running_mean"))
    assert not torch.equal(before[mean], module.state_dict()[mean])
    module.eval()
    torch.testing.assert_close(module(image), module(image))
    assert module(image).shape == (8, 2)


def test_errors(imported):
    compiled, params = imported
    module = compiled.as_module(params)
    with pytest.raises(ml.MithrilError, match=r"'image' is no data key of the model. Did you mean 'images'?"):
        module(image=torch.ones(1, 3, 6, 6))
    with pytest.raises(ml.MithrilError, match=r"2 inputs were given, the model has 1: images."):
        module(torch.ones(1, 3, 6, 6), 1)
    with pytest.raises(ml.MithrilError, match=r"'images' is missing from the data."):
        module()
    with pytest.raises(ml.MithrilError, match=r"'head_bias' .* is missing from params"):
        compiled.as_module({k: v for k, v in params.items() if k != "head_bias"})
    numpy = ml.compile(Linear(2), ml.NumpyBackend(), shapes={"input": [1, 2]})
    with pytest.raises(ml.MithrilError, match=r"as_module needs a model compiled for torch, not for numpy."):
        numpy.as_module()


def test_weights_of_another_shape_or_name(net):
    params = {k.replace(".", "_"): v.numpy() for k, v in net.state_dict().items()}
    with pytest.raises(ml.MithrilError, match=r"'hed_weight' is no key of Net. Did you mean 'head_weight'?"):
        state_dict_of({**params, "hed_weight": params["head_weight"]}, net)
    with pytest.raises(ml.MithrilError, match=r"'head_bias' has shape \(3,\), head.bias has \(2,\)"):
        state_dict_of({**params, "head_bias": np.ones(3)}, net)
