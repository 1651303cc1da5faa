"""MLPMixer against timm, and the authors' JAX files."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from nexus.models.cv import MixerConfig, MLPMixer
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs.vit import timm_mixer

TINY = MixerConfig(image_size=32, patch_size=8, num_classes=5, embed_dim=24, num_layers=3)
COUNTS = {  # timm's models
    "mixer_s32_224": 19_104_624,
    "mixer_s16_224": 18_528_264,
    "mixer_b32_224": 60_293_428,
    "mixer_b16_224": 59_880_472,
    "mixer_l32_224": 206_939_264,
    "mixer_l16_224": 208_196_168,
}


@pytest.mark.parametrize("size", [32, (48, 16)])
def test_matches_timm(timm, assert_parity, size):
    sides = (size, size) if isinstance(size, int) else size
    ours, theirs = MLPMixer(TINY.replace(image_size=size)), timm_mixer(timm, TINY, img_size=size)
    assert_parity(ours, theirs, torch.randn(2, 3, *sides), spelling="timm")


def test_matches_timm_with_the_authors_gelu(timm, assert_parity):
    theirs = timm_mixer(timm, TINY, act_layer=partial(nn.GELU, approximate="tanh"))
    ours = MLPMixer(TINY.replace(activation="gelu_tanh"))
    assert_parity(ours, theirs, torch.randn(2, 3, 32, 32), spelling="timm")


def authors_arrays(theirs) -> dict[str, np.ndarray]:
    """The reference's weights under the names and in the layout of the authors' JAX files."""
    arrays = {}
    for key, value in theirs.state_dict().items():
        layer, _, kind = key.rpartition(".")
        for name, name_in_jax in (
            ("stem.proj", "stem"),
            ("blocks.", "MixerBlock_"),
            (".norm1", "/LayerNorm_0"),
            (".norm2", "/LayerNorm_1"),
            (".mlp_tokens.", "/token_mixing/"),
            (".mlp_channels.", "/channel_mixing/"),
            ("fc1", "Dense_0"),
            ("fc2", "Dense_1"),
        ):
            layer = layer.replace(name, name_in_jax)
        layer = "pre_head_layer_norm" if layer == "norm" else layer
        array = value.numpy()
        if kind == "weight":
            kind = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        arrays[f"{layer}/{kind}"] = array
    return arrays


def test_reads_the_authors_npz(timm, tmp_path):
    theirs = timm_mixer(timm, TINY, act_layer=partial(nn.GELU, approximate="tanh")).eval()
    for value in theirs.state_dict().values():
        value.normal_(0, 0.3)
    arrays = authors_arrays(theirs)
    assert arrays["MixerBlock_2/token_mixing/Dense_1/kernel"].shape == (12, 16)
    np.savez(tmp_path / "Mixer-Ti_8.npz", **arrays)
    config = TINY.replace(activation="gelu_tanh").to_dict()
    ours = MLPMixer.from_pretrained(tmp_path / "Mixer-Ti_8.npz", **config)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_reads_timm_files_for_other_channels_and_classes(timm, tmp_path):
    theirs = timm_mixer(timm, TINY).eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    ours = MLPMixer.from_pretrained(tmp_path / "timm.pth", **TINY.to_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)
    grey = MLPMixer.from_pretrained(tmp_path / "timm.pth", **TINY.replace(in_channels=1, num_classes=7).to_dict())
    image = torch.randn(2, 1, 32, 32)
    same = ours(image.expand(-1, 3, -1, -1))["embeddings"]
    torch.testing.assert_close(grey(image)["embeddings"], same, rtol=1e-5, atol=1e-5)
    assert grey(image)["logits"].shape == (2, 7)


@pytest.mark.parametrize("name", list(COUNTS))
def test_parameter_counts(timm, name):
    with torch.device("meta"):
        ours, theirs = create_model(name), timm.create_model(name)
    assert ours.num_parameters() == model_info(name).num_parameters == COUNTS[name]
    assert COUNTS[name] == sum(p.numel() for p in theirs.parameters())


def test_cards_agree_with_timm(timm):
    assert sorted(COUNTS) == list_models("mixer_*")
    tags = set()
    for name in COUNTS:
        for weights in model_info(name).weights:
            if not weights.url.startswith("hf-hub:timm/"):
                continue
            tags.add(f"{name}.{weights.tag}")
            theirs, ours = timm.get_pretrained_cfg(f"{name}.{weights.tag}"), weights.preprocessing
            assert weights.url == f"hf-hub:timm/{name}.{weights.tag}"
            assert weights.changes.get("num_classes", 1000) == theirs.num_classes
            assert weights.licence == theirs.license
            assert (ours.mean, ours.std, ours.interpolation) == (theirs.mean, theirs.std, theirs.interpolation)
            assert ours.resize_size == int(224 / theirs.crop_pct)
    assert tags == {name for name in timm.list_models("mixer_*_224", pretrained=True) if name.startswith("mixer")}


def test_channel_mixing_sees_one_token_and_token_mixing_one_channel():
    """The two kinds of mixing act on rows and on columns of the table of tokens (Sec. 2)."""
    block = MLPMixer(TINY).blocks[0]
    x = torch.randn(1, 16, 24)
    y = x.clone()
    y[:, 3] += 1
    moved = (block.mlp_channels(x) - block.mlp_channels(y)).abs().sum((0, 2))
    assert moved.nonzero().tolist() == [[3]]
    y = x.clone()
    y[:, :, 7] += 1
    moved = (block.mlp_tokens(x.mT) - block.mlp_tokens(y.mT)).abs().sum((0, 2))
    assert moved.nonzero().tolist() == [[7]]


def test_tokens_of_an_image_are_not_a_set():
    """Unlike a transformer without positions, the Mixer knows the order of its tokens (Sec. 2)."""
    model = MLPMixer(TINY).double().eval()
    tokens = torch.randn(1, 16, 24).double()
    plain, permuted = tokens, tokens[:, torch.randperm(16)]
    for block in model.blocks:
        plain, permuted = block(plain), block(permuted)
    assert (plain.mean(1) - permuted.mean(1)).abs().max() > 1e-6


def test_drop_path_rises():
    model = MLPMixer(TINY.replace(drop_path_rate=0.4))
    assert [round(block.drop_path.rate, 6) for block in model.blocks] == [0.0, 0.2, 0.4]


def test_errors_say_what_would_fit():
    model = MLPMixer(TINY)
    with pytest.raises(ValueError, match=r"images are 48x32 pixels; this MLPMixer mixes the patches of 32x32"):
        model(torch.zeros(1, 3, 48, 32))
    with pytest.raises(ValueError, match=r"build the model with image_size=\(48, 32\)"):
        model(torch.zeros(1, 3, 48, 32))
    with pytest.raises(ValueError, match="MLPMixer has no attention maps"):
        model(torch.zeros(1, 3, 32, 32), output_attentions=True)
    with pytest.raises(ValueError, match="image_size 30 is not a multiple of patch_size 8; the nearest one is 32"):
        TINY.replace(image_size=30)
    with pytest.raises(ValueError, match=r"activation is 'relu'; it must be one of 'gelu', 'gelu_tanh'"):
        TINY.replace(activation="relu")
