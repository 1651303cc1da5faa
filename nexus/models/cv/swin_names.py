"""The names of Swin's weights in the authors' files, timm's, torchvision's and the hub's."""

from nexus.core.formats import Format, join_keys

TABLE = "relative_position_bias_table"
_BUFFERS: dict[str, str | None] = {r"relative_position_index$": None, r"attn_mask$": None}
_MERGING_BEFORE = {  # others end a stage with patch merging; from the last stage to the first, so that each moves once
    rf"^layers\.{stage}\.downsample\.": f"layers.{stage + 1}.downsample." for stage in reversed(range(7))
}


FORMATS = (
    Format("authors", detect=r"^layers\.0\.downsample\.", rename={**_BUFFERS, **_MERGING_BEFORE}),
    Format("timm", detect=r"^head\.fc\.", rename={**_BUFFERS, r"^head\.fc\.": "head."}),
    Format(
        "torchvision",
        detect=r"^features\.0\.0\.",
        rename={
            **_BUFFERS,
            r"^features\.0\.0\.": "patch_embed.proj.",
            r"^features\.0\.2\.": "patch_embed.norm.",
            **{rf"^features\.{2 * stage + 1}\.": f"layers.{stage}.blocks." for stage in range(8)},
            **{rf"^features\.{2 * stage}\.": f"layers.{stage}.downsample." for stage in range(1, 8)},
            r"\.mlp\.0\.": ".mlp.fc1.",
            r"\.mlp\.3\.": ".mlp.fc2.",
        },
    ),
    Format(
        "hub",
        detect=r"^(swin\.)?embeddings\.patch_embeddings\.",
        rename={
            **_BUFFERS,
            r"^swin\.": "",
            r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
            r"^embeddings\.norm\.": "patch_embed.norm.",
            r"^encoder\.layers\.": "layers.",
            **_MERGING_BEFORE,
            r"\.attention\.self\.(q|k|v)(uery|ey|alue)\.": r".attn.\1.",
            r"\.attention\.(q|k|v)_proj\.": r".attn.\1.",
            r"\.attention\.(output\.dense|o_proj)\.": ".attn.proj.",
            rf"\.attention\.(self|relative_position_bias)\.{TABLE}$": f".attn.{TABLE}",
            r"\.intermediate\.dense\.": ".mlp.fc1.",
            r"\.output\.dense\.": ".mlp.fc2.",
            r"\.layernorm_before\.": ".norm1.",
            r"\.layernorm_after\.": ".norm2.",
            r"^layernorm\.": "norm.",
            r"^classifier\.": "head.",
        },
        convert=lambda state: join_keys(state, ("q", "k", "v"), "qkv"),
    ),
)
