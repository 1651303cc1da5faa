"""Grounding DINO's configuration in the spelling of transformers."""

from collections.abc import Mapping
from typing import Any

from nexus.core.foreign import OF_DETECTORS, OF_TRANSFORMERS, ForeignSettings
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig
from nexus.models.cv.swin_transformer import SwinConfig, SwinTransformer

STAGES = [2, 3, 4]
PLAIN_SWIN = "swin_tiny_patch4_window7_224"


def config_from_hub(mapping: Mapping[str, Any]) -> GroundingDINOConfig:
    """Returns our configuration for the hub's config.json, of which every key is followed or refused.

    The published files are the authors' weights, which want their `inverse_sigmoid_eps`: it stays as it is here.

    Raises:
        ValueError: Something in it is not built here.
    """
    settings = ForeignSettings(mapping, builder="Grounding DINO")
    text = settings.section("text_config")
    backbone, in_channels = _backbone(settings)
    heads, hidden = settings.integer("encoder_attention_heads", 8, 1), settings.integer("encoder_ffn_dim", 2048, 2)
    points = settings.integer("encoder_n_points", 4, 1)
    settings.expect(
        decoder_attention_heads=heads,
        decoder_ffn_dim=hidden,
        decoder_n_points=points,
        activation_function="relu",
        position_embedding_type="sine",
        two_stage=True,
        embedding_init_target=True,
        query_dim=4,
        decoder_bbox_embed_share=True,
        two_stage_bbox_embed_share=False,
        positional_embedding_temperature=20,
        layer_norm_eps=1e-5,
    )
    for key in ("text_enhancer_dropout", "fusion_dropout", "focal_alpha", "backbone"):  # of training
        settings.get(key)
    text.expect(hidden_act="gelu", type_vocab_size=2, position_embedding_type="absolute")
    for key in ("attention_probs_dropout_prob", "classifier_dropout"):
        text.get(key)
    config = GroundingDINOConfig(
        in_channels=in_channels,
        backbone=backbone,
        embed_dim=settings.integer("d_model", 256, 1),
        num_layers=(settings.integer("encoder_layers", 6, 1), settings.integer("decoder_layers", 6, 1)),
        num_heads=heads,
        hidden_dim=hidden,
        num_levels=settings.integer("num_feature_levels", 4, 1),
        num_points=points,
        num_queries=settings.integer("num_queries", 900, 1),
        dropout=settings.number("dropout", 0.1),
        fusion_drop_path=settings.number("fusion_droppath", 0.1),
        text_dim=text.integer("hidden_size", 768, 1),
        text_num_layers=text.integer("num_hidden_layers", 12, 1),
        text_num_heads=text.integer("num_attention_heads", 12, 1),
        text_hidden_dim=text.integer("intermediate_size", 3072, 1),
        text_dropout=text.number("hidden_dropout_prob", 0.1),
        text_norm_eps=text.number("layer_norm_eps", 1e-12),
        vocab_size=text.integer("vocab_size", 30522, 1),
        text_positions=text.integer("max_position_embeddings", 512, 1),
        max_text_len=settings.integer("max_text_len", 256, 2),
        pad_id=text.integer("pad_token_id", 0),
    )
    settings.finish(OF_TRANSFORMERS | OF_DETECTORS)
    return config


def _backbone(settings: ForeignSettings) -> tuple[dict[str, Any], int]:
    """Returns the Swin of a config.json as a mapping, and its channels."""
    given = settings.get("backbone_config", {})
    kind = given.get("model_type", "swin") if isinstance(given, Mapping) else None
    if kind != "swin" or given.get("out_indices", STAGES) != STAGES:
        raise settings.refuse("backbone_config", f"it must be a Swin's, with the stages {STAGES}")
    swin = SwinTransformer.config_from_hub(given)
    plain = SwinConfig()
    changed = {key: value for key, value in swin.to_dict().items() if value != getattr(plain, key)}
    channels = changed.pop("in_channels", plain.in_channels)
    changed.pop("num_classes", None)
    return {"name": PLAIN_SWIN, **changed}, channels
