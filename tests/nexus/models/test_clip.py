"""CLIP against transformers, its ResNet tower against timm, and OpenAI's archives read without running them."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.models.cv import CLIP, CLIPConfig
from nexus.models.cv.clip import VARIANTS
from nexus.models.registry import create_model, model_info
from nexus.proofs.image_text import hub_clip, openai_names

TINY = CLIPConfig(
    image_size=32,
    patch_size=8,
    embed_dim=24,
    num_layers=2,
    num_heads=2,
    text_dim=16,
    text_num_layers=2,
    text_num_heads=4,
    mlp_ratio=2.0,
    context_length=9,
    vocab_size=100,
    projection_dim=12,
)
RESNET = TINY.replace(num_layers=(1, 2, 1, 1), embed_dim=256, num_heads=4, image_size=64)
TOKENS = torch.tensor([[98, 5, 7, 99, 0, 0], [98, 1, 2, 3, 4, 99], [98, 8, 99, 0, 0, 0]])
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class WithTokens(CLIP):
    """CLIP that always compares with TOKENS."""

    config: CLIPConfig

    def forward(self, images, **keywords):
        return super().forward(images, TOKENS, **keywords)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_matches_transformers(transformers, assert_parity, activation):
    config = TINY.replace(activation=activation)
    theirs, ours = hub_clip(transformers, config), WithTokens(config)
    assert_parity(ours, theirs, IMAGES, spelling="hub", run=lambda model, x: model(TOKENS, x).logits_per_image)


@pytest.mark.parametrize("size", [(48, 40), (16, 24)])
def test_matches_transformers_at_another_size(transformers, assert_parity, size):
    assert_parity(
        WithTokens(TINY),
        hub_clip(transformers, TINY),
        torch.randn(2, 3, *size),
        spelling="hub",
        run=lambda model, x: model(TOKENS, x, interpolate_pos_encoding=True).logits_per_image,
    )


def test_loss_matches_transformers(transformers, assert_parity):
    class Losses(WithTokens):
        config: CLIPConfig

        def forward(self, images, **keywords):
            return super().forward(images, output_losses=True, **keywords)

    assert_parity(
        Losses(TINY),
        hub_clip(transformers, TINY),
        IMAGES,
        spelling="hub",
        run=lambda model, x: model(TOKENS, x, return_loss=True).loss,
        read=lambda outputs: outputs["losses"]["contrastive"],
    )


def test_towers_match_transformers(transformers):
    theirs, ours = hub_clip(transformers, TINY).double().eval(), CLIP(TINY).double().eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), CLIP.formats)[0])
    images = IMAGES.double()
    wanted = theirs(TOKENS, images)
    torch.testing.assert_close(ours.encode_image(images), wanted.image_embeds, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.encode_text(TOKENS), wanted.text_embeds, rtol=0, atol=1e-12)
    outputs = ours(images, TOKENS, output_attentions=True)  # the eager hub computes its softmax in float32
    theirs.set_attn_implementation("eager")
    kept = theirs.vision_model(images, output_attentions=True, output_hidden_states=True)
    for found, attention in zip(outputs["attentions"], kept.attentions, strict=True):
        torch.testing.assert_close(found, attention, rtol=0, atol=1e-6)
    for found, hidden in zip(outputs["features"], kept.hidden_states[1:], strict=True):
        torch.testing.assert_close(found, hidden, rtol=0, atol=1e-5)


def archive_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of OpenAI's archives, which hold three sizes besides."""
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(9), "vocab_size": torch.tensor(100)}
    return openai_names(state) | sizes


class Part(nn.Module):
    """A module that holds tensors under dotted names, as the tree of modules that such names come from."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                groups.setdefault(first, {})[rest] = value
            else:
                self.register_parameter(name, nn.Parameter(value.clone(), requires_grad=value.is_floating_point()))
        for name, group in groups.items():
            self.add_module(name, Part(group))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def archive(transformers, tmp_path):
    """A file as OpenAI publishes them: a scripted module in half precision; and the hub's model with its weights."""
    theirs = hub_clip(transformers, TINY).half().float().eval()
    path = tmp_path / "ViT-tiny.pt"
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in archive_names(theirs.state_dict()).items()
    }
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.save(torch.jit.script(Part(state)), path)
    return path, theirs


