"""Fresh weights: their spread by the kind of layer."""

import torch
from torch import nn

from nexus.core.initialization import init_vision_layer


def test_linear_layers_and_embeddings():
    torch.manual_seed(0)
    for layer in (nn.Linear(400, 300), nn.Embedding(300, 400)):
        init_vision_layer(layer)
        assert abs(layer.weight.std().item() - 0.02) < 0.001
    assert not nn.Linear(3, 3).requires_grad_(False).apply(init_vision_layer).bias.any()


def test_convolutions_keep_the_variance_through_relu():
    torch.manual_seed(0)
    x = torch.randn(4, 64, 20, 20)
    for _ in range(6):
        layer = nn.Conv2d(64, 64, 3, padding=1)
        init_vision_layer(layer)
        x = layer(x).relu()
    assert 0.2 < x.square().mean() < 2


def test_patch_convolutions_are_linear_layers_over_a_patch():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 768, 16, stride=16)
    init_vision_layer(layer)
    tokens = layer(torch.randn(4, 3, 64, 64))
    assert abs(tokens.std().item() - 1) < 0.1
    assert not layer.bias.any()


def test_norms_start_as_the_identity():
    for layer in (nn.LayerNorm(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        init_vision_layer(layer)
        assert layer.weight.tolist() == [1] * 4
        assert layer.bias.tolist() == [0] * 4
