"""References of the models of images and texts: CLIP and SigLIP.

The reference compares the images with the texts of `TOKENS`, so that the logits depend on every weight.
"""

import dataclasses
import re
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.models.cv.clip import CLIPConfig
from nexus.models.cv.siglip import SigLIPConfig
from nexus.proofs.family import Family, Oracle
from nexus.proofs.parity import randomize

TOKENS = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0], [98, 1, 2, 3, 4, 99, 0, 0], [98, 8, 99, 0, 0, 0, 0, 0]])
TEXT: dict[str, Any] = {"text_dim": 16, "text_num_layers": 2, "text_num_heads": 4, "context_length": 8}
CLIP_SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    **TEXT,
    "mlp_ratio": 2.0,
    "vocab_size": 100,
    "projection_dim": 12,
}
CLIP_RESNET_SMALL = CLIP_SMALL | {"num_layers": (1, 2, 1, 1), "embed_dim": 256, "num_heads": 4, "image_size": 64}
SIGLIP_SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 40,
    **TEXT,
    "text_hidden_dim": 36,
    "vocab_size": 100,
}


def _our_logits(model: NexusModule, images: Tensor) -> Tensor:
    return model(images, TOKENS)["logits"]


def _clip_text(config: CLIPConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.text_dim,
        "num_hidden_layers": config.text_num_layers,
        "num_attention_heads": config.text_num_heads,
        "intermediate_size": int(config.text_dim * config.mlp_ratio),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "bos_token_id": config.vocab_size - 2,
        "eos_token_id": config.vocab_size - 1,
        "pad_token_id": 0,
        "hidden_act": config.activation,
    }


def hub_clip(transformers: ModuleType, config: CLIPConfig) -> nn.Module:
    """Returns the model of transformers of a configuration with a Vision Transformer."""
    vision = {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.activation,
    }
    towers = {"text_config": _clip_text(config), "vision_config": vision}
    return transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=config.projection_dim))


def _hub_logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(TOKENS, images, interpolate_pos_encoding=True).logits_per_image


_OPENAI = {
    r"^vision_model\.embeddings\.class_embedding$": "visual.class_embedding",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "visual.positional_embedding",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"^vision_model\.pre_layrnorm\.": "visual.ln_pre.",
    r"^vision_model\.post_layernorm\.": "visual.ln_post.",
    r"^vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
    r"^visual_projection\.weight$": "visual.proj",
    r"^text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight$": "positional_embedding",
    r"^text_model\.final_layer_norm\.": "ln_final.",
    r"^text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"^text_projection\.weight$": "text_projection",
    r"\.self_attn\.out_proj\.": ".attn.out_proj.",
    r"\.layer_norm(\d)\.": r".ln_\1.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
}


def respell(state: State, rules: dict[str, str]) -> State:
    """Returns the tensors under other names: every rule is tried on each, in order."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def openai_names(state: State) -> State:
    """Returns the hub's tensors under the names and in the layout of OpenAI's files."""
    named = respell({k: v for k, v in state.items() if not k.endswith("position_ids")}, _OPENAI)
    for name in [name for name in named if ".self_attn.q_proj." in name]:
        rows = [named.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        named[name.replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(rows)
    for name in ("visual.proj", "text_projection"):
        if name in named:
            named[name] = named[name].T
    return named


class MixedCLIP(nn.Module):
    """timm's ResNet of CLIP beside the text tower of transformers; neither library has both."""

    def __init__(self, visual: nn.Module, hub: Any) -> None:
        super().__init__()
        self.visual, self.text_model, self.text_projection = visual, hub.text_model, hub.text_projection
        self.logit_scale = hub.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        texts = self.text_projection(self.text_model(TOKENS).pooler_output)
        places = [nn.functional.normalize(place, dim=-1) for place in (self.visual(images), texts)]
        return self.logit_scale.exp() * places[0] @ places[1].T