def test_reads_openais_archive_without_running_it(archive, monkeypatch):
    path, theirs = archive
    monkeypatch.setattr(torch.jit, "load", None)
    ours = CLIP.from_pretrained(path, **TINY.to_dict())
    wanted = theirs(TOKENS, IMAGES).logits_per_image
    torch.testing.assert_close(ours(IMAGES, TOKENS)["logits"], wanted, rtol=1e-5, atol=1e-5)


def test_reads_a_hub_folder(transformers, tmp_path):
    theirs = hub_clip(transformers, TINY).eval()
    theirs.save_pretrained(tmp_path)
    ours = NexusModule.from_pretrained(tmp_path)
    assert isinstance(ours, CLIP)
    assert ours.config == TINY
    wanted = theirs(TOKENS, IMAGES).logits_per_image
    torch.testing.assert_close(ours(IMAGES, TOKENS)["logits"], wanted, rtol=1e-5, atol=1e-5)


def random_resnet_state() -> dict[str, torch.Tensor]:
    """Random weights of RESNET's image tower under OpenAI's names, which timm reads as well."""
    state = {}
    for key, value in CLIP(RESNET).visual.state_dict().items():
        if key.startswith("attnpool."):
            continue
        name = key.replace("downsample.1", "downsample.0").replace("downsample.2", "downsample.1")
        drawn = torch.rand(value.shape) + 0.5 if "running_var" in key else torch.randn(value.shape) * 0.2
        state[f"visual.{name}"] = value if "num_batches" in key else drawn
    shapes = {"q_proj": (256, 256), "k_proj": (256, 256), "v_proj": (256, 256), "c_proj": (12, 256)}
    for name, shape in shapes.items():
        state[f"visual.attnpool.{name}.weight"] = torch.randn(shape) * 0.2
        state[f"visual.attnpool.{name}.bias"] = torch.randn(shape[0]) * 0.2
    return state | {"visual.attnpool.positional_embedding": torch.randn(5, 256) * 0.2}


@pytest.mark.parametrize("size", [64, 96])
def test_resnet_tower_matches_timm(timm, size):
    from timm.models import byobnet

    settings = byobnet.model_cfgs["resnet50_clip"]
    blocks = [
        dataclasses.replace(block, d=count, c=32 * 2**stage)
        for stage, (block, count) in enumerate(zip(settings.blocks, (1, 2, 1, 1)))
    ]
    small = dataclasses.replace(settings, blocks=blocks, stem_chs=(4, 4, 8))
    theirs = byobnet.ByobNet(small, num_classes=12, img_size=64).double().eval()
    state = random_resnet_state()
    theirs.load_state_dict({k: v.double() for k, v in byobnet._convert_openai_clip(state, theirs).items()})
    ours = CLIP(RESNET).double().eval()
    visual, spelling = to_our_names(state, CLIP.formats)
    assert spelling == "openai-resnet"
    assert visual.keys() == {f"visual.{key}" for key in ours.visual.state_dict()}
    ours.load_state_dict({key: value.double() for key, value in visual.items()}, strict=False)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    wanted = F.normalize(theirs(images), dim=-1)
    tolerance = 1e-10 if size == 64 else 1e-6  # timm interpolates positions in float32
    torch.testing.assert_close(ours.encode_image(images), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name):
    with torch.device("meta"):
        ours = create_model(name)
    assert ours.num_parameters() == model_info(name).num_parameters


def test_published_parameter_counts_of_the_image_towers():
    wanted = {
        "clip_vit_base_patch32_224": 87_849_216,
        "clip_vit_base_patch16_224": 86_192_640,
        "clip_vit_large_patch14_224": 303_966_208,
        "clip_vit_large_patch14_336": 304_293_888,
        "clip_resnet50": 38_316_896,
        "clip_resnet101": 56_259_936,
        "clip_resnet50x4": 87_137_080,
        "clip_resnet50x16": 167_328_912,
        "clip_resnet50x64": 420_380_352,
    }
    for name, count in wanted.items():
        with torch.device("meta"):
            tower = create_model(name).visual
        assert sum(parameter.numel() for parameter in tower.parameters()) == count, name


