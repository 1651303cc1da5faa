"""The names that the authors, transformers and timm give to SAM's weights."""

import re

import torch

from nexus.core.formats import Format, State

AUTHORS_NAMES = {
    r"\.mlp\.lin([12])\.": r".mlp.fc\1.",
    r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$": "prompt_encoder.positions.frequencies",
    r"^prompt_encoder\.not_a_point_embed\.weight$": "prompt_encoder.no_point",
    r"^prompt_encoder\.no_mask_embed\.weight$": "prompt_encoder.no_mask",
    r"^mask_decoder\.(iou_token|mask_tokens)\.weight$": r"mask_decoder.\1",
    r"^mask_decoder\.transformer\.layers\.": "mask_decoder.blocks.",
    r"^mask_decoder\.transformer\.final_attn_token_to_image\.": "mask_decoder.final_attn.",
    r"^mask_decoder\.transformer\.norm_final_attn\.": "mask_decoder.norm.",
    r"\.cross_attn_(token_to_image|image_to_token)\.": r".\1.",
    r"^mask_decoder\.output_upscaling\.": "mask_decoder.upscaling.",
    r"^mask_decoder\.output_hypernetworks_mlps\.": "mask_decoder.mask_mlps.",
    r"^mask_decoder\.iou_prediction_head\.": "mask_decoder.iou_head.",
}
HUB_NAMES = {
    r"^shared_image_embedding\.positional_embedding$": "prompt_encoder.positions.frequencies",
    r"^prompt_encoder\.shared_embedding\.": None,  # the same matrix once more
    r"^vision_encoder\.": "image_encoder.",
    r"^(image_encoder\.patch_embed)\.projection\.": r"\1.proj.",
    r"^image_encoder\.layers\.": "image_encoder.blocks.",
    r"^image_encoder\.neck\.conv1\.": "image_encoder.neck.0.",
    r"^image_encoder\.neck\.layer_norm1\.": "image_encoder.neck.1.",
    r"^image_encoder\.neck\.conv2\.": "image_encoder.neck.2.",
    r"^image_encoder\.neck\.layer_norm2\.": "image_encoder.neck.3.",
    r"\.mask_embed\.conv1\.": ".mask_downscaling.0.",
    r"\.mask_embed\.layer_norm1\.": ".mask_downscaling.1.",
    r"\.mask_embed\.conv2\.": ".mask_downscaling.3.",
    r"\.mask_embed\.layer_norm2\.": ".mask_downscaling.4.",
    r"\.mask_embed\.conv3\.": ".mask_downscaling.6.",
    r"^prompt_encoder\.point_embed\.": "prompt_encoder.point_embeddings.",
    r"\.upscale_conv1\.": ".upscaling.0.",
    r"\.upscale_layer_norm\.": ".upscaling.1.",
    r"\.upscale_conv2\.": ".upscaling.3.",
    r"\.layer_norm_final_attn\.": ".norm_final_attn.",
    r"\.layer_norm(\d)\.": r".norm\1.",
    **AUTHORS_NAMES,
}


def join_points(state: State) -> State:
    """Returns `state` with the four embeddings of points in two weights: of points, and of a box's corners."""
    result = dict(state)
    keys = [f"prompt_encoder.point_embeddings.{number}.weight" for number in range(4)]
    for pair, name in ((keys[:2], "point_embed"), (keys[2:], "corner_embed")):
        if all(key in result for key in pair):
            result[f"prompt_encoder.{name}"] = torch.cat([result.pop(key) for key in pair])
    return result


def number_layers(state: State) -> State:
    """Returns `state` with the hub's `proj_in`, `layers.N`, `proj_out` numbered in one row."""
    result: State = {}
    middles: dict[str, int] = {}
    for key in state:
        if found := re.match(r"(.*)\.layers\.(\d+)\.(?:weight|bias)$", key):
            middles[found[1]] = max(middles.get(found[1], 0), int(found[2]) + 1)
    for key, value in state.items():
        found = re.match(r"(mask_decoder\.(?:mask_mlps\.\d+|iou_head))\.(proj_in|proj_out|layers\.(\d+))\.(\w+)$", key)
        if found:
            place = 0 if found[2] == "proj_in" else int(found[3]) + 1 if found[3] else middles.get(found[1], 0) + 1
            key = f"{found[1]}.layers.{place}.{found[4]}"
        result[key] = value
    return join_points(result)


FORMATS = (
    Format("authors", detect=r"^prompt_encoder\.pe_layer\.", rename=AUTHORS_NAMES, convert=join_points),
    Format("hub", detect=r"^vision_encoder\.neck\.layer_norm1\.", rename=HUB_NAMES, convert=number_layers),
)
