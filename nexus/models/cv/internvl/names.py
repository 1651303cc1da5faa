"""InternVL's files: the authors' own layout, and that of transformers; and both spellings of the configuration."""

from collections.abc import Mapping
from typing import Any

from nexus.core.foreign import ForeignSettings
from nexus.core.formats import Format, State, join_keys
from nexus.models.cv.internvl.config import InternVLConfig
from nexus.models.cv.internvl.language import FAMILIES

AUTHORS_NAMES = {
    r"^vision_model\.embeddings\.class_embedding$": "visual.cls_token",
    r"^vision_model\.embeddings\.position_embedding$": "visual.pos_embed",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.patch_embed.proj.",
    r"^vision_model\.encoder\.layers\.": "visual.blocks.",
    r"\.(ls\d)$": r".\1.gamma",
    r"^mlp1\.": "projector.",
    r"^language_model\.": "language.",
}
HUB_NAMES = {
    r"^(model\.)?vision_tower\.": "visual.",
    r"^visual\.embeddings\.cls_token$": "visual.cls_token",
    r"^visual\.embeddings\.position_embeddings$": "visual.pos_embed",
    r"^visual\.embeddings\.patch_embeddings\.projection\.": "visual.patch_embed.proj.",
    r"^visual\.encoder\.layer\.": "visual.blocks.",
    r"\.attention\.([qkv])_proj\.": r".attn.\1.",
    r"\.attention\.projection_layer\.": ".attn.proj.",
    r"\.attention\.([qk])_norm\.": r".attn.\1_norm.",
    r"\.lambda_(\d)$": r".ls\1.gamma",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"^(model\.)?multi_modal_projector\.layer_norm\.": "projector.0.",
    r"^(model\.)?multi_modal_projector\.linear_1\.": "projector.1.",
    r"^(model\.)?multi_modal_projector\.linear_2\.": "projector.3.",
    r"^model\.language_model\.": "language.model.",
    r"^language_model\.": "language.",
    r"^lm_head\.": "language.lm_head.",
}


def _joined(state: State) -> State:
    vision = {key: value for key, value in state.items() if key.startswith("visual.")}
    rest = {key: value for key, value in state.items() if key not in vision}
    return {**join_keys(vision, ("q", "k", "v"), "qkv"), **rest}


FORMATS = (
    Format("authors", r"^vision_model\.embeddings\.class_embedding$", AUTHORS_NAMES),
    Format("hub", r"^(model\.)?vision_tower\.embeddings\.cls_token$", HUB_NAMES, _joined),
)


def config_from_hub(mapping: Mapping[str, Any]) -> InternVLConfig:
    """Returns our configuration for a config.json of the authors (`internvl_chat`) or of transformers (`internvl`).

    Raises:
        ValueError: Something in it is not built here.
    """
    settings = ForeignSettings(mapping, builder="InternVL")
    return _authors(settings) if mapping.get("model_type") == "internvl_chat" else _hub(settings)


def _authors(settings: ForeignSettings) -> InternVLConfig:
    for key in (
        "auto_map", "use_backbone_lora", "use_llm_lora", "pad2square", "hidden_size", "force_image_size",
        "dynamic_image_size", "system_message", "image_fold", "max_position_embeddings", "vocab_size",
    ):  # fmt: skip
        settings.get(key)  # of training, or said again inside
    vision = settings.section("vision_config")
    for key in ("auto_map", "attention_dropout", "dropout", "drop_path_rate", "use_flash_attn", "num_classes"):
        vision.get(key)
    kind = vision.text("norm_type", "rms_norm")
    if kind not in ("rms_norm", "layer_norm"):
        raise vision.refuse("norm_type", "InternViT has rms_norm or layer_norm")
    activation = vision.text("hidden_act", "gelu")
    if activation != "gelu":
        raise vision.refuse("hidden_act", "InternViT has gelu")
    version = settings.text("ps_version", "v1")
    if version not in ("v1", "v2"):
        raise settings.refuse("ps_version", "it is v1 or v2")
    ratio = settings.number("downsample_ratio", 0.5)
    if not ratio or round(1 / ratio) != 1 / ratio:
        raise settings.refuse("downsample_ratio", "its inverse is a whole number")
    of_tower = vision.integer("image_size", 224)
    config = InternVLConfig(
        image_size=settings.integer("force_image_size", 0) or of_tower,
        patch_size=vision.integer("patch_size", 14),
        in_channels=vision.integer("num_channels", 3),
        embed_dim=vision.integer("hidden_size", 3200, 1),
        num_layers=vision.integer("num_hidden_layers", 48),
        num_heads=vision.integer("num_attention_heads", 25),
        mlp_dim=vision.integer("intermediate_size", 12800),
        norm="rms" if kind == "rms_norm" else "layer",
        qkv_bias=vision.boolean("qkv_bias", False),
        qk_norm=vision.boolean("qk_normalization", True),
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        select_layer=_layer(settings, "select_layer"),
        shuffle=round(1 / ratio),
        shuffle_version=1 if version == "v1" else 2,
        language=_language(settings, "llm_config", tied=settings.get("tie_word_embeddings")),
        template=settings.text("template", "internvl2_5"),
        min_tiles=settings.integer("min_dynamic_patch", 1),
        max_tiles=settings.integer("max_dynamic_patch", 6),
        thumbnail=settings.boolean("use_thumbnail", False),
    )
    settings.finish()
    return config


