"""The names of CLIP's weights in the authors' files and in the hub's."""

from nexus.core.formats import Format, State, join_keys
from nexus.models.cv.image_text import HUB_TOWERS


def _from_openai(state: State) -> State:
    """Projections become the weights of linear layers, positions and the class token get their leading axes."""
    converted = dict(_with_axes(state))
    for key in ("visual.head.weight", "text.head.weight"):
        if key in converted:
            converted[key] = converted[key].T.contiguous()
    return join_keys(converted, ("attnpool.k", "attnpool.v"), "attnpool.kv")


def join_hub(state: State) -> State:
    """Returns weights renamed from the hub with q, k and v joined, and positions with their leading axes."""
    return join_keys(_with_axes(state), ("q", "k", "v"), "qkv")


def _with_axes(state: State) -> State:
    leading = {"pos_embed": (None,), "cls_token": (None, None)}
    return {key: value[leading.get(key.rpartition(".")[2], ...)] for key, value in state.items()}


_TRANSFORMER = {
    r"\.resblocks\.": ".blocks.",
    r"\.ln_(\d)\.": r".norm\1.",
    r"\.attn\.in_proj_": ".attn.qkv.",
    r"\.attn\.out_proj\.": ".attn.proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}
_OPENAI = {
    r"^(input_resolution|context_length|vocab_size)$": None,
    r"attn_mask$": None,
    r"^token_embedding\.": "text.token_embed.",
    r"^positional_embedding$": "text.pos_embed",
    r"^transformer\.": "text.",
    r"^ln_final\.": "text.norm.",
    r"^text_projection$": "text.head.weight",
    **_TRANSFORMER,
}

FORMATS = (
    Format(
        "openai",
        detect=r"^visual\.class_embedding$",
        rename={
            r"^visual\.transformer\.": "visual.",
            r"^visual\.class_embedding$": "visual.cls_token",
            r"^visual\.positional_embedding$": "visual.pos_embed",
            r"^visual\.conv1\.": "visual.patch_embed.proj.",
            r"^visual\.ln_pre\.": "visual.norm_pre.",
            r"^visual\.ln_post\.": "visual.norm.",
            r"^visual\.proj$": "visual.head.weight",
            **_OPENAI,
        },
        convert=_from_openai,
    ),
    Format(
        "openai-resnet",
        detect=r"^visual\.attnpool\.positional_embedding$",
        rename={
            r"\.downsample\.1\.": ".downsample.2.",
            r"\.downsample\.0\.": ".downsample.1.",
            r"^visual\.attnpool\.positional_embedding$": "visual.attnpool.pos_embed",
            r"^visual\.attnpool\.([qkv])_proj\.": r"visual.attnpool.\1.",
            r"^visual\.attnpool\.c_proj\.": "visual.attnpool.proj.",
            **_OPENAI,
        },
        convert=_from_openai,
    ),
    Format(
        "hub",
        detect=r"^vision_model\.embeddings\.class_embedding$",
        rename={
            **HUB_TOWERS,
            r"\.embeddings\.class_embedding$": ".cls_token",
            r"\.pre_layrnorm\.": ".norm_pre.",
            r"^visual_projection\.": "visual.head.",
            r"^text_projection\.": "text.head.",
        },
        convert=join_hub,
    ),
)
