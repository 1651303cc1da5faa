"""SAM's configuration in the spelling of transformers."""

from collections.abc import Mapping
from typing import Any

from nexus.core.foreign import ForeignSettings
from nexus.models.cv.sam.config import SAMConfig


def config_from_hub(mapping: Mapping[str, Any]) -> SAMConfig:
    """Returns our configuration for the hub's config.json, of which every key is followed or refused."""
    settings = ForeignSettings(mapping, builder="SAM")
    vision, prompts = settings.section("vision_config"), settings.section("prompt_encoder_config")
    decoder = settings.section("mask_decoder_config")
    vision.expect(qkv_bias=True, use_abs_pos=True, use_rel_pos=True, hidden_act="gelu", layer_norm_eps=1e-6)
    prompts.expect(num_point_embeddings=4, hidden_act="gelu", layer_norm_eps=1e-6)
    decoder.expect(hidden_act="relu", attention_downsample_rate=2)
    vision.number("attention_dropout", 0.0)  # of training
    vision.get("scale")  # of fresh frequencies
    width, embed_dim = vision.integer("hidden_size", 768, 1), vision.integer("output_channels", 256, 8)
    patch_size, image_size = vision.integer("patch_size", 16, 1), vision.integer("image_size", 1024, 1)
    prompts.expect(
        hidden_size=embed_dim,
        image_size=image_size,
        patch_size=patch_size,
        image_embedding_size=image_size // patch_size,
    )
    vision.expect(num_pos_feats=embed_dim // 2)
    decoder.expect(hidden_size=embed_dim)
    config = SAMConfig(
        image_size=image_size,
        patch_size=patch_size,
        in_channels=vision.integer("num_channels", 3, 1),
        encoder_embed_dim=width,
        encoder_depth=vision.integer("num_hidden_layers", 12, 1),
        encoder_num_heads=vision.integer("num_attention_heads", 12, 1),
        encoder_global_blocks=vision.integers("global_attn_indexes", (2, 5, 8, 11)),
        window_size=vision.integer("window_size", 14, 1),
        mlp_ratio=_mlp_ratio(vision, width),
        embed_dim=embed_dim,
        decoder_depth=decoder.integer("num_hidden_layers", 2, 1),
        decoder_num_heads=decoder.integer("num_attention_heads", 8, 1),
        decoder_mlp_dim=decoder.integer("mlp_dim", 2048, 1),
        decoder_norm_eps=decoder.number("layer_norm_eps", 1e-6),
        num_masks=decoder.integer("num_multimask_outputs", 3, 1),
        mask_dim=prompts.integer("mask_input_channels", 16, 4),
        iou_head_depth=decoder.integer("iou_head_depth", 3, 1),
        iou_head_dim=decoder.integer("iou_head_hidden_dim", 256, 1),
    )
    settings.finish()
    return config


def _mlp_ratio(vision: ForeignSettings, width: int) -> float:
    """transformers follows `mlp_dim`, and `mlp_ratio` only where that is absent."""
    ratio = vision.number("mlp_ratio", 4.0)
    return vision.integer("mlp_dim", int(width * ratio), 1) / width
