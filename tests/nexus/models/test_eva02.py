"""EVA-02 against timm, and the authors' names."""

import pytest
import torch

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.layers import rotary_angles, rotate_pairs
from nexus.models.cv import EVA02, EVA02Config
from nexus.models.cv.eva02 import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.proofs.vit import timm_eva

TINY = EVA02Config(
    image_size=28, patch_size=7, embed_dim=24, num_layers=2, num_heads=2, num_classes=5, rope_grid=(3, 3)
)
FUSED = TINY.replace(sub_norm=False)


@pytest.mark.parametrize("config", [TINY, FUSED], ids=["sub-norm", "fused"])
def test_matches_timm(timm, assert_parity, config):
    theirs = timm_eva(timm, config)
    assert_parity(EVA02(config), theirs, torch.randn(2, 3, 28, 28), spelling="eva")


@pytest.mark.parametrize("size", [(42, 35), (14, 21)])
def test_matches_timm_at_another_size(timm, assert_parity, size):
    """timm resamples positions in float32, whatever the model's type is."""
    theirs = timm_eva(timm, TINY, dynamic_img_size=True)
    ours = EVA02(TINY.replace(interpolate_antialias=True))
    assert_parity(ours, theirs, torch.randn(2, 3, *size), spelling="eva", float64=2e-6)