@pytest.mark.parametrize("config", [TINY, RESNET], ids=["vit", "resnet"])
def test_every_parameter_learns_and_images_do_not_mix(config):
    torch.manual_seed(0)
    model = CLIP(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    images = torch.randn(3, 3, config.image_size, config.image_size)
    model(images, TOKENS, output_losses=True)["losses"]["contrastive"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.startswith("text.token_embed") and ".bias" not in name:
            assert parameter.grad.any(), name
    model.eval()
    together = model.encode_image(images)
    alone = torch.cat([model.encode_image(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, RESNET], ids=["vit", "resnet"])
def test_saves_checkpoints_exports_and_takes_other_channels(config, tmp_path):
    model = CLIP(config.replace(in_channels=4)).eval()
    images = torch.randn(2, 4, config.image_size, config.image_size)
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
@pytest.mark.parametrize("config", [TINY, RESNET], ids=["vit", "resnet"])
def test_compiles_without_graph_breaks(config):
    model, images = CLIP(config).eval(), torch.randn(2, 3, config.image_size, config.image_size)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images, TOKENS)["logits"], model(images, TOKENS)["logits"])


def test_a_text_is_read_from_left_to_right():
    """Words after the end, and a change of them, do not change a text's place: attention is causal (Sec. 2.4)."""
    model = CLIP(TINY).double().eval()
    padded = torch.cat([TOKENS[:, :4], torch.tensor([[50, 3], [50, 3], [7, 7]])], dim=1)
    torch.testing.assert_close(model.encode_text(padded)[[0, 2]], model.encode_text(TOKENS)[[0, 2]], rtol=0, atol=1e-12)
    maps = model.text.blocks[0].attention_maps(torch.randn(1, 5, 16, dtype=torch.float64))
    assert not maps.triu(1).any()
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 4, 5, dtype=torch.float64))


def test_a_resnet_refuses_attention_maps():
    with pytest.raises(ValueError, match="A ResNet has no attention maps"):
        CLIP(RESNET).eval()(torch.randn(1, 3, 64, 64), TOKENS, output_attentions=True)


def test_positions_of_another_size_are_resampled_at_loading(tmp_path):
    for config, other in ((TINY, 48), (RESNET, 96)):
        theirs = CLIP(config).eval()
        torch.save(theirs.state_dict(), tmp_path / "clip.pth")
        ours = CLIP(config.replace(image_size=other)).eval()
        load_weights(ours, tmp_path / "clip.pth")
        images = torch.randn(1, 3, other, other)
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), rtol=1e-5, atol=1e-5)


def test_fresh_weights_say_that_all_texts_are_alike():
    model = CLIP(TINY)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert math.isfinite(model(IMAGES, TOKENS, output_losses=True)["losses"]["contrastive"].item())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(1, 10, dtype=torch.long), "The texts have 10 tokens; the model reads 9. Truncate"),
        (torch.zeros(5, dtype=torch.long), r"tokens are torch.int64 of shape \(5,\); the model takes integer ids"),
        (torch.zeros(1, 5), "tokens are torch.float32"),
    ],
)
def test_wrong_tokens_are_explained(tokens, message):
    with pytest.raises(ValueError, match=message):
        CLIP(TINY).encode_text(tokens)


def test_wrong_configurations_are_explained():
    with pytest.raises(ValueError, match=r"image_size 65 is not a multiple of patch_size 32; the nearest one is 64"):
        RESNET.replace(image_size=65)
    with pytest.raises(ValueError, match="text_dim 16 is not a multiple of its 3 heads"):
        TINY.replace(text_num_heads=3)
    with pytest.raises(ValueError, match=r"eos_token_id is 7; CLIP ends a text with the highest id, 49407"):
        CLIP.config_from_hub({"model_type": "clip", "text_config": {"eos_token_id": 7}})
    with pytest.raises(ValueError, match="one text for each image"):
        CLIP(TINY)(IMAGES[:2], TOKENS, output_losses=True)
