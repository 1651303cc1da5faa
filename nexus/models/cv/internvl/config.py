"""The configuration of InternVL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nexus.core.config import Config
from nexus.layers import check_heads, check_image_size

QWEN25 = {
    "model_type": "qwen2",
    "vocab_size": 151674,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
"""Qwen2.5-0.5B with the tokens of InternVL 3, and an output layer of its own."""


@dataclass(frozen=True, kw_only=True)
class InternVLConfig(Config):
    """Defaults are InternVL3-1B.

    Attributes:
        image_size: Side in pixels of a tile.
        embed_dim: Width of InternViT's tokens.
        num_layers: Its blocks.
        num_heads: Of its attention.
        mlp_dim: Width inside its MLPs.
        norm: "layer" norms, or "rms" in the tower of 6 billion parameters.
        qkv_bias: Whether queries, keys and values have a bias.
        qk_norm: Whether queries and keys are normalized, all heads together.
        norm_eps: Of the norms.
        layer_scale: Of fresh weights that scale each branch per channel.
        drop_path_rate: Of the last block; rises linearly from 0 at the first.
        select_layer: The block whose tokens are shown to the language model, from the end: -1 is the last.
        shuffle: So many neighbours down and across become one token.
        shuffle_version: 2 keeps rows and columns; 1 leaves them swapped.
        language: Configuration of the language model, as transformers writes it, with its `model_type`.
        template: How a conversation is written; a key of `nexus.tasks.conversation.templates.TEMPLATES`.
        min_tiles: Least number of tiles that an image is cut into.
        max_tiles: Most.
        thumbnail: Whether the whole image is shown too where it is cut.
    """

    image_size: int = 448
    patch_size: int = 14
    in_channels: int = 3
    embed_dim: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_dim: int = 4096
    norm: Literal["layer", "rms"] = "layer"
    qkv_bias: bool = True
    qk_norm: bool = False
    norm_eps: float = 1e-6
    layer_scale: float = 0.1
    drop_path_rate: float = 0.0
    select_layer: int = -1
    shuffle: int = 2
    shuffle_version: Literal[1, 2] = 2
    language: Mapping[str, Any] = field(default_factory=lambda: QWEN25)
    template: str = "internvl2_5"
    min_tiles: int = 1
    max_tiles: int = 12
    thumbnail: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        check_heads(self.embed_dim, self.num_heads)
        if self.image_size // self.patch_size % self.shuffle:
            raise ValueError(
                f"image_size {self.image_size} has {self.image_size // self.patch_size} patches a side, which is no"
                f" multiple of shuffle {self.shuffle}."
            )
        if not -self.num_layers <= self.select_layer <= -1:
            raise ValueError(
                f"select_layer is {self.select_layer}; it counts the {self.num_layers} blocks from the end: -1 is the"
                " last."
            )
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(f"min_tiles is {self.min_tiles} and max_tiles {self.max_tiles}; 1 <= min <= max.")
        if "model_type" not in self.language or "hidden_size" not in self.language:
            raise ValueError(
                "language has no model_type or no hidden_size; it is a configuration of transformers, such as"
                " {'model_type': 'qwen2', 'hidden_size': 896, ...}."
            )

    @property
    def tokens_per_tile(self) -> int:
        """Tokens that a tile becomes."""
        return (self.image_size // self.patch_size // self.shuffle) ** 2
