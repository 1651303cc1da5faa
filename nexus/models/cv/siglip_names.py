"""The names of SigLIP's weights in the hub's files, in the authors' (big_vision), and in those of open_clip.

A file of big_vision holds flax arrays: kernels with the input first, and heads on an axis of their own. Where the
authors trained with a scan over the blocks, as in SigLIP 2, all blocks of a tower are one array. open_clip has timm's
tower of images, whose names are ours, beside a tower of texts of its own.
"""

import math
import re

from einops import rearrange

from nexus.core.formats import Format, State, join_keys
from nexus.models.cv.image_text import HUB_TOWERS


def _from_hub(state: State) -> State:
    """Positions get a leading axis, the probe's projections are parted, a NaFlex file's patches become a kernel."""
    converted: State = {}
    for key, value in state.items():
        if key.endswith("pos_embed"):
            value = value[None]
        elif key.endswith("patch_embed.proj.weight") and value.ndim == 2:
            side = math.isqrt(value.shape[1] // 3)
            value = rearrange(value, "d (p q c) -> d c p q", p=side, q=side).contiguous()
        if ".pool.qkv." in key:
            width = len(value) // 3
            converted[key.replace("qkv", "q")], converted[key.replace("qkv", "kv")] = value[:width], value[width:]
        else:
            converted[key] = value
    return join_keys(converted, ("attn.q", "attn.k", "attn.v"), "attn.qkv")


def _from_big_vision(state: State) -> State:
    """Turns flax arrays into torch's layout: dense kernels are transposed, heads become rows or columns."""
    converted: State = {}
    for key, value in _unstacked(state).items():
        if key.endswith("kernel"):
            key = key.removesuffix("kernel") + "weight"
            if value.ndim == 4:
                value = rearrange(value, "h w c d -> d c h w")
            elif value.ndim == 3 and ".proj." in key:
                value = rearrange(value, "heads e d -> d (heads e)")
            else:
                value = value.flatten(1).T  # (d, k), or (d, heads, e) for queries, keys and values
        elif re.search(r"\.[qkv]\.bias$", key):
            value = value.flatten()
        elif key in ("logit_scale", "logit_bias"):
            value = value.reshape(1)
        elif key == "text.pos_embed" and value.ndim == 2:
            value = value[None]
        converted[key] = value.contiguous()
    converted = join_keys(converted, ("pool.k", "pool.v"), "pool.kv")
    return join_keys(converted, ("attn.q", "attn.k", "attn.v"), "attn.qkv")


def _unstacked(state: State) -> State:
    """Cuts arrays that hold a weight of all blocks into one for each."""
    single: State = {}
    for key, value in state.items():
        if ".blocks.*." in key:
            single |= {key.replace("*", str(block)): part for block, part in enumerate(value)}
        else:
            single[key] = value
    return single


def _from_open_clip(state: State) -> State:
    """Scale and bias get an axis, the text's positions too."""
    one = {key: state[key].reshape(1) for key in ("logit_scale", "logit_bias") if key in state}
    positions = {"text.pos_embed": state["text.pos_embed"][None]} if "text.pos_embed" in state else {}
    return {**state, **one, **positions}


FORMATS = (
    Format(
        "hub",
        detect=r"^vision_model\.embeddings\.patch_embedding\.",
        rename={
            **HUB_TOWERS,
            r"^visual\.head\.attention\.in_proj_": "visual.pool.qkv.",
            r"^visual\.head\.attention\.out_proj\.": "visual.pool.proj.",
            r"^visual\.head\.layernorm\.": "visual.pool.norm.",
            r"^visual\.head\.": "visual.pool.",
        },
        convert=_from_hub,
    ),
    Format(
        "big_vision",
        detect=r"^(params/)?img/embedding/",
        rename={
            r"^params/": "",
            r"^t$": "logit_scale",
            r"^b$": "logit_bias",
            r"^img/embedding/": "visual/patch_embed/proj/",
            r"^img/pos_embedding$": "visual/pos_embed",
            r"^img/Transformer/": "visual/",
            r"^img/MAPHead_0/": "visual/pool/",
            r"^txt/Embed_0/embedding$": "text/token_embed/weight",
            r"^txt/pos_embedding$": "text/pos_embed",
            r"^txt/Encoder_0/": "text/",
            r"^txt/head/": "text/head/",
            r"/encoder_norm/": "/norm/",
            r"/encoderblock_(\d+)/": r"/blocks/\1/",
            r"/encoderblock/": "/blocks/*/",
            r"^visual/pool/MultiHeadDotProductAttention_0/out/": "visual/pool/proj/",
            r"^visual/pool/MultiHeadDotProductAttention_0/(q|k|v)(uery|ey|alue)/": r"visual/pool/\1/",
            r"^visual/pool/LayerNorm_0/": "visual/pool/norm/",
            r"/MultiHeadDotProductAttention_0/out/": "/attn/proj/",
            r"/MultiHeadDotProductAttention_0/(q|k|v)(uery|ey|alue)/": r"/attn/\1/",
            r"/LayerNorm_0/": "/norm1/",
            r"/LayerNorm_1/": "/norm2/",
            r"/MlpBlock_0/Dense_0/": "/mlp/fc1/",
            r"/MlpBlock_0/Dense_1/": "/mlp/fc2/",
            r"/scale$": "/weight",
            r"/": ".",
        },
        convert=_from_big_vision,
    ),
    Format(
        "open_clip",
        detect=r"^visual\.trunk\.patch_embed\.",
        rename={
            r"^visual\.trunk\.attn_pool\.latent$": "visual.pool.probe",
            r"^visual\.trunk\.attn_pool\.": "visual.pool.",
            r"^visual\.trunk\.": "visual.",
            r"^text\.token_embedding\.": "text.token_embed.",
            r"^text\.positional_embedding$": "text.pos_embed",
            r"^text\.transformer\.resblocks\.": "text.blocks.",
            r"^text\.ln_final\.": "text.norm.",
            r"^text\.text_projection\.": "text.head.",
            r"\.ln_(\d)\.": r".norm\1.",
            r"\.attn\.in_proj_": ".attn.qkv.",
            r"\.attn\.out_proj\.": ".attn.proj.",
            r"\.mlp\.c_fc\.": ".mlp.fc1.",
            r"\.mlp\.c_proj\.": ".mlp.fc2.",
        },
        convert=_from_open_clip,
    ),
)
