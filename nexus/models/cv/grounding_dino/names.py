"""The names that the authors and transformers give to Grounding DINO's weights."""

from functools import partial

from nexus.core.formats import Format, State
from nexus.models.cv.detr import split_projections
from nexus.models.cv.swin_names import FORMATS as SWIN_FORMATS

BODY = "backbone."
BERT = r"^(text_encoder\.blocks\.\d+)"
BERT_NAMES: dict[str, str | None] = {
    r"^bert\.pooler\.": None,
    r"^bert\.embeddings\.position_ids$": None,
    r"^bert\.embeddings\.word_embeddings\.": "text_encoder.token_embed.",
    r"^bert\.embeddings\.position_embeddings\.": "text_encoder.pos_embed.",
    r"^bert\.embeddings\.token_type_embeddings\.": "text_encoder.type_embed.",
    r"^bert\.embeddings\.LayerNorm\.": "text_encoder.norm.",
    r"^bert\.encoder\.layer\.": "text_encoder.blocks.",
    rf"{BERT}\.attention\.self\.(q|k|v)(uery|ey|alue)\.": r"\1.self_attn.\2_proj.",
    rf"{BERT}\.attention\.output\.dense\.": r"\1.self_attn.o_proj.",
    rf"{BERT}\.attention\.output\.LayerNorm\.": r"\1.norm1.",
    rf"{BERT}\.intermediate\.dense\.": r"\1.mlp.fc1.",
    rf"{BERT}\.output\.dense\.": r"\1.mlp.fc2.",
    rf"{BERT}\.output\.LayerNorm\.": r"\1.norm2.",
}
AUTHORS_NAMES: dict[str, str | None] = {
    r"^module\.": "",
    r"^transformer\.decoder\.bbox_embed\.": None,  # one head, written once for each layer and once more
    r"^bbox_embed\.[1-9]\d*\.": None,
    r"^bbox_embed\.0\.": "decoder.bbox_embed.",
    **BERT_NAMES,
    r"^feat_map\.": "text_proj.",
    **{rf"^backbone\.0\.norm{stage}\.": f"norms.{stage - 1}." for stage in (1, 2, 3)},
    r"^backbone\.0\.": BODY,
    r"^transformer\.level_embed$": "level_embed",
    r"^transformer\.tgt_embed\.": "selection.content.",
    r"^transformer\.enc_output\.": "selection.proj.",
    r"^transformer\.enc_output_norm\.": "selection.norm.",
    r"^transformer\.enc_out_bbox_embed\.": "selection.bbox_embed.",
    r"^transformer\.encoder\.layers\.(\d+)\.": r"enhancer.\1.image_block.",
    r"^transformer\.encoder\.text_layers\.(\d+)\.": r"enhancer.\1.text_block.",
    r"^transformer\.encoder\.fusion_layers\.(\d+)\.(attn\.)?": r"enhancer.\1.fusion.",
    r"\.fusion\.layer_norm_v\.": ".fusion.image_norm.",
    r"\.fusion\.layer_norm_l\.": ".fusion.text_norm.",
    r"\.fusion\.v_proj\.": ".fusion.image_proj.",
    r"\.fusion\.l_proj\.": ".fusion.text_proj.",
    r"\.fusion\.values_v_proj\.": ".fusion.image_value.",
    r"\.fusion\.values_l_proj\.": ".fusion.text_value.",
    r"\.fusion\.out_v_proj\.": ".fusion.image_out.",
    r"\.fusion\.out_l_proj\.": ".fusion.text_out.",
    r"\.fusion\.gamma_v$": ".fusion.image_scale",
    r"\.fusion\.gamma_l$": ".fusion.text_scale",
    r"^transformer\.decoder\.": "decoder.",
    r"^decoder\.ref_point_head\.": "decoder.query_pos_head.",
    r"^(decoder\.layers\.\d+)\.norm3\.": r"\1.norm4.",
    r"^(decoder\.layers\.\d+)\.norm1\.": r"\1.norm3.",
    r"^(decoder\.layers\.\d+)\.norm2\.": r"\1.norm1.",
    r"^(decoder\.layers\.\d+)\.catext_norm\.": r"\1.norm2.",
    r"\.ca_text\.": ".text_attn.",
    r"\.out_proj\.": ".o_proj.",
    r"\.linear([12])\.": r".mlp.fc\1.",
}
HUB_BODY = r"^model\.backbone\.(conv_encoder\.)?model\."
HUB_NAMES: dict[str, str | None] = {
    r"^model\.decoder\.bbox_embed\.": None,
    r"^bbox_embed\.[1-9]\d*\.": None,
    r"^bbox_embed\.0\.": "decoder.bbox_embed.",
    **{rf"{HUB_BODY}hidden_states_norms\.stage{stage + 2}\.": f"norms.{stage}." for stage in range(3)},
    rf"{HUB_BODY}(swin\.)?layernorm\.": None,  # nothing reads it
    HUB_BODY: BODY,
    r"^model\.text_backbone\.": "bert.",
    **BERT_NAMES,
    r"^model\.text_projection\.": "text_proj.",
    r"^model\.input_proj_vision\.": "input_proj.",
    r"^model\.level_embed$": "level_embed",
    r"^model\.query_position_embeddings\.": "selection.content.",
    r"^model\.enc_output\.": "selection.proj.",
    r"^model\.enc_output_norm\.": "selection.norm.",
    r"^model\.encoder_output_bbox_embed\.": "selection.bbox_embed.",
    r"^model\.encoder\.layers\.": "enhancer.",
    r"^(enhancer\.\d+)\.deformable_layer\.": r"\1.image_block.",
    r"\.image_block\.final_layer_norm\.": ".image_block.norm2.",
    r"^(enhancer\.\d+)\.text_enhancer_layer\.": r"\1.text_block.",
    r"\.text_block\.layer_norm_before\.": ".text_block.norm1.",
    r"\.text_block\.layer_norm_after\.": ".text_block.norm2.",
    r"^(enhancer\.\d+)\.fusion_layer\.(attn\.)?": r"\1.fusion.",
    r"\.fusion\.layer_norm_vision\.": ".fusion.image_norm.",
    r"\.fusion\.layer_norm_text\.": ".fusion.text_norm.",
    r"\.fusion\.vision_proj\.": ".fusion.image_proj.",
    r"\.fusion\.values_vision_proj\.": ".fusion.image_value.",
    r"\.fusion\.values_text_proj\.": ".fusion.text_value.",
    r"\.fusion\.out_vision_proj\.": ".fusion.image_out.",
    r"\.fusion\.out_text_proj\.": ".fusion.text_out.",
    r"\.fusion\.vision_param$": ".fusion.image_scale",
    r"\.fusion\.text_param$": ".fusion.text_scale",
    r"^model\.decoder\.": "decoder.",
    r"^decoder\.layer_norm\.": "decoder.norm.",
    r"^decoder\.reference_points_head\.": "decoder.query_pos_head.",
    r"\.self_attn_layer_norm\.": ".norm1.",
    r"\.encoder_attn_text_layer_norm\.": ".norm2.",
    r"\.encoder_attn_layer_norm\.": ".norm3.",
    r"^(decoder\.layers\.\d+)\.final_layer_norm\.": r"\1.norm4.",
    r"\.encoder_attn_text\.": ".text_attn.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"^((?:enhancer|decoder)\..*_attn)\.(q|k|v)(uery|ey|alue)\.": r"\1.\2_proj.",
    r"\.out_proj\.": ".o_proj.",
    r"^((?:enhancer|decoder)\..*\d|.*_block)\.fc([12])\.": r"\1.mlp.fc\2.",
}


def name_swin(state: State, spelling: str) -> State:
    """Returns `state`, where the weights of the backbone, a Swin, have our names, too."""
    swin = next(one for one in SWIN_FORMATS if one.name == spelling)
    body = {key.removeprefix(BODY): value for key, value in state.items() if key.startswith(BODY)}
    rest = {key: value for key, value in state.items() if not key.startswith(BODY)}
    return {**rest, **{f"{BODY}{key}": value for key, value in swin.to_ours(body).items()}}


def _from_authors(state: State) -> State:
    return name_swin(split_projections(state), "authors")


FORMATS = (
    Format(
        "authors",
        detect=r"^(module\.)?transformer\.encoder\.fusion_layers\.",
        rename=AUTHORS_NAMES,
        convert=_from_authors,
    ),
    Format(
        "hub",
        detect=r"^model\.encoder\.layers\.0\.fusion_layer\.",
        rename=HUB_NAMES,
        convert=partial(name_swin, spelling="hub"),
    ),
)
