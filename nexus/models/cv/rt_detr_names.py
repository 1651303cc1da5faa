"""The names that the authors and transformers give to the weights of RT-DETR, versions 1 and 2."""

from typing import Any

from nexus.core.formats import Format, State
from nexus.models.cv.detr import split_projections


def one_of_each_head(state: State) -> State:
    """Returns `state` without the second copies of the decoder's heads that version 4 of transformers writes."""
    result = {key: value for key, value in state.items() if not key.startswith(("class_embed.", "bbox_embed."))}
    for key in state.keys() - result.keys():
        result.setdefault(f"decoder.{key}", state[key])
    return result


DROPPED = {r"\.(anchors|valid_mask|n(um)?_points_scale)$": None}
AUTHORS_NAMES = {
    **DROPPED,
    **{rf"^backbone\.conv1\.conv1_{part + 1}\.": f"backbone.stem.{part}." for part in range(3)},
    r"^backbone\.res_layers\.(\d)\.blocks\.": r"backbone.stages.\1.",
    **{rf"\.branch2{letter}\.": f".convs.{place}." for place, letter in enumerate("abc")},
    r"\.short\.conv\.(conv|norm)\.": r".short.\1.",
    r"\.input_proj\.(\d)\.0\.": r".input_proj.\1.conv.",
    r"\.input_proj\.(\d)\.1\.": r".input_proj.\1.norm.",
    r"^encoder\.encoder\.0\.layers\.0\.": "encoder.aifi.",
    r"^decoder\.(input_proj|denoising_class_embed|enc_\w+)\.": r"\1.",
    r"^enc_output\.proj\.": "enc_output.0.",
    r"^enc_output\.norm\.": "enc_output.1.",
    r"^decoder\.decoder\.layers\.": "decoder.layers.",
    r"^decoder\.dec_score_head\.": "decoder.class_embed.",
    r"^decoder\.dec_bbox_head\.": "decoder.bbox_embed.",
    r"\.self_attn\.out_proj\.": ".self_attn.o_proj.",
    r"\.linear(\d)\.": r".mlp.fc\1.",
}
HUB_NAMES = {
    **DROPPED,
    r"^model\.": "",
    r"^backbone\.model\.embedder\.embedder\.": "backbone.stem.",
    r"^backbone\.model\.encoder\.stages\.(\d)\.layers\.": r"backbone.stages.\1.",
    r"^(backbone\..*)\.layer\.(\d)\.": r"\1.convs.\2.",
    r"\.shortcut\.(1\.)?": ".short.",
    r"^(backbone\..*)\.convolution\.": r"\1.conv.",
    r"^(backbone\..*)\.normalization\.": r"\1.norm.",
    r"^encoder_input_proj\.": "encoder.input_proj.",
    r"^decoder_input_proj\.": "input_proj.",
    r"input_proj\.(\d)\.0\.": r"input_proj.\1.conv.",
    r"input_proj\.(\d)\.1\.": r"input_proj.\1.norm.",
    r"^encoder\.(aifi|encoder)\.0\.layers\.0\.": "encoder.aifi.",
    r"\.self_attn_layer_norm\.": ".norm1.",
    r"^encoder\.aifi\.final_layer_norm\.": "encoder.aifi.norm2.",
    r"\.encoder_attn_layer_norm\.": ".norm2.",
    r"\.final_layer_norm\.": ".norm3.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"\.out_proj\.": ".o_proj.",
    r"\.(mlp\.)?fc([12])\.": r".mlp.fc\2.",
}

FORMATS = (
    Format("authors", detect=r"^decoder\.dec_score_head\.", rename=AUTHORS_NAMES, convert=split_projections),
    Format("hub", detect=r"(^|\.)decoder_input_proj\.", rename=HUB_NAMES, convert=one_of_each_head),
)

FIXED_SETTINGS: dict[str, Any] = {
    "encoder_layers": 1,
    "normalize_before": False,
    "learn_initial_query": False,
    "num_feature_levels": 3,
    "decoder_n_levels": 3,
    "decoder_offset_scale": 0.5,
    "decoder_method": ("default", "discrete"),
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "positional_encoding_temperature": 10_000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "decoder_activation_function": "relu",
    "with_box_refine": True,
    "anchor_image_size": None,
}
"""What the hub's config.json may say and the model is built with, as all published ones."""