def authors_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's tensors under the names of the authors' files."""
    renames = {
        "attn.q_proj.bias": "attn.q_bias",
        "attn.v_proj.bias": "attn.v_bias",
        "mlp.fc1_g": "mlp.w1",
        "mlp.fc1_x": "mlp.w2",
        "mlp.norm": "mlp.ffn_ln",
        "mlp.fc1": "mlp.w12",
        "mlp.fc2": "mlp.w3",
    }
    named = {}
    for key, value in state.items():
        for theirs, authors in renames.items():
            key = key.replace(theirs, authors)
        named[key] = value
    tables = {f"blocks.{index}.attn.rope.freqs_cos": torch.zeros(16, 12) for index in range(2)}
    return named | tables | {"rope.freqs_cos": torch.zeros(16, 12), "rope.freqs_sin": torch.zeros(16, 12)}


@pytest.mark.parametrize("config", [TINY, FUSED], ids=["sub-norm", "fused"])
@pytest.mark.parametrize("wrapper", ["model", "module"])
def test_reads_the_authors_files(timm, tmp_path, config, wrapper):
    theirs = timm_eva(timm, config).eval()
    torch.save({wrapper: authors_names(theirs.state_dict())}, tmp_path / "eva02.pt")
    ours = EVA02.from_pretrained(tmp_path / "eva02.pt", **config.to_dict())
    images = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_reads_a_pretraining_file_as_timm_does(timm, tmp_path):
    """Its last norm becomes that of the embeddings; the mask token and the head for features go."""
    theirs = timm_eva(timm, TINY, num_classes=0).eval()
    state = authors_names(theirs.state_dict())
    state = {key.replace("fc_norm", "norm"): value for key, value in state.items()}
    state |= {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(8, 24), "lm_head.bias": torch.zeros(8)}
    torch.save({"module": state}, tmp_path / "pt.pt")
    ours = EVA02.from_pretrained(tmp_path / "pt.pt", **TINY.replace(num_classes=0).to_dict())
    images = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_positions_are_resampled_at_loading_as_in_the_forward_pass(tmp_path):
    theirs = EVA02(TINY).eval()
    torch.save(theirs.state_dict(), tmp_path / "eva02.pth")
    ours = EVA02.from_pretrained(tmp_path / "eva02.pth", **TINY.replace(image_size=(42, 35)).to_dict())
    images = torch.randn(2, 3, 42, 35)
    torch.testing.assert_close(ours(images)["logits"], theirs(images)["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name, timm):
    with torch.device("meta"):
        ours = create_model(name)
        theirs = timm.create_model(name, num_classes=ours.config.num_classes)
    assert ours.num_parameters() == model_info(name).num_parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_reads_timms_names(name, timm):
    with torch.device("meta"):
        ours = create_model(name)
        theirs = timm.create_model(name, num_classes=ours.config.num_classes)
        state, spelling = to_our_names(theirs.state_dict(), EVA02.formats)
    assert spelling == "eva"
    own = ours.state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in own.items()}


def test_cards_agree_with_timm(timm):
    for name in VARIANTS:
        for weights in model_info(name).weights:
            if not weights.url.startswith("hf-hub:timm/"):
                continue
            where = f"{name}.{weights.tag}"
            theirs, ours = timm.get_pretrained_cfg(where), weights.preprocessing
            assert weights.changes.get("num_classes", VARIANTS[name].num_classes) == theirs.num_classes, where
            assert (ours.image_size, weights.licence) == (theirs.input_size[1:], theirs.license), where
            assert (ours.mean, ours.std, ours.interpolation) == (theirs.mean, theirs.std, theirs.interpolation), where
            assert (ours.resize == "squash") == (theirs.crop_mode == "squash"), where
            if ours.resize == "shorter":
                assert ours.resize_size == int(theirs.input_size[1] / theirs.crop_pct), where


def test_products_of_queries_and_keys_depend_on_the_distance_alone():
    """Su et al., Eq. 11: moving both tokens by as many rows and columns changes nothing."""
    angles = rotary_angles((6, 6), 16, reference=(6, 6)).double()
    query, key = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    queries, keys = (rotate_pairs(x.expand(36, 16), angles).reshape(6, 6, 16) for x in (query, key))
    products = torch.einsum("abe,cde->abcd", queries, keys)
    torch.testing.assert_close(products[0, 1, 2, 4], products[3, 2, 5, 5], rtol=0, atol=1e-6)
    torch.testing.assert_close(products[2, 2, 2, 2], query @ key, rtol=0, atol=1e-12)
    assert (products[0, 0, 0, 1] - products[0, 0, 1, 0]).abs() > 1e-3


def test_a_finer_grid_is_scaled_onto_that_of_pretraining():
    coarse, fine = rotary_angles((4, 4), 8, reference=(4, 4)), rotary_angles((8, 8), 8, reference=(4, 4))
    torch.testing.assert_close(fine.reshape(8, 8, 4)[::2, ::2], coarse.reshape(4, 4, 4))


def test_attention_maps_are_those_of_the_forward_pass():
    model = EVA02(TINY).double().eval()
    images = torch.randn(1, 3, 28, 28, dtype=torch.float64)
    outputs = model(images, output_attentions=True)
    block, x = model.blocks[1], outputs["features"][0]
    normalized = block.norm1(x)
    values = normalized @ block.attn.qkv.weight[48:].T + block.attn.v_bias
    mixed = (outputs["attentions"][1] @ values.unflatten(-1, (2, 12)).transpose(1, 2)).transpose(1, 2).flatten(2)
    x = x + block.attn.proj(mixed)
    torch.testing.assert_close(x + block.mlp(block.norm2(x)), outputs["features"][1], rtol=0, atol=1e-10)


def test_fine_tuning_from_pretraining_gets_a_fresh_head(tmp_path, caplog):
    torch.save(EVA02(TINY.replace(num_classes=0)).state_dict(), tmp_path / "pt.pth")
    with pytest.raises(ValueError, match=r"lacks head\.weight, head\.bias.*pass num_classes"):
        load_weights(EVA02(TINY), tmp_path / "pt.pth")
    load_weights(EVA02(TINY), tmp_path / "pt.pth", new_head=True)
    assert "The head was freshly initialised" in caplog.text


def test_timms_folder_is_read(timm, tmp_path):
    import json

    theirs = timm.create_model("eva02_tiny_patch14_336", num_classes=4).eval()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "eva02_tiny_patch14_336", "num_classes": 4}))
    ours = NexusModule.from_pretrained(tmp_path)
    assert isinstance(ours, EVA02)
    images = torch.randn(1, 3, 336, 336)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_errors_say_what_to_change():
    with pytest.raises(ValueError, match=r"embed_dim 24 is not a multiple of 4 x num_heads \(16\)"):
        TINY.replace(num_heads=4)
    with pytest.raises(ValueError, match=r"image_size 30 is not a multiple of patch_size 7; the nearest one is 28"):
        TINY.replace(image_size=30)
