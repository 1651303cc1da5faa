"""Vision transformer. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020. https://arxiv.org/abs/2010.11929

Parameters bear timm's names.
"""

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter
from mithril.models.convolution import Convolution2D
from mithril.models.linear import Linear
from mithril.models.normalization import LayerNorm
from mithril.models.transformer import FeedForward, SelfAttention, transformer_block


def vision_transformer(
    image_size: int = 224,
    patch_size: int = 16,
    embed_dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_ratio: float = 4.0,
    num_classes: int = 1000,
    name: str = "vision_transformer",
) -> Model:
    """A vision transformer that classifies by its class token; the defaults are ViT-B/16 (Table 1).

    Keys: `input` (n, c, image_size, image_size); `output` (n, num_classes).

    Raises:
        ValueError: image_size is no multiple of patch_size.
    """
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}.")
    model = Model(name=name)
    x = patches(IOKey("input"), patch_size, embed_dim, "patch_embed_proj", use_bias=True)
    x = with_class_token(x, parameter("cls_token", [1, 1, embed_dim]))
    x = x + parameter("pos_embed", [1, (image_size // patch_size) ** 2 + 1, embed_dim])
    for i in range(num_layers):
        attention = SelfAttention(embed_dim, num_heads, name="attn")
        mlp = FeedForward(embed_dim, int(embed_dim * mlp_ratio), op("gelu"), name="mlp")
        x = transformer_block(attention, mlp, name=f"blocks_{i}")(x)
    x = LayerNorm(1e-6, name="norm")(x)
    model |= Linear(num_classes, name="head")(x[:, 0], output=IOKey("output"))
    return model.set_cin("input")


def patches(images: Expression, patch_size: int, width: int, name: str, use_bias: bool) -> Expression:
    """Tokens of an image's patches, row by row: (n, c, h, w) to (n, q, width)."""
    conv = Convolution2D(width, patch_size, stride=patch_size, use_bias=use_bias, name=name)
    return conv(images).flatten(2).transpose(0, 2, 1)


def with_class_token(tokens: Expression, token: Expression) -> Expression:
    """A learned token, (d) or (1, 1, d), before those of each image."""
    return op("concat", axis=1)([token.broadcast_to(tokens.shape[0], 1, tokens.shape[2]), tokens])
