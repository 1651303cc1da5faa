"""VisionTransformer against timm, torchvision, transformers and the authors' JAX files."""

import numpy as np
import pytest
import torch
from torch import nn

from nexus.core.formats import rename_keys
from nexus.core.weights import load_weights
from nexus.models.cv import VisionTransformer, ViTConfig
from nexus.models.cv.vit import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.proofs.vit import hub_vit, timm_vit, torchvision_vit

TINY = ViTConfig(image_size=32, patch_size=8, num_classes=5, embed_dim=24, num_layers=3, num_heads=2, mlp_ratio=2.0)


def test_matches_timm(timm, assert_parity):
    assert_parity(VisionTransformer(TINY), timm_vit(timm, TINY), torch.randn(2, 3, 32, 32), spelling="nexus")


def test_matches_timm_at_another_image_size(timm, assert_parity):
    theirs = timm_vit(timm, TINY, dynamic_img_size=True)
    for size in ((48, 40), (16, 24)):  # timm interpolates positions in float32, whatever the model's type is
        assert_parity(VisionTransformer(TINY), theirs, torch.randn(2, 3, *size), spelling="nexus", float64=1e-7)


def test_matches_torchvision(torchvision, assert_parity):
    ours = VisionTransformer(TINY)
    assert_parity(ours, torchvision_vit(torchvision, TINY), torch.randn(2, 3, 32, 32), spelling="torchvision")


def test_reads_the_older_names_of_torchvision(torchvision, tmp_path):
    theirs = torchvision_vit(torchvision, TINY).eval()
    older = rename_keys(theirs.state_dict(), {r"\.mlp\.0\.": ".mlp.linear_1.", r"\.mlp\.3\.": ".mlp.linear_2."})
    torch.save(older, tmp_path / "old.pth")
    ours = VisionTransformer(TINY).eval()
    load_weights(ours, tmp_path / "old.pth")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [32, (48, 40)])
def test_matches_transformers(transformers, assert_parity, size):
    ours = VisionTransformer(TINY.replace(image_size=size))
    theirs = hub_vit(transformers, TINY, image_size=size)
    sides = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, 3, *sides)
    assert_parity(ours, theirs, images, spelling="hub", run=lambda model, x: model(x).logits)


def test_reads_a_hub_folder_with_its_config_and_preprocessing(transformers, tmp_path):
    theirs = hub_vit(transformers, TINY, layer_norm_eps=1e-12).eval()
    theirs.save_pretrained(tmp_path)  # writes the older names, which published files have
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    ours = VisionTransformer.from_pretrained(tmp_path)
    assert ours.config == TINY.replace(norm_eps=1e-12)
    assert ours.preprocessing.resize == "squash"
    assert ours.preprocessing.interpolation == "bilinear"
    assert ours.class_names == tuple(f"LABEL_{label}" for label in range(5))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images).logits, rtol=1e-5, atol=1e-5)


def test_reads_a_hub_backbone_without_head(transformers, tmp_path):
    settings = hub_vit(transformers, TINY).config
    theirs = transformers.ViTModel(settings).eval()  # with a pooler, which is not part of the paper's model
    theirs.save_pretrained(tmp_path)
    ours = VisionTransformer.from_pretrained(tmp_path)
    assert ours.config.num_classes == 0
    images = torch.randn(2, 3, 32, 32)
    wanted = theirs(images).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(images)["logits"], wanted, rtol=1e-5, atol=1e-5)


