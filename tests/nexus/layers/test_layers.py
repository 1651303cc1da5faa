"""Leaf layers against plain formulas and timm."""

import pytest
import torch

from nexus.layers import (
    Attention,
    DropPath,
    Mlp,
    PatchEmbed,
    check_images,
    collect,
    drop_path_rates,
    resample_position_embedding,
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_attention_is_the_weighted_mean_that_maps_show():
    layer = Attention(12, 3).double()
    x = torch.randn(2, 5, 12).double()
    values = layer.qkv(x)[..., 24:].unflatten(-1, (3, 4)).transpose(1, 2)
    mixed = (layer.maps(x) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(x), layer.proj(mixed), rtol=1e-12, atol=1e-12)


def test_attention_without_bias_and_with_dropout():
    layer = Attention(12, 3, qkv_bias=False, dropout=0.5, proj_dropout=0.5)
    assert layer.qkv.bias is None
    x = torch.randn(2, 5, 12)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_mlp_is_two_layers():
    layer = Mlp(4, 8)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x), layer.fc2(torch.nn.functional.gelu(layer.fc1(x))))


def test_patches_are_row_by_row():
    layer = PatchEmbed(4, 2, 6)
    images = torch.randn(1, 2, 8, 12)
    patch = images[:, :, 4:8, 8:12].flatten(1)
    wanted = patch @ layer.proj.weight.flatten(1).T + layer.proj.bias
    torch.testing.assert_close(layer(images)[:, 5], wanted, rtol=1e-5, atol=1e-5)
    assert layer.grid((8, 12)) == (2, 3)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    layer, x = DropPath(0.25), torch.ones(20_000, 2, 3)
    y = layer(x)
    assert set(y[:, 0, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean().item() - 1) < 0.02
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match=r"The rate of DropPath is 1\.0; it must be at least 0 and below 1"):
        DropPath(1.0)


def test_drop_path_rates_rise_linearly():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]


def test_positions_are_resampled_as_timm_does(timm):
    positions = torch.randn(1, 2 + 20, 6)
    for grid in ((4, 5), (7, 3), (2, 2), (9, 11)):
        ours = resample_position_embedding(positions, (4, 5), grid, num_prefix=2)
        theirs = timm.layers.resample_abs_pos_embed(positions, list(grid), [4, 5], num_prefix_tokens=2)
        assert torch.equal(ours, theirs)
        plain = resample_position_embedding(positions, (4, 5), grid, num_prefix=2, antialias=False)
        wanted = timm.layers.resample_abs_pos_embed(positions, list(grid), [4, 5], num_prefix_tokens=2, antialias=False)
        assert torch.equal(plain, wanted)
    assert resample_position_embedding(positions, (4, 5), (4, 5), num_prefix=2) is positions
    assert resample_position_embedding(positions.bfloat16(), (4, 5), (2, 2), num_prefix=2).dtype == torch.bfloat16


@pytest.mark.parametrize("checkpointing", [False, True])
def test_collect_keeps_every_output(checkpointing):
    blocks = [torch.nn.Linear(3, 3), torch.nn.Linear(3, 4)]
    x = torch.randn(2, 3, requires_grad=True)
    features = collect(blocks, x, checkpointing=checkpointing)
    assert torch.equal(features[0], blocks[0](x))
    assert torch.equal(features[1], blocks[1](features[0]))
    (last,) = collect(blocks, x, checkpointing=checkpointing, keep=False)
    assert torch.equal(last, features[1])


def test_checkpointing_runs_each_block_again_in_the_backward_pass():
    calls = []
    block = torch.nn.Linear(3, 3)
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, requires_grad=True)
    collect([block, block], x, checkpointing=True)[-1].sum().backward()
    assert len(calls) == 4
    with torch.no_grad():
        collect([block, block], x, checkpointing=True)
    assert len(calls) == 6


def test_images_that_are_fine_pass():
    check_images(torch.zeros(0, 3, 8, 8), 3, multiple_of=4)
    with pytest.raises(ValueError, match="images are 0x8 pixels; both sides must be multiples of 4, such as 4x8"):
        check_images(torch.zeros(1, 3, 0, 8), 3, multiple_of=4)
    with pytest.raises(ValueError, match=r"images have shape \(3, 8\); the model takes \(b, c, h, w\)\.$"):
        check_images(torch.zeros(3, 8), 3)