def mixed_clip(timm: ModuleType, config: CLIPConfig) -> nn.Module:
    """Returns a CLIP of a configuration with a ResNet."""
    from timm.models import byobnet

    from nexus.proofs.libraries import import_library

    settings, layers = byobnet.model_cfgs["resnet50_clip"], config.num_layers
    assert not isinstance(layers, int)
    stem = config.embed_dim // 32
    given: Any = settings.blocks
    blocks = tuple(
        dataclasses.replace(block, d=count, c=4 * stem * 2**stage)
        for stage, (block, count) in enumerate(zip(given, layers))
    )
    small = dataclasses.replace(settings, blocks=blocks, stem_chs=(stem // 2, stem // 2, stem))
    visual = byobnet.ByobNet(small, num_classes=config.projection_dim, img_size=config.image_size)
    vision = config.replace(num_layers=1, embed_dim=8, num_heads=2, image_size=32)  # is thrown away
    return MixedCLIP(visual, hub_clip(import_library("transformers"), vision))


_OPENAI_RESNET = {
    r"^visual\.stem\.conv(\d)\.conv\.": r"visual.conv\1.",
    r"^visual\.stem\.conv(\d)\.bn\.": r"visual.bn\1.",
    r"\.conv(\d)_(?:1x1|kxk)\.(conv|bn)\.": r".\2\1.",
    r"\.shortcut\.conv\.conv\.": ".downsample.0.",
    r"\.shortcut\.conv\.bn\.": ".downsample.1.",
    r"^visual\.head\.pos_embed$": "visual.attnpool.positional_embedding",
    r"^visual\.head\.([qkv])\.": r"visual.attnpool.\1_proj.",
    r"^visual\.head\.proj\.": "visual.attnpool.c_proj.",
}


def openai_resnet_names(state: State) -> State:
    """Returns the tensors of `MixedCLIP` under the names of OpenAI's files, which count stages from 1."""
    named = respell(state, _OPENAI_RESNET)
    stage = re.compile(r"^visual\.stages\.(\d)\.")
    return openai_names({stage.sub(lambda m: f"visual.layer{int(m[1]) + 1}.", key): v for key, v in named.items()})


def hub_siglip(transformers: ModuleType, config: SigLIPConfig) -> nn.Module:
    """Returns the model of transformers of a configuration; for NaFlex's positions the one of SigLIP 2."""
    naflex = config.position_mode == "bilinear"
    side = config.image_size // config.patch_size
    vision = {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.hidden_dim,
        "patch_size": config.patch_size,
    } | ({"num_patches": side * side} if naflex else {"image_size": config.image_size})
    text = {
        "hidden_size": config.text_dim,
        "num_hidden_layers": config.text_num_layers,
        "num_attention_heads": config.text_num_heads,
        "intermediate_size": config.text_hidden_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "projection_size": config.embed_dim,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    if naflex:
        return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))


_BIG_VISION = {
    r"^vision_model\.embeddings\.patch_embedding\.": "img.embedding.",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "img.pos_embedding",
    r"^vision_model\.post_layernorm\.": "img.Transformer.encoder_norm.",
    r"^vision_model\.encoder\.layers\.(\d+)\.": r"img.Transformer.encoderblock_\1.",
    r"^vision_model\.head\.probe$": "img.MAPHead_0.probe",
    r"^vision_model\.head\.attention\.": "img.MAPHead_0.self_attn.",
    r"^vision_model\.head\.layernorm\.": "img.MAPHead_0.LayerNorm_0.",
    r"^vision_model\.head\.mlp\.": "img.MAPHead_0.mlp.",
    r"^text_model\.embeddings\.token_embedding\.weight$": "txt.Embed_0.embedding",
    r"^text_model\.embeddings\.position_embedding\.weight$": "txt.pos_embedding",
    r"^text_model\.final_layer_norm\.": "txt.Encoder_0.encoder_norm.",
    r"^text_model\.encoder\.layers\.(\d+)\.": r"txt.Encoder_0.encoderblock_\1.",
    r"^text_model\.head\.": "txt.head.",
    r"^logit_scale$": "t",
    r"^logit_bias$": "b",
    r"\.self_attn\.q_proj\.": ".MultiHeadDotProductAttention_0.query.",
    r"\.self_attn\.k_proj\.": ".MultiHeadDotProductAttention_0.key.",
    r"\.self_attn\.v_proj\.": ".MultiHeadDotProductAttention_0.value.",
    r"\.self_attn\.out_proj\.": ".MultiHeadDotProductAttention_0.out.",
    r"\.layer_norm1\.": ".LayerNorm_0.",
    r"\.layer_norm2\.": ".LayerNorm_1.",
    r"\.mlp\.fc1\.": ".MlpBlock_0.Dense_0.",
    r"\.mlp\.fc2\.": ".MlpBlock_0.Dense_1.",
    r"(LayerNorm_\d|encoder_norm)\.weight$": r"\1.scale",
    r"\.weight$": ".kernel",
    r"\.": "/",
}


def big_vision_names(state: State) -> State:
    """Returns the hub's tensors as the authors' .npz files hold them: flax's names, axes and heads.

    For models with two heads in the image tower and four in that of texts, as the small ones here have.
    """
    parts = {}
    for name, value in state.items():
        if ".head.attention.in_proj_" in name:
            kind = name.rpartition("_")[2]
            for letter, rows in zip("qkv", value.chunk(3)):
                parts[f"vision_model.head.attention.{letter}_proj.{kind}"] = rows
        elif not name.endswith("position_ids"):
            parts[name] = value
    flax = {}
    for name, value in respell(parts, _BIG_VISION).items():
        heads = 2 if name.startswith("img") else 4
        if name.endswith("embedding/kernel"):
            value = rearrange(value, "d c h w -> h w c d")
        elif name.endswith("out/kernel"):
            value = rearrange(value, "d (heads e) -> heads e d", heads=heads)
        elif name.endswith(("query/kernel", "key/kernel", "value/kernel")):
            value = rearrange(value, "(heads e) d -> d heads e", heads=heads)
        elif name.endswith(("query/bias", "key/bias", "value/bias")):
            value = rearrange(value, "(heads e) -> heads e", heads=heads)
        elif name.endswith("kernel"):
            value = value.T
        elif name.endswith("pos_embedding"):
            value = value[None]
        flax[f"params/{name}"] = value
    return flax


def stacked_names(state: State) -> State:
    """Returns `big_vision_names` with all blocks of a tower in one array, as a scan over them leaves them."""
    flax, block = big_vision_names(state), re.compile(r"encoderblock_(\d+)")
    stacked: State = {}
    for name, value in flax.items():
        found = block.search(name)
        if found is None:
            stacked[name] = value
        elif found[1] == "0":
            rows = [flax[block.sub(f"encoderblock_{index}", name)] for index in range(2)]
            stacked[block.sub("encoderblock", name)] = torch.stack(rows)
    return stacked


_OPEN_CLIP = {
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.trunk.patch_embed.proj.",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "visual.trunk.pos_embed",
    r"^vision_model\.post_layernorm\.": "visual.trunk.norm.",
    r"^vision_model\.head\.probe$": "visual.trunk.attn_pool.latent",
    r"^vision_model\.head\.attention\.in_proj_": "visual.trunk.attn_pool.qkv.",
    r"^vision_model\.head\.attention\.out_proj\.": "visual.trunk.attn_pool.proj.",
    r"^vision_model\.head\.layernorm\.": "visual.trunk.attn_pool.norm.",
    r"^vision_model\.head\.": "visual.trunk.attn_pool.",
    r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm": r"visual.trunk.blocks.\1.norm",
    r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.": r"visual.trunk.blocks.\1.attn.proj.",
    r"^vision_model\.encoder\.layers\.": "visual.trunk.blocks.",
    r"^text_model\.embeddings\.token_embedding\.": "text.token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight$": "text.positional_embedding",
    r"^text_model\.final_layer_norm\.": "text.ln_final.",
    r"^text_model\.head\.": "text.text_projection.",
    r"^text_model\.encoder\.layers\.": "text.transformer.resblocks.",
    r"(resblocks.*)\.self_attn\.out_proj\.": r"\1.attn.out_proj.",
    r"(resblocks.*)\.layer_norm(\d)\.": r"\1.ln_\2.",
    r"(resblocks.*)\.mlp\.fc1\.": r"\1.mlp.c_fc.",
    r"(resblocks.*)\.mlp\.fc2\.": r"\1.mlp.c_proj.",
}


def open_clip_names(state: State) -> State:
    """Returns the hub's tensors under the names of open_clip, which has timm's tower of images."""
    named = respell({k: v for k, v in state.items() if not k.endswith("position_ids")}, _OPEN_CLIP)
    for name in [name for name in named if ".self_attn.q_proj." in name]:
        rows = torch.cat([named.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"])
        joined = ".attn.in_proj_" if name.startswith("text") else ".attn.qkv."
        named[name.replace(".self_attn.q_proj.", joined)] = rows
    for kind in ("weight", "bias"):
        rows = named.pop(f"visual.trunk.attn_pool.qkv.{kind}")
        width = len(rows) // 3
        named |= {f"visual.trunk.attn_pool.q.{kind}": rows[:width], f"visual.trunk.attn_pool.kv.{kind}": rows[width:]}
    named["visual.trunk.pos_embed"] = named["visual.trunk.pos_embed"][None]
    return named | {name: named[name].reshape(()) for name in ("logit_scale", "logit_bias")}


def naflex_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Returns the logits of transformers' NaFlex model, which takes patches of 8 x 8 pixels and their grid."""
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=8, q=8)
    grid = torch.tensor([[images.shape[2] // 8, images.shape[3] // 8]]).expand(len(images), 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.long)
    return model(TOKENS, patches, pixel_attention_mask=mask, spatial_shapes=grid).logits_per_image


def even(model: nn.Module) -> None:
    """Draws weights like `randomize`, and kernels so small that a deep net's values neither grow nor vanish."""
    randomize(model)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 4:
                value.normal_(std=value[0].numel() ** -0.5)


CLIPS = (
    Family(
        variants=("clip_vit_*",),
        tiny=CLIP_SMALL,
        other_size=(48, 40),
        oracles=(
            Oracle(library="transformers", build=hub_clip, spelling="hub", run=_hub_logits, read=_our_logits),
            Oracle(
                library="transformers",
                build=hub_clip,
                spelling="openai",
                publish=openai_names,
                run=_hub_logits,
                read=_our_logits,
            ),
        ),
        read=_our_logits,
    ),
    Family(
        variants=("clip_resnet*",),
        tiny=CLIP_RESNET_SMALL,
        image_size=(64, 64),
        other_size=(96, 96),
        oracles=(
            Oracle(
                library="timm",
                build=mixed_clip,
                spelling="openai-resnet",
                publish=openai_resnet_names,
                read=_our_logits,
                randomize=even,
                other_tolerance=2e-6,  # timm resamples positions in float32
            ),
        ),
        read=_our_logits,
    ),
)
_SIGLIP: dict[str, Any] = {"tiny": SIGLIP_SMALL, "read": _our_logits}
_HUB: dict[str, Any] = {"library": "transformers", "build": hub_siglip, "spelling": "hub", "read": _our_logits}
SIGLIPS = (
    Family(
        variants=("siglip_*", "siglip2_*_[0-9][0-9][0-9]"),
        other_size=(48, 40),
        oracles=(
            Oracle(run=_hub_logits, **_HUB),
            *(
                Oracle(run=_hub_logits, **_HUB | {"spelling": spelling}, publish=publish, other_size=False)
                for spelling, publish in (
                    ("big_vision", big_vision_names),
                    ("big_vision", stacked_names),
                    ("open_clip", open_clip_names),
                )
            ),
        ),
        **_SIGLIP,
    ),
    Family(
        variants=("siglip2_*_naflex",),
        other_size=(40, 24),
        # It resamples positions in float32, whatever the model's type is, even to the size that they have.
        oracles=(Oracle(run=naflex_logits, tolerance=1e-5, other_tolerance=1e-5, **_HUB),),
        **_SIGLIP,
    ),
)