def _hub(settings: ForeignSettings) -> InternVLConfig:
    settings.get("image_token_id")  # the tokenizer knows it
    settings.get("image_seq_length")  # follows from the sizes
    settings.expect(projector_hidden_act="gelu", vision_feature_select_strategy="default")
    vision = settings.section("vision_config")
    vision.expect(
        hidden_act="gelu", hidden_dropout_prob=(0.0, 0), projection_dropout=(0.0, 0), use_mask_token=False,
        use_absolute_position_embeddings=True, use_mean_pooling=True,
    )  # fmt: skip
    vision.get("attention_dropout")
    kind = vision.text("norm_type", "layer_norm")
    if kind not in ("rms_norm", "layer_norm"):
        raise vision.refuse("norm_type", "InternViT has rms_norm or layer_norm")
    ratio = settings.number("downsample_ratio", 0.5)
    if not ratio or round(1 / ratio) != 1 / ratio:
        raise settings.refuse("downsample_ratio", "its inverse is a whole number")
    config = InternVLConfig(
        image_size=_side(vision, "image_size", 448),
        patch_size=_side(vision, "patch_size", 14),
        in_channels=vision.integer("num_channels", 3),
        embed_dim=vision.integer("hidden_size", 1024, 1),
        num_layers=vision.integer("num_hidden_layers", 24),
        num_heads=vision.integer("num_attention_heads", 16),
        mlp_dim=vision.integer("intermediate_size", 4096),
        norm="rms" if kind == "rms_norm" else "layer",
        qkv_bias=vision.boolean("attention_bias", False),
        qk_norm=vision.boolean("use_qk_norm", False),
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        layer_scale=vision.number("layer_scale_init_value", 0.1),
        select_layer=_layer(settings, "vision_feature_layer"),
        shuffle=round(1 / ratio),
        language=_language(settings, "text_config", tied=settings.get("tie_word_embeddings")),
    )
    settings.finish()
    return config


def _side(settings: ForeignSettings, key: str, default: int) -> int:
    side = settings.sides(key, default)
    if isinstance(side, int):
        return side
    if side[0] != side[1]:
        raise settings.refuse(key, "InternVL's tiles and patches are squares")
    return side[0]


def _layer(settings: ForeignSettings, key: str) -> int:
    layer = settings.get(key, -1)
    if not isinstance(layer, int) or isinstance(layer, bool) or layer >= 0:
        raise settings.refuse(key, "it counts from the end: -1 is the last")
    return layer


def _language(settings: ForeignSettings, key: str, *, tied: Any) -> dict[str, Any]:
    """Returns the configuration of the language model as it stands; what belongs to files and code is left out."""
    given = settings.get(key, {})
    if not isinstance(given, Mapping):
        raise settings.refuse(key, "it is the configuration of the language model")
    dropped = ("auto_map", "architectures", "torch_dtype", "dtype", "_name_or_path", "attn_implementation")
    kept = {name: value for name, value in given.items() if name not in dropped and not name.startswith("_")}
    family = kept.get("model_type")
    if family not in FAMILIES:
        raise settings.refuse(f"{key}", f"its model_type {family!r:.60} is none of {', '.join(FAMILIES)}")
    if tied is not None:
        kept["tie_word_embeddings"] = bool(tied)
    return kept