def authors_arrays(config: ViTConfig, num_classes: int) -> dict[str, np.ndarray]:
    """Random weights under the names and in the layout of the authors' JAX files."""
    rng = np.random.default_rng(0)
    d, heads, hidden, patch = (
        config.embed_dim,
        config.num_heads,
        int(config.embed_dim * config.mlp_ratio),
        config.patch_size,
    )
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, d),
        "embedding/kernel": (patch, patch, 3, d),
        "embedding/bias": (d,),
        "Transformer/posembed_input/pos_embedding": (1, 17, d),
        "Transformer/encoder_norm/scale": (d,),
        "Transformer/encoder_norm/bias": (d,),
        "head/kernel": (d, num_classes),
        "head/bias": (num_classes,),
    }
    for layer in range(config.num_layers):
        block = f"Transformer/encoderblock_{layer}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (d, heads, d // heads)
            shapes[f"{attention}/{part}/bias"] = (heads, d // heads)
        shapes[f"{attention}/out/kernel"] = (heads, d // heads, d)
        shapes[f"{attention}/out/bias"] = (d,)
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes[f"{block}/{norm}/scale"] = shapes[f"{block}/{norm}/bias"] = (d,)
        shapes[f"{block}/MlpBlock_3/Dense_0/kernel"] = (d, hidden)
        shapes[f"{block}/MlpBlock_3/Dense_0/bias"] = (hidden,)
        shapes[f"{block}/MlpBlock_3/Dense_1/kernel"] = (hidden, d)
        shapes[f"{block}/MlpBlock_3/Dense_1/bias"] = (d,)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def test_reads_the_authors_npz_as_timm_does(timm, tmp_path):
    path = tmp_path / "Ti_16.npz"
    np.savez(path, **authors_arrays(TINY, 5))
    theirs = timm_vit(timm, TINY).eval()
    theirs.load_pretrained(str(path))
    ours = VisionTransformer.from_pretrained(path, **TINY.to_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [24, 48])
def test_resamples_positions_at_loading_as_timm_does(timm, tmp_path, size):
    state = timm_vit(timm, TINY).state_dict()
    torch.save(state, tmp_path / "at_32_pixels.pth")
    theirs = timm_vit(timm, TINY, img_size=size).eval()
    theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, theirs))
    ours = VisionTransformer.from_pretrained(tmp_path / "at_32_pixels.pth", **TINY.replace(image_size=size).to_dict())
    assert torch.equal(ours.pos_embed, theirs.pos_embed)
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-5, atol=1e-5)


def test_a_21k_file_with_pre_logits_needs_a_fresh_head(tmp_path):
    arrays = authors_arrays(TINY, 5)
    arrays |= {"pre_logits/kernel": np.zeros((24, 24), np.float32), "pre_logits/bias": np.zeros(24, np.float32)}
    np.savez(tmp_path / "in21k.npz", **arrays)
    model = VisionTransformer(TINY)
    with pytest.raises(ValueError, match=r"lacks head\.weight, head\.bias.*pass num_classes"):
        load_weights(model, tmp_path / "in21k.npz")
    load_weights(model, tmp_path / "in21k.npz", new_head=True)
    np.testing.assert_array_equal(model.cls_token.detach().numpy(), arrays["cls"])


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name, timm):
    with torch.device("meta"):
        ours = create_model(name)
        known = name if timm.is_model(name) else name.rpartition("_")[0] + "_224"
        theirs = timm.create_model(known, img_size=ours.config.image_size, num_classes=1000)
    assert ours.num_parameters() == model_info(name).num_parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit_small_patch16_224", 22_050_664),
        ("vit_small_patch32_224", 22_878_952),
        ("vit_base_patch16_224", 86_567_656),
        ("vit_base_patch32_224", 88_224_232),
        ("vit_base_patch8_224", 86_576_872),
        ("vit_large_patch16_224", 304_326_632),
        ("vit_large_patch32_224", 306_535_400),
        ("vit_huge_patch14_224", 632_045_800),
    ],
)
def test_published_parameter_counts(name, count):
    assert model_info(name).num_parameters == count


def test_cards_agree_with_timm(timm):
    for name in VARIANTS:
        for weights in model_info(name).weights:
            if not weights.url.startswith("hf-hub:timm/"):
                continue
            theirs = timm.get_pretrained_cfg(f"{name}.{weights.tag}")
            where = f"{name}.{weights.tag}"
            assert weights.url == f"hf-hub:timm/{where}"
            assert weights.changes.get("num_classes", 1000) == theirs.num_classes, where
            assert weights.licence == theirs.license, where
            ours = weights.preprocessing
            assert ours.image_size == theirs.input_size[1:], where
            assert ours.resize_size == int(theirs.input_size[1] / theirs.crop_pct), where
            assert (ours.mean, ours.std) == (theirs.mean, theirs.std), where
            assert ours.interpolation == theirs.interpolation, where


def test_cards_agree_with_torchvision(torchvision):
    published = {
        weights.url: weights
        for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
        for weights in torchvision.models.get_model_weights(name)
    }
    cards = [(model_info(name), weights) for name in VARIANTS for weights in model_info(name).weights]
    ours = {weights.url: (card, weights) for card, weights in cards if weights.tag.startswith("tv")}
    assert ours.keys() == published.keys()
    for url, theirs in published.items():
        card, weights = ours[url]
        transforms = theirs.transforms()
        assert card.num_parameters == theirs.meta["num_params"]
        assert weights.metrics[0].value == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert weights.preprocessing.resize_size == transforms.resize_size[0]
        assert weights.preprocessing.image_size == (transforms.crop_size[0],) * 2
        assert weights.preprocessing.interpolation == transforms.interpolation.value


