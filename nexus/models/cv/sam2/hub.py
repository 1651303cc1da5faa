"""SAM 2's configuration in the spelling of transformers: of its model for images, and of its model for videos."""

from collections.abc import Mapping
from typing import Any

from nexus.core.foreign import ForeignSettings
from nexus.models.cv.sam2.config import STRIDE, SAM2Config


def config_from_hub(mapping: Mapping[str, Any]) -> SAM2Config:
    """Returns our configuration for the hub's config.json, of which every key is followed or refused."""
    settings = ForeignSettings(mapping, builder="SAM2")
    image_size, fields = _vision(settings.section("vision_config"))
    fields |= _heads(settings, fields["embed_dim"], image_size)
    video = settings.get("model_type", "sam2_video") == "sam2_video"
    fields |= _memory(settings, fields["embed_dim"], image_size) if video else {"video": False}
    settings.finish()
    return SAM2Config(image_size=image_size, **fields)


def _vision(vision: ForeignSettings) -> tuple[int | tuple[int, int], dict[str, Any]]:
    trunk = vision.section("backbone_config")
    trunk.expect(
        patch_kernel_size=[7, 7],
        patch_stride=[4, 4],
        patch_padding=[3, 3],
        query_stride=[2, 2],
        num_query_pool_stages=3,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        model_type=("sam2_hiera_det_model", None),
    )
    image_size = trunk.sides("image_size", 1024)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    image_size = height if height == width else (height, width)
    embed_dim, heads = trunk.integer("hidden_size", 96, 1), trunk.integer("num_attention_heads", 1, 1)
    widths = [embed_dim << stage for stage in range(4)]
    trunk.expect(embed_dim_per_stage=widths, num_attention_heads_per_stage=[heads << stage for stage in range(4)])
    vision.expect(
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[height // scale, width // scale] for scale in (4, 8, 16)],
        fpn_kernel_size=1,
        fpn_stride=1,
        fpn_padding=0,
        fpn_top_down_levels=[2, 3],
        num_feature_levels=3,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        model_type=("sam2_vision_model", None),
    )
    rows, columns = trunk.integers("window_positional_embedding_background_size", (7, 7), 1)
    return image_size, {
        "in_channels": trunk.integer("num_channels", 3, 1),
        "trunk_embed_dim": embed_dim,
        "trunk_num_heads": heads,
        "trunk_depths": trunk.integers("blocks_per_stage", (1, 2, 7, 2), 1),
        "trunk_global_blocks": trunk.integers("global_attention_blocks", (5, 7, 9)),
        "trunk_windows": trunk.integers("window_size_per_stage", (8, 4, 14, 7), 1),
        "trunk_background": (rows, columns),
        "mlp_ratio": trunk.number("mlp_ratio", 4.0),
        "embed_dim": vision.integer("fpn_hidden_size", 256, 8),
    }


def _heads(settings: ForeignSettings, embed_dim: int, image_size: Any) -> dict[str, Any]:
    prompts, decoder = settings.section("prompt_encoder_config"), settings.section("mask_decoder_config")
    prompts.get("scale")  # of fresh frequencies
    prompts.get("model_type")
    decoder.get("model_type")
    prompts.expect(
        hidden_size=embed_dim,
        image_size=image_size,
        patch_size=STRIDE,
        num_point_embeddings=4,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    decoder.expect(
        hidden_size=embed_dim,
        hidden_act="gelu",
        attention_downsample_rate=2,
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=0.05,
        dynamic_multimask_stability_thresh=0.98,
    )
    return {
        "mask_dim": prompts.integer("mask_input_channels", 16, 4),
        "decoder_depth": decoder.integer("num_hidden_layers", 2, 1),
        "decoder_num_heads": decoder.integer("num_attention_heads", 8, 1),
        "decoder_mlp_dim": decoder.integer("mlp_dim", 2048, 1),
        "num_masks": decoder.integer("num_multimask_outputs", 3, 1),
        "iou_head_depth": decoder.integer("iou_head_depth", 3, 1),
        "iou_head_dim": decoder.integer("iou_head_hidden_dim", 256, 1),
    }


def _memory(settings: ForeignSettings, embed_dim: int, image_size: Any) -> dict[str, Any]:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    for key in ("memory_attention_dropout", "memory_attention_rope_dropout", "memory_fuser_layer_scale_init_value"):
        settings.number(key, 0.0)  # of training
    settings.expect(
        image_size=image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        multimask_output_in_sam=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        multimask_output_for_tracking=True,
        max_cond_frame_num=-1,
        memory_attention_hidden_size=embed_dim,
        memory_attention_num_attention_heads=1,
        memory_attention_downsample_rate=1,
        memory_attention_feed_forward_hidden_act="relu",
        memory_attention_rope_feat_sizes=[side // STRIDE for side in sides],
        rope_parameters={"rope_theta": 10000.0, "rope_type": "axial"},
        memory_encoder_hidden_size=embed_dim,
        mask_downsampler_embed_dim=embed_dim,
        mask_downsampler_kernel_size=3,
        mask_downsampler_stride=2,
        mask_downsampler_padding=1,
        mask_downsampler_total_stride=16,
        mask_downsampler_hidden_act="gelu",
        memory_fuser_embed_dim=embed_dim,
        memory_fuser_intermediate_dim=4 * embed_dim,
        memory_fuser_kernel_size=7,
        memory_fuser_padding=3,
        memory_fuser_hidden_act="gelu",
    )
    return {
        "memory_dim": settings.integer("memory_encoder_output_channels", 64, 1),
        "memory_depth": settings.integer("memory_attention_num_layers", 4, 1),
        "memory_mlp_dim": settings.integer("memory_attention_feed_forward_hidden_size", 2048, 1),
        "fuser_depth": settings.integer("memory_fuser_num_layers", 2),
        "num_memories": settings.integer("num_maskmem", 7, 1),
        "num_pointers": settings.integer("max_object_pointers_in_encoder", 16, 1),
        "pointer_times": settings.boolean("enable_temporal_pos_encoding_for_object_pointers", True),
        "absent_memory": settings.boolean("enable_occlusion_spatial_embedding", True),
    }
