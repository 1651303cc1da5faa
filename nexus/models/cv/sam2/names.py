"""The names that the authors and transformers give to SAM 2's weights."""

import re

from nexus.core.formats import Format, State
from nexus.models.cv.sam.names import join_points

_NECK = {"0": "3", "1": "2", "2": "1", "3": "0"}
"""The published files begin with the coarsest map."""

_DECODER = {
    r"^mask_decoder\.obj_score_token\.weight$": "mask_decoder.object_token",
    r"^mask_decoder\.(iou_token|mask_tokens)\.weight$": r"mask_decoder.\1",
    r"^mask_decoder\.transformer\.layers\.": "mask_decoder.blocks.",
    r"^mask_decoder\.transformer\.final_attn_token_to_image\.": "mask_decoder.final_attn.",
    r"^mask_decoder\.transformer\.norm_final_attn\.": "mask_decoder.norm.",
    r"\.cross_attn_(token_to_image|image_to_token)\.": r".\1.",
    r"^mask_decoder\.output_upscaling\.0\.": "mask_decoder.to_eighths.",
    r"^mask_decoder\.output_upscaling\.1\.": "mask_decoder.norm_eighths.",
    r"^mask_decoder\.output_upscaling\.3\.": "mask_decoder.to_quarters.",
    r"^mask_decoder\.output_hypernetworks_mlps\.": "mask_decoder.mask_mlps.",
    r"^mask_decoder\.iou_prediction_head\.": "mask_decoder.iou_head.",
    r"^mask_decoder\.pred_obj_score_head\.": "mask_decoder.object_head.",
    r"^mask_decoder\.conv_s0\.": "image_encoder.to_quarters.",
    r"^mask_decoder\.conv_s1\.": "image_encoder.to_eighths.",
}
_MEMORY = {
    r"^memory_(attention|encoder)\.": r"memory.\1.",
    r"^memory\.attention\.layers\.": "memory.attention.blocks.",
    r"^(memory\.attention\.blocks\.\d+)\.cross_attn_image\.": r"\1.cross_attn.",
    r"^(memory\.attention\.blocks\.\d+)\.linear([12])\.": r"\1.fc\2.",
    r"^mask_downsample\.": "memory.mask_to_prompt.",
}
AUTHORS_NAMES = {
    r"^sam_(mask_decoder|prompt_encoder)\.": r"\1.",
    r"^(image_encoder\.trunk\.patch_embed)\.proj\.": r"\1.",
    r"^((?:image_encoder\.trunk|mask_decoder\.transformer)\.\w+\.\d+\.mlp)\.layers\.0\.": r"\1.fc1.",
    r"^((?:image_encoder\.trunk|mask_decoder\.transformer)\.\w+\.\d+\.mlp)\.layers\.1\.": r"\1.fc2.",
    r"^image_encoder\.neck\.convs\.(\d)\.conv\.": r"image_encoder.neck.-\1.",
    r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$": "prompt_encoder.positions.frequencies",
    r"^prompt_encoder\.not_a_point_embed\.weight$": "prompt_encoder.no_point",
    r"^prompt_encoder\.no_mask_embed\.weight$": "prompt_encoder.no_mask",
    r"^memory_encoder\.mask_downsampler\.encoder\.": "memory_encoder.mask_downsampler.",
    r"^memory_encoder\.pix_feat_proj\.": "memory_encoder.image_proj.",
    r"^memory_encoder\.fuser\.layers\.": "memory_encoder.fuser.",
    r"^(memory_encoder\.fuser\.\d+)\.dwconv\.": r"\1.conv.",
    r"^(memory_encoder\.fuser\.\d+)\.pwconv([12])\.": r"\1.fc\2.",
    r"^(memory_encoder\.fuser\.\d+)\.gamma$": r"\1.scale",
    r"^maskmem_tpos_enc$": "memory.times",
    r"^no_mem_embed$": "no_memory",
    r"^no_mem_pos_enc$": "memory.no_memory_position",
    r"^no_obj_embed_spatial$": "memory.absent",
    r"^no_obj_ptr$": "memory.pointers.absent",
    r"^obj_ptr_proj\.": "memory.pointers.proj.",
    r"^obj_ptr_tpos_proj\.": "memory.pointers.time_proj.",
    **_DECODER,
    **_MEMORY,
}
HUB_NAMES = {
    r"^shared_image_embedding\.positional_embedding$": "prompt_encoder.positions.frequencies",
    r"^prompt_encoder\.shared_embedding\.": None,  # the same matrix once more
    r"^vision_encoder\.backbone\.": "image_encoder.trunk.",
    r"^vision_encoder\.neck\.convs\.(\d)\.": r"image_encoder.neck.-\1.",
    r"^(image_encoder\.trunk\.patch_embed)\.projection\.": r"\1.",
    r"^((?:image_encoder\.trunk|mask_decoder\.transformer)\.\w+\.\d+\.mlp)\.proj_in\.": r"\1.fc1.",
    r"^((?:image_encoder\.trunk|mask_decoder\.transformer)\.\w+\.\d+\.mlp)\.proj_out\.": r"\1.fc2.",
    r"\.o_proj\.": ".out_proj.",
    r"\.mask_embed\.conv1\.": ".mask_downscaling.0.",
    r"\.mask_embed\.layer_norm1\.": ".mask_downscaling.1.",
    r"\.mask_embed\.conv2\.": ".mask_downscaling.3.",
    r"\.mask_embed\.layer_norm2\.": ".mask_downscaling.4.",
    r"\.mask_embed\.conv3\.": ".mask_downscaling.6.",
    r"^prompt_encoder\.not_a_point_embed\.weight$": "prompt_encoder.no_point",
    r"^prompt_encoder\.no_mask_embed\.weight$": "prompt_encoder.no_mask",
    r"^mask_decoder\.upscale_conv1\.": "mask_decoder.to_eighths.",
    r"^mask_decoder\.upscale_layer_norm\.": "mask_decoder.norm_eighths.",
    r"^mask_decoder\.upscale_conv2\.": "mask_decoder.to_quarters.",
    r"\.layer_norm_final_attn\.": ".norm_final_attn.",
    r"^memory_encoder\.feature_projection\.": "memory_encoder.image_proj.",
    r"^memory_encoder\.projection\.": "memory_encoder.out_proj.",
    r"^memory_encoder\.mask_downsampler\.final_conv\.": "memory_encoder.mask_downsampler.12.",
    r"^memory_encoder\.memory_fuser\.layers\.": "memory_encoder.fuser.",
    r"^(memory_encoder\.fuser\.\d+)\.depthwise_conv\.": r"\1.conv.",
    r"^(memory_encoder\.fuser\.\d+)\.pointwise_conv([12])\.": r"\1.fc\2.",
    r"^memory_temporal_positional_encoding$": "memory.times",
    r"^no_memory_embedding$": "no_memory",
    r"^no_memory_positional_encoding$": "memory.no_memory_position",
    r"^occlusion_spatial_embedding_parameter$": "memory.absent",
    r"^no_object_pointer$": "memory.pointers.absent",
    r"^object_pointer_proj\.": "memory.pointers.proj.",
    r"^temporal_positional_encoding_projection_layer\.": "memory.pointers.time_proj.",
    r"\.layer_norm(\d?)\.": r".norm\1.",
    **_DECODER,
    **_MEMORY,
}


