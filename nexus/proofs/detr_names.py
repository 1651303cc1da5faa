"""The names of the authors' files of DETR and RT-DETR, written from those in the files: the hub's, the other way."""

import torch

from nexus.core.formats import State


def detr_authors_names(state: State) -> State:
    """Returns transformers' weights in the spelling of DETR's authors."""
    renamed = {}
    kinds = {"encoder_attn": "multihead_attn", "self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2"}
    for key, value in state.items():
        match key.split("."):
            case ["model", "backbone", "model", *rest]:
                name = ["backbone.0.body", *rest]
            case ["model", ("encoder" | "decoder") as side, "layers", layer, *rest]:
                last = "norm2" if side == "encoder" else "norm3"
                names = kinds | {"final_layer_norm": last, "o_proj": "out_proj", "fc1": "linear1", "fc2": "linear2"}
                name = [
                    "transformer",
                    side,
                    "layers",
                    layer,
                    *(names.get(part, part) for part in rest if part != "mlp"),
                ]
            case ["model", "decoder", "layernorm", what]:
                name = ["transformer.decoder.norm", what]
            case ["model", "input_projection", what]:
                name = ["input_proj", what]
            case ["model", "query_position_embeddings", what]:
                name = ["query_embed", what]
            case ["class_labels_classifier", what]:
                name = ["class_embed", what]
            case ["bbox_predictor", *rest]:
                name = ["bbox_embed", *rest]
            case _:
                raise AssertionError(key)
        renamed[".".join(name)] = value
    for key in [key for key in renamed if ".q_proj." in key]:
        rows = torch.cat([renamed.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"])
        renamed[key.replace(".q_proj.", ".in_proj_")] = rows
    return renamed


def rtdetr_authors_names(state: State, version: int) -> State:
    """Returns transformers' weights in the spelling of RT-DETR's authors, whose second version names parts anew."""
    renamed = {}
    letters = {"0": "a", "1": "b", "2": "c"}
    parts = {"convolution": "conv", "normalization": "norm", "o_proj": "out_proj", "encoder_attn": "cross_attn"}
    parts |= {"self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2", "fc1": "linear1", "fc2": "linear2"}
    v1 = {"0": "0", "1": "1"} if version == 1 else {"0": "conv", "1": "norm"}
    output = v1 if version == 1 else {"0": "proj", "1": "norm"}
    for key, value in state.items():
        match key.removeprefix("model.").split("."):
            case ["backbone", "model", "embedder", "embedder", place, kind, what]:
                name = ["backbone.conv1", f"conv1_{int(place) + 1}", parts[kind], what]
            case ["backbone", "model", "encoder", "stages", s, "layers", n, "layer", place, kind, what]:
                name = ["backbone.res_layers", s, "blocks", n, f"branch2{letters[place]}", parts[kind], what]
            case ["backbone", "model", "encoder", "stages", s, "layers", n, "shortcut", "1", kind, what]:
                name = ["backbone.res_layers", s, "blocks", n, "short.conv", parts[kind], what]
            case ["backbone", "model", "encoder", "stages", s, "layers", n, "shortcut", kind, what]:
                name = ["backbone.res_layers", s, "blocks", n, "short", parts[kind], what]
            case ["encoder_input_proj", level, place, what]:
                name = ["encoder.input_proj", level, v1[place], what]
            case ["decoder_input_proj", level, place, what]:
                name = ["decoder.input_proj", level, {"0": "conv", "1": "norm"}[place], what]
            case ["encoder", "aifi", "0", "layers", "0", *rest]:
                names = parts | {"final_layer_norm": "norm2"}
                name = ["encoder.encoder.0.layers.0", *(names.get(part, part) for part in rest if part != "mlp")]
            case ["encoder", *rest]:
                name = ["encoder", *rest]
            case ["enc_output", place, what]:
                name = ["decoder.enc_output", output[place], what]
            case ["decoder", "layers", *rest]:
                if rest[-1] == "n_points_scale":
                    rest[-1] = "num_points_scale"
                names = parts | {"final_layer_norm": "norm3"}
                name = ["decoder.decoder.layers", *(names.get(part, part) for part in rest if part != "mlp")]
            case ["decoder", "class_embed", *rest]:
                name = ["decoder.dec_score_head", *rest]
            case ["decoder", "bbox_embed", *rest]:
                name = ["decoder.dec_bbox_head", *rest]
            case ["class_embed" | "bbox_embed", *_]:
                continue
            case ["decoder", *rest] | rest:
                name = ["decoder", *rest]
        renamed[".".join(name)] = value
    for key in [key for key in renamed if ".q_proj." in key]:
        rows = torch.cat([renamed.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"])
        renamed[key.replace(".q_proj.", ".in_proj_")] = rows
    return renamed
