"""Leaf layers that several papers share."""

from nexus.layers.attention import Attention
from nexus.layers.collect import collect
from nexus.layers.drop_path import DropPath, drop_path_rates
from nexus.layers.encoder_block import EncoderBlock, encoder_block
from nexus.layers.images import channels_last, check_heads, check_image_size, check_images, image_sides
from nexus.layers.layer_scale import LayerScale
from nexus.layers.mlp import Mlp
from nexus.layers.patch_embed import PatchEmbed
from nexus.layers.position_embedding import fit_positions, resample_position_embedding
from nexus.layers.rope import rotary_angles, rotate_pairs
from nexus.layers.swiglu import SwiGLU

__all__ = [
    "Attention",
    "DropPath",
    "EncoderBlock",
    "LayerScale",
    "Mlp",
    "PatchEmbed",
    "SwiGLU",
    "channels_last",
    "check_heads",
    "check_image_size",
    "check_images",
    "collect",
    "drop_path_rates",
    "encoder_block",
    "fit_positions",
    "image_sides",
    "resample_position_embedding",
    "rotary_angles",
    "rotate_pairs",
]