def test_seed_configuration_runs():
    with torch.device("meta"):
        model = VisionTransformer(
            {
                "image_size": 224,
                "patch_size": 16,
                "num_classes": 1000,
                "embed_dim": 768,
                "num_layers": 12,
                "num_heads": 12,
            }
        )
        outputs = model(torch.zeros(2, 3, 224, 224), output_attentions=True)
    assert outputs["logits"].shape == (2, 1000)
    assert outputs["features"][6].shape == (2, 197, 768)
    assert outputs["attentions"][11].shape == (2, 12, 197, 197)
    assert model.get_submodule("blocks.11") is model.blocks[11]
    assert model.num_parameters() == 86_567_656


def test_attentions_are_those_of_the_forward_pass():
    model = VisionTransformer(TINY).eval()
    outputs = model(torch.randn(2, 3, 32, 48), output_attentions=True)
    assert [maps.shape for maps in outputs["attentions"]] == [(2, 2, 25, 25)] * 3
    torch.testing.assert_close(outputs["attentions"][0].sum(-1), torch.ones(2, 2, 25))
    block, x = model.blocks[1], outputs["features"][0]
    values = block.attn.qkv(block.norm1(x))[..., -24:].unflatten(-1, (2, 12)).transpose(1, 2)
    mixed = (outputs["attentions"][1] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attn.proj(mixed), block.attn(block.norm1(x)), rtol=1e-5, atol=1e-6)
    assert "attentions" not in model(torch.randn(1, 3, 32, 32))


def test_features_can_be_left_out():
    model, images = VisionTransformer(TINY).eval(), torch.randn(1, 3, 32, 32)
    full, lean = model(images, output_attentions=True), model(images, output_features=False)
    assert lean.keys() == {"logits", "embeddings"}
    assert torch.equal(lean["logits"], full["logits"])
    both = model(images, output_features=False, output_attentions=True)
    assert torch.equal(both["attentions"][2], full["attentions"][2])


def test_patches_may_be_permuted_with_their_positions():
    """A transformer sees a set: patches and positions permuted together leave the class token as it was (Sec. 3.1)."""
    model = VisionTransformer(TINY).eval()
    images = torch.randn(1, 3, 32, 32)
    tokens = model.embed(images)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(16)])
    plain, permuted = tokens, tokens[:, order]
    for block in model.blocks:
        plain, permuted = block(plain), block(permuted)
    torch.testing.assert_close(plain[:, 0], permuted[:, 0], rtol=1e-5, atol=1e-5)


def test_token_layout_finds_the_patch_that_changed():
    model = VisionTransformer(TINY).eval()
    images = torch.randn(1, 3, 32, 48)
    prefix, height, width = model.token_layout((32, 48))
    changed = images.clone()
    changed[..., 16:24, 40:48] += 1
    difference = (model.embed(images) - model.embed(changed)).abs().sum(-1)[0, prefix:].reshape(height, width)
    assert difference.nonzero().tolist() == [[2, 5]]


def test_head_can_be_replaced_and_is_saved(tmp_path):
    model = VisionTransformer(TINY)
    model.head = nn.Linear(24, 7)
    again = VisionTransformer.from_pretrained(model.save_pretrained(tmp_path))
    assert again.config.num_classes == 7
    model.head = nn.Identity()
    outputs = model.eval()(torch.randn(1, 3, 32, 32))
    assert torch.equal(outputs["logits"], outputs["embeddings"])
    model.head = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 5))
    with pytest.raises(ValueError, match=r"changed after it was built.*head\.0\.weight"):
        model.save_pretrained(tmp_path)


def test_drop_path_rises_and_acts_in_training_only():
    model = VisionTransformer(TINY.replace(drop_path_rate=0.4, dropout=0.1, attention_dropout=0.1))
    assert [round(block.drop_path.rate, 6) for block in model.blocks] == [0.0, 0.2, 0.4]
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(images)["logits"], model(images)["logits"])
    model.eval()
    assert torch.equal(model(images)["logits"], model(images)["logits"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 32, 32), "images have 1 channels; this model was built with in_channels=3"),
        ((1, 3, 30, 32), "images are 30x32 pixels; both sides must be multiples of 8, such as 32x32"),
        ((3, 32, 32), r"takes \(b, c, h, w\). Add the batch dimension: images\[None\]"),
    ],
)
def test_images_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(TINY)(torch.zeros(shape))


def test_integer_images_are_refused():
    with pytest.raises(ValueError, match=r"images are torch.uint8; the model takes normalized floats"):
        VisionTransformer(TINY)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 8; the nearest one is 32"),
        ({"num_heads": 5}, "embed_dim 24 is not a multiple of num_heads 5"),
        ({"num_head": 2}, r"ViTConfig has no key 'num_head'. Did you mean 'num_heads'\?"),
    ],
)
def test_configurations_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        TINY.replace(**changes)
