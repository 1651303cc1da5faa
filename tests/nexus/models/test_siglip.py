"""SigLIP and SigLIP 2, NaFlex included, against transformers; the image tower against timm."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.models.cv import SigLIP, SigLIPConfig
from nexus.models.cv.siglip import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.proofs import randomize
from nexus.proofs.image_text import big_vision_names, hub_siglip, stacked_names

TINY = SigLIPConfig(
    image_size=32,
    patch_size=8,
    embed_dim=24,
    num_layers=2,
    num_heads=2,
    hidden_dim=40,
    text_dim=16,
    text_num_layers=2,
    text_num_heads=4,
    text_hidden_dim=36,
    context_length=6,
    vocab_size=100,
)
NAFLEX = TINY.replace(position_mode="bilinear")
TOKENS = torch.randint(2, 100, (3, 6), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class WithTokens(SigLIP):
    """SigLIP that always compares with TOKENS, and returns its loss where there are as many images."""

    config: SigLIPConfig

    def forward(self, images, **keywords):
        return super().forward(images, TOKENS, output_losses=len(images) == 3, **keywords)


def test_matches_transformers(transformers, assert_parity):
    theirs, ours = hub_siglip(transformers, TINY), WithTokens(TINY)
    assert_parity(ours, theirs, IMAGES, spelling="hub", run=lambda model, x: model(TOKENS, x).logits_per_image)


def test_loss_matches_transformers(transformers, assert_parity):
    assert_parity(
        WithTokens(TINY),
        hub_siglip(transformers, TINY),
        IMAGES,
        spelling="hub",
        run=lambda model, x: model(TOKENS, x, return_loss=True).loss,
        read=lambda outputs: outputs["losses"]["contrastive"],
    )


@pytest.mark.parametrize("size", [(48, 40), (16, 27)])
def test_matches_transformers_at_another_size(transformers, assert_parity, size):
    assert_parity(
        WithTokens(TINY),
        hub_siglip(transformers, TINY),
        torch.randn(2, 3, *size),
        spelling="hub",
        run=lambda model, x: model(TOKENS, x, interpolate_pos_encoding=True).logits_per_image,
    )


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (40, 24)])
def test_naflex_matches_transformers(transformers, assert_parity, size):
    """The hub takes patches and their grid; it resamples positions in float32, whatever the model's type is."""

    def run(model, images):
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=8, q=8)
        grid = torch.tensor([[size[0] // 8, size[1] // 8]]).expand(len(images), 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.long)
        return model(TOKENS, patches, pixel_attention_mask=mask, spatial_shapes=grid).logits_per_image

    theirs, images = hub_siglip(transformers, NAFLEX), torch.randn(2, 3, *size)
    assert_parity(WithTokens(NAFLEX), theirs, images, spelling="hub", run=run, float64=1e-5)


def test_image_tower_matches_timm(timm):
    """timm has the tower alone: SigLIP's blocks, and the probe under the names of its own attention pool."""
    theirs = timm_tower(timm)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = SigLIP(TINY).double().eval()
    renamed = {
        "visual." + key.replace("attn_pool.latent", "pool.probe").replace("attn_pool.", "pool."): value
        for key, value in theirs.state_dict().items()
    }
    assert renamed.keys() == {f"visual.{key}" for key in ours.visual.state_dict()}
    ours.load_state_dict(ours.state_dict() | renamed)
    images = IMAGES.double()
    torch.testing.assert_close(ours.encode_image(images), F.normalize(theirs(images), dim=-1), rtol=0, atol=1e-10)


def timm_tower(timm):
    """timm's image tower of TINY's sizes, in double precision."""
    settings = {"img_size": 32, "patch_size": 8, "num_classes": 0, "embed_dim": 24, "depth": 2, "num_heads": 2}
    tower = {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh", "mlp_ratio": 5 / 3 + 1e-3}
    return timm.models.VisionTransformer(**settings, **tower).double().eval()


@pytest.mark.parametrize("spelling", [big_vision_names, stacked_names])
def test_reads_the_authors_arrays_as_timm_does(timm, transformers, tmp_path, spelling):
    """timm reads the image tower of the same file by rules of its own."""
    hub = hub_siglip(transformers, TINY).eval()
    randomize(hub)
    arrays = {key: value.numpy() for key, value in spelling(hub.state_dict()).items()}
    np.savez(tmp_path / "siglip.npz", **arrays)
    ours = SigLIP.from_pretrained(tmp_path / "siglip.npz", **TINY.to_dict()).double()
    theirs = timm_tower(timm)
    theirs.load_pretrained(str(tmp_path / "siglip.npz"))
    images = IMAGES.double()
    torch.testing.assert_close(ours.encode_image(images), F.normalize(theirs(images), dim=-1), rtol=0, atol=1e-10)
    wanted = hub.double()(TOKENS, images).logits_per_image
    torch.testing.assert_close(ours(images, TOKENS)["logits"], wanted, rtol=0, atol=1e-10)


def test_arrays_that_hold_objects_are_refused(tmp_path):
    np.savez(tmp_path / "siglip.npz", **{"params/img/embedding/kernel": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="holds something other than plain arrays"):
        SigLIP.from_pretrained(tmp_path / "siglip.npz")


@pytest.mark.parametrize("naflex", [False, True])
def test_reads_a_hub_folder(transformers, tmp_path, naflex):
    theirs = hub_siglip(transformers, NAFLEX if naflex else TINY).eval()
    theirs.save_pretrained(tmp_path)
    ours = NexusModule.from_pretrained(tmp_path)
    assert isinstance(ours, SigLIP)
    assert ours.config == (NAFLEX if naflex else TINY)
    wanted = theirs.get_text_features(TOKENS).pooler_output
    torch.testing.assert_close(ours.encode_text(TOKENS), F.normalize(wanted, dim=-1), rtol=1e-5, atol=1e-5)


def test_attentions_and_features_match_transformers(transformers):
    theirs, ours = hub_siglip(transformers, TINY).eval(), SigLIP(TINY).eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), SigLIP.formats)[0])
    outputs = ours(IMAGES, TOKENS, output_attentions=True)
    theirs.set_attn_implementation("eager")
    kept = theirs.vision_model(IMAGES, output_attentions=True, output_hidden_states=True)
    for found, wanted in zip(outputs["attentions"], kept.attentions, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for found, wanted in zip(outputs["features"], kept.hidden_states[1:], strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name):
    with torch.device("meta"):
        ours = create_model(name)
    assert ours.num_parameters() == model_info(name).num_parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("siglip_base_patch16_224", 92_884_224),
        ("siglip_base_patch16_512", 93_520_128),
        ("siglip_large_patch16_384", 316_283_904),
        ("siglip_so400m_patch14_384", 428_225_600),
        ("siglip2_base_patch32_256", 94_552_320),
        ("siglip2_so400m_patch16_256", 427_888_064),
        ("siglip2_giant_opt_patch16_256", 1_163_168_256),
    ],
)
def test_published_parameter_counts_of_the_image_towers(name, count):
    with torch.device("meta"):
        tower = create_model(name).visual
    assert sum(parameter.numel() for parameter in tower.parameters()) == count


def test_every_parameter_learns_and_images_do_not_mix():
    torch.manual_seed(0)
    model = SigLIP(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model(IMAGES, TOKENS, output_losses=True)["losses"]["contrastive"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    alone = torch.cat([model.encode_image(image[None]) for image in IMAGES])
    torch.testing.assert_close(model.encode_image(IMAGES), alone, rtol=1e-5, atol=1e-5)


def test_saves_checkpoints_exports_and_takes_other_channels(tmp_path):
    model, images = SigLIP(TINY.replace(in_channels=1)).eval(), IMAGES[:, :1]
    wanted = model(images, TOKENS)["logits"]
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    assert torch.equal(again(images, TOKENS)["logits"], wanted)
    program = torch.export.export(model, (images, TOKENS))
    torch.testing.assert_close(program.module()(images, TOKENS)["logits"], wanted)
    model.set_gradient_checkpointing()(images, TOKENS)["logits"].sum().backward()
    recomputed = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model.set_gradient_checkpointing(False)(images, TOKENS)["logits"].sum().backward()
    for parameter, gradient in zip(model.parameters(), recomputed):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    model = SigLIP(TINY).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGES, TOKENS)["logits"], model(IMAGES, TOKENS)["logits"])


def test_fresh_weights_say_no_to_every_pair():
    """The bias of -10 starts the loss near zero for the many pairs that do not belong together (Sec. 3.2)."""
    model = SigLIP(TINY)
    assert model.logit_scale.exp().item() == pytest.approx(10.0)
    logits = model(IMAGES, TOKENS)["logits"]
    assert (logits.sigmoid() < 0.6).all()
    assert (logits >= -20).all()
    assert (logits <= 0).all()


def test_pixels_beyond_whole_patches_are_not_seen():
    model, images = SigLIP(TINY).eval(), torch.randn(1, 3, 38, 35)
    assert torch.equal(model.encode_image(images), model.encode_image(images[..., :32, :32]))
    assert model.token_layout((38, 35)) == (0, 4, 4)


def test_positions_of_another_size_are_resampled_at_loading(tmp_path):
    for config in (TINY, NAFLEX):
        theirs = SigLIP(config).eval()
        torch.save(theirs.state_dict(), tmp_path / "siglip.pth")
        ours = SigLIP(config.replace(image_size=48)).eval()
        load_weights(ours, tmp_path / "siglip.pth")
        images = torch.randn(1, 3, 48, 48)
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(1, 5, dtype=torch.long), r'have 5 tokens; SigLIP reads exactly 6.*padding="max_length"'),
        (torch.zeros(6, dtype=torch.long), r"tokens are torch.int64 of shape \(6,\); the model takes integer ids"),
        (torch.zeros(1, 6), "tokens are torch.float32"),
    ],
)
def test_wrong_tokens_are_explained(tokens, message):
    with pytest.raises(ValueError, match=message):
        SigLIP(TINY).encode_text(tokens)


def test_wrong_configurations_are_explained():
    with pytest.raises(ValueError, match="embed_dim 24 is not a multiple of its 5 heads"):
        TINY.replace(num_heads=5)
    with pytest.raises(ValueError, match="image_size 7 is smaller than one patch of 8 pixels"):
        TINY.replace(image_size=7)
    with pytest.raises(ValueError, match="hidden_act is 'gelu'; SigLIP is built with 'gelu_pytorch_tanh'"):
        SigLIP.config_from_hub({"model_type": "siglip", "text_config": {"hidden_act": "gelu"}})
