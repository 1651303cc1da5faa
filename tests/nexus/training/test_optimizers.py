"""Optimizers against timm's, and what each parameter gets."""

import pytest
import torch
from torch import nn

from nexus.models.registry import create_model
from nexus.training import Lamb, Lion, parameter_groups
from nexus.training.optimizers import layer_numbers, make_optimizer
from nexus.training.recipe import OptimizerRecipe


def train(make, steps=6):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = make(groups)
    images, labels = torch.randn(16, 5), torch.randint(3, (16,))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_lion_equals_timm(timm):
    from timm.optim.lion import Lion as Theirs

    ours = train(lambda groups: Lion(groups, lr=1e-2, betas=(0.9, 0.99)))
    theirs = train(lambda groups: Theirs(groups, lr=1e-2, betas=(0.9, 0.99)))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_lamb_equals_timm(timm):
    from timm.optim.lamb import Lamb as Theirs

    ours = train(lambda groups: Lamb(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-6))
    theirs = train(lambda groups: Theirs(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-6, max_grad_norm=None))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion"])
def test_every_optimizer_learns(name):
    recipe = OptimizerRecipe(name=name, lr=0.05 if name in ("sgd", "lamb") else 0.01, weight_decay=0.01)
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = make_optimizer(model, recipe, batch_size=8)
    inputs = torch.randn(64, 4)
    labels = (inputs[:, 0] > 0).long()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def tiny_vit():
    return create_model("vit_tiny_patch16_224", image_size=32, embed_dim=12, num_layers=3, num_heads=2, num_classes=5)


def by_name(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


def test_norms_biases_and_tokens_do_not_decay():
    model = tiny_vit()
    groups = by_name(model, parameter_groups(model, lr=1.0, weight_decay=0.1))
    decayed = {name for name, group in groups.items() if group["weight_decay"]}
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert decayed == {n for n, p in model.named_parameters() if p.ndim > 1 and n not in ("cls_token", "pos_embed")}
    assert {"cls_token", "pos_embed"} <= set(groups)


def test_layer_decay_follows_the_blocks():
    model = tiny_vit()
    groups = by_name(model, parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5))
    rate = {name: group["lr"] for name, group in groups.items()}
    assert rate["head.weight"] == rate["norm.weight"] == 1.0
    assert [rate[f"blocks.{i}.attn.qkv.weight"] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert rate["pos_embed"] == rate["patch_embed.proj.weight"] == 0.0625


def test_layers_of_a_resnet():
    model = create_model("resnet18", num_classes=5)
    numbers = layer_numbers(model)
    assert (numbers["conv1.weight"], numbers["layer1.0.conv1.weight"], numbers["layer4.1.conv2.weight"]) == (0, 1, 8)
    assert numbers["fc.weight" if "fc.weight" in numbers else "head.weight"] == 9


def test_layer_decay_without_blocks():
    with pytest.raises(ValueError, match=r"layer_decay needs a model with blocks, and Linear has none"):
        parameter_groups(nn.Linear(2, 2), 1.0, 0.0, layer_decay=0.5)


def test_rates_by_the_start_of_names():
    model = tiny_vit()
    factors = {"blocks.": 0.1, "blocks.2.mlp": 0.5}
    groups = by_name(model, parameter_groups(model, lr=2.0, weight_decay=0.1, lr_factors=factors))
    rate = {name: group["lr"] for name, group in groups.items()}
    assert rate["head.weight"] == rate["patch_embed.proj.weight"] == 2.0
    assert rate["blocks.0.attn.qkv.weight"] == rate["blocks.2.norm1.bias"] == pytest.approx(0.2)
    assert rate["blocks.2.mlp.fc1.weight"] == 1.0
    both = by_name(model, parameter_groups(model, 1.0, 0.1, layer_decay=0.5, lr_factors=factors))
    assert both["blocks.1.norm1.bias"]["lr"] == pytest.approx(0.025)
    optimizer = make_optimizer(model, OptimizerRecipe(lr=2.0, lr_factors={"blocks.": 0.1}), batch_size=8)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0, 0.2}


def test_errors_of_rates_by_name():
    with pytest.raises(ValueError, match=r"no parameter starts with 'block\.'\. Did you mean 'blocks\.'"):
        parameter_groups(tiny_vit(), 1.0, 0.0, lr_factors={"block.": 0.1})
    with pytest.raises(ValueError, match=r"lr_factors\['head\.'\] is 0; it must be a number above 0"):
        OptimizerRecipe(lr_factors={"head.": 0})


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert len(by_name(model, parameter_groups(model, 1.0, 0.1))) == 2
    with pytest.raises(ValueError, match="all are frozen"):
        parameter_groups(model.requires_grad_(False), 1.0, 0.1)


def test_learning_rate_scales_with_the_batch():
    recipe = OptimizerRecipe(lr=0.1, lr_scaling=256)
    assert make_optimizer(nn.Linear(2, 2), recipe, batch_size=1024).param_groups[0]["lr"] == pytest.approx(0.4)