def turn_neck(state: State) -> State:
    """Returns `state` with the maps of the neck from the finest on, and the points' embeddings in two weights."""
    pattern = r"(?<=^image_encoder\.neck\.)-([0-3])(?=\.)"
    return join_points({re.sub(pattern, lambda found: _NECK[found[1]], key): value for key, value in state.items()})


def number_layers(state: State) -> State:
    """Returns `state` with the hub's `proj_in`, `layers.N`, `proj_out` and the layers of masks in one row."""
    middles: dict[str, int] = {}
    for key in state:
        if found := re.match(r"(.*)\.layers\.(\d+)\.(?:weight|bias)$", key):
            middles[found[1]] = max(middles.get(found[1], 0), int(found[2]) + 1)
    return turn_neck(split_points({_numbered(key, middles): value for key, value in state.items()}))


def _numbered(key: str, middles: dict[str, int]) -> str:
    if found := re.match(r"(memory\.encoder\.mask_downsampler)\.layers\.(\d+)\.(conv|norm)\.(\w+)$", key):
        return f"{found[1]}.{3 * int(found[2]) + (found[3] == 'norm')}.{found[4]}"
    heads = r"mask_decoder\.(?:mask_mlps\.\d+|iou_head|object_head)|memory\.pointers\.proj"
    found = re.match(rf"({heads})\.(proj_in|proj_out|layers\.(\d+))\.(\w+)$", key)
    if not found:
        return key
    place = 0 if found[2] == "proj_in" else int(found[3]) + 1 if found[3] else middles.get(found[1], 0) + 1
    return f"{found[1]}.layers.{place}.{found[4]}"


def split_points(state: State) -> State:
    """Returns `state` with the one embedding of points and corners in two weights."""
    result = dict(state)
    if (both := result.pop("prompt_encoder.point_embed.weight", None)) is not None:
        result |= {"prompt_encoder.point_embed": both[:2], "prompt_encoder.corner_embed": both[2:]}
    return result


FORMATS = (
    Format("authors", detect=r"^sam_mask_decoder\.", rename=AUTHORS_NAMES, convert=turn_neck),
    Format("hub", detect=r"^vision_encoder\.backbone\.pos_embed_window$", rename=HUB_NAMES, convert=number_layers),
)
