"""Renaming, joining and adapting weights."""

import pytest
import torch

from nexus.core.formats import Format, adapt_input_channels, join_keys, rename_keys, to_our_names


def test_rename_keys_applies_patterns_in_order_and_drops():
    state = {"a.0.w": torch.zeros(1), "a.1.w": torch.ones(1), "pooler.w": torch.zeros(1)}
    renamed = rename_keys(state, {r"^a\.(\d)\.": r"blocks.\1.", r"^blocks\.1\.": "last.", r"^pooler\.": None})
    assert list(renamed) == ["blocks.0.w", "last.w"]
    assert renamed["last.w"] is state["a.1.w"]


def test_rename_keys_never_loses_a_weight_silently():
    with pytest.raises(ValueError, match=r"Two weights would be called 'w'; one of them is 'b\.w'"):
        rename_keys({"a.w": torch.zeros(1), "b.w": torch.zeros(1)}, {r"^[ab]\.": ""})


def test_join_keys_stacks_rows_in_the_given_order():
    state = {f"x.attn.{part}.bias": torch.full((2,), value) for value, part in enumerate("vkq")}
    joined = join_keys({**state, "x.proj.bias": torch.zeros(1), "q.lonely": torch.zeros(1)}, ("q", "k", "v"), "qkv")
    assert joined.keys() == {"x.attn.qkv.bias", "x.proj.bias", "q.lonely"}
    assert joined["x.attn.qkv.bias"].tolist() == [2, 2, 1, 1, 0, 0]


def test_formats_are_recognised_by_their_keys():
    formats = (
        Format("one", detect=r"^one\.", rename={r"^one\.": ""}),
        Format("two", detect=r"^two\.", rename={r"^two\.": ""}, convert=lambda state: {"w": state["w"].T}),
    )
    weight = torch.arange(6.0).reshape(2, 3)
    assert to_our_names({"one.w": weight}, formats)[1] == "one"
    state, name = to_our_names({"two.w": weight}, formats)
    assert name == "two"
    assert torch.equal(state["w"], weight.T)
    assert to_our_names({"w": weight}, formats)[1] == "nexus"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_adapted_channels_match_timm(timm, channels):
    weight = torch.randn(5, 3, 2, 2)
    theirs = timm.models.adapt_input_conv(channels, weight)
    torch.testing.assert_close(adapt_input_channels(weight, channels), theirs)


def test_a_grey_image_gives_what_it_gave_as_rgb():
    weight, grey = torch.randn(5, 3, 2, 2), torch.randn(1, 1, 8, 8)
    wanted = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(torch.nn.functional.conv2d(grey, adapt_input_channels(weight, 1)), wanted)
