"""CLIP. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
https://arxiv.org/abs/2103.00020

Parameters bear the names of the published checkpoints.

Dims: n images, m texts, t tokens of a text, d joint width.
"""

from typing import Any

from mithril.logical.connection import Expression, IOKey
from mithril.logical.model import Model
from mithril.models.attention import join_heads, split_heads
from mithril.models.common import op, parameter
from mithril.models.convolution import Convolution2D
from mithril.models.linear import Embedding, Linear
from mithril.models.normalization import BatchNorm2D, LayerNorm
from mithril.models.transformer import FeedForward, QuickGelu, SelfAttention, transformer_block
from mithril.models.vision.vision_transformer import patches, with_class_token


def clip(
    embed_dim: int = 512,
    image_resolution: int = 224,
    vision_layers: int | tuple[int, int, int, int] = 12,
    vision_width: int = 768,
    vision_patch_size: int = 32,
    context_length: int = 77,
    vocab_size: int = 49408,
    transformer_width: int = 512,
    transformer_heads: int = 8,
    transformer_layers: int = 12,
    name: str = "clip",
) -> Model:
    """CLIP; the defaults are ViT-B/32. Four numbers of `vision_layers` make the image tower a ResNet.

    Keys: `image` (n, 3, h, w), `text` (m, context_length); `logits_per_image` (n, m) and `logits_per_text` (m, n);
    `image_features` (n, embed_dim) and `text_features` (m, embed_dim), of length 1.
    """
    model = Model(name=name)
    image = IOKey("image", shape=["N", 3, image_resolution, image_resolution])
    text = IOKey("text", type=int, shape=["M", context_length])
    if isinstance(vision_layers, int):
        settings = (image_resolution, vision_patch_size, vision_width, vision_layers, embed_dim)
        visual = clip_vision_transformer(*settings, name="visual")
    else:
        visual = modified_resnet(vision_layers, embed_dim, image_resolution, vision_width, name="visual")
    x = Embedding(vocab_size, transformer_width, name="token_embedding")(text)
    x = x + parameter("positional_embedding", [context_length, transformer_width])
    x = resblocks(transformer_width, transformer_layers, transformer_heads, True, "transformer")(x)
    x = LayerNorm(name="ln_final")(x)
    last = op("take_along_axis", axis=1)(x, text.argmax(axis=-1)[:, None, None].broadcast_to(-1, 1, transformer_width))
    words = last[:, 0] @ parameter("text_projection", [transformer_width, embed_dim])
    model |= op("buffer")(unit(visual(image)), output=IOKey("image_features"))
    model |= op("buffer")(unit(words), output=IOKey("text_features"))
    scale = parameter("logit_scale", []).exp()
    model |= op("buffer")(scale * (model.image_features @ model.text_features.T), output=IOKey("logits_per_image"))
    model |= op("buffer")(model.logits_per_image.T, output=IOKey("logits_per_text"))
    return model.set_cin("image")


def unit(x: Expression) -> Expression:
    """Vectors of length 1 in the same direction."""
    return x / op("norm", axis=-1, keepdims=True)(x)


def resblocks(width: int, num_layers: int, num_heads: int, is_causal: bool, name: str) -> Model:
    """A stack of transformer blocks, (n, t, width) to (n, t, width)."""
    stack = Model(name=name)
    for i in range(num_layers):
        attention = SelfAttention(width, num_heads, is_causal, ("in_proj", "out_proj"), name="attn")
        mlp = FeedForward(width, 4 * width, QuickGelu(), ("c_fc", "c_proj"), name="mlp")
        block = transformer_block(attention, mlp, ("ln_1", "ln_2"), 1e-5, name=f"resblocks_{i}")
        stack += block(input="input") if i == 0 else block
    return stack


def clip_vision_transformer(
    image_resolution: int, patch_size: int, width: int, num_layers: int, output_dim: int, name: str = "visual"
) -> Model:
    """The image tower of CLIP's transformers (Sec. 2.4): heads of width 64, a norm before the first block."""
    model = Model(name=name)
    x = patches(IOKey("input"), patch_size, width, "conv1", use_bias=False)
    x = with_class_token(x, parameter("class_embedding", [width]))
    x = x + parameter("positional_embedding", [(image_resolution // patch_size) ** 2 + 1, width])
    x = LayerNorm(name="ln_pre")(x)
    x = resblocks(width, num_layers, width // 64, False, "transformer")(x)
    x = LayerNorm(name="ln_post")(x[:, 0])
    model |= op("buffer")(x @ parameter("proj", [width, output_dim]), output=IOKey("output"))
    return model.set_cin("input")


def modified_resnet(
    layers: tuple[int, int, int, int], output_dim: int, image_resolution: int, width: int, name: str = "visual"
) -> Model:
    """The image tower of CLIP's ResNets: three convolutions first, pools for strides, attention last (Sec. 2.4)."""
    model = Model(name=name)
    for i, channels in enumerate((width // 2, width // 2, width), start=1):
        conv = Convolution2D(channels, 3, stride=2 if i == 1 else 1, padding=1, use_bias=False, name=f"conv{i}")
        model += conv(input="input") if i == 1 else conv
        model += BatchNorm2D(channels, name=f"bn{i}")
        model += op("relu")
    model += op("avg_pool2d", kernel_size=2)
    for stage, count in enumerate(layers):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            model += clip_bottleneck(width * 2**stage, stride, i == 0, name=f"layer{stage + 1}_{i}")
    places = (image_resolution // 32) ** 2
    model += attention_pool(places, 32 * width, width // 2, output_dim)(output=IOKey("output"))
    return model


def clip_bottleneck(width: int, stride: int, project: bool, name: str) -> Model:
    """A bottleneck whose convolutions have stride 1; an average pool takes the strides."""
    block = Model(name=name)
    for i, (channels, kernel) in enumerate(((width, 1), (width, 3), (4 * width, 1)), start=1):
        if i == 3 and stride > 1:
            block += op("avg_pool2d", kernel_size=stride)
        conv = Convolution2D(channels, kernel, padding=kernel // 2, use_bias=False, name=f"conv{i}")
        block += conv(input="input") if i == 1 else conv
        block += BatchNorm2D(channels, name=f"bn{i}")
        if i < 3:
            block += op("relu")
    shortcut: Any = block.input
    if project:
        pooled = op("avg_pool2d", kernel_size=stride)(shortcut) if stride > 1 else shortcut
        shortcut = Convolution2D(4 * width, 1, use_bias=False, name="downsample_0")(pooled)
        shortcut = BatchNorm2D(4 * width, name="downsample_1")(shortcut)
    block |= op("add")(left=block.cout, right=shortcut)
    block += op("relu")(output=IOKey("output"))
    return block


def attention_pool(places: int, width: int, num_heads: int, output_dim: int) -> Model:
    """The mean of a map (n, width, h, w) attends to it: (n, output_dim)."""
    model = Model(name="attnpool")
    x = IOKey("input").flatten(2).transpose(0, 2, 1)
    x = op("concat", axis=1)([x.mean(axis=1, keepdims=True), x])
    x = x + parameter("positional_embedding", [places + 1, width])
    query, key, value = (
        split_heads(Linear(width, name=f"{role}_proj")(tokens), num_heads)
        for role, tokens in (("q", x[:, :1]), ("k", x), ("v", x))
    )
    mixed = join_heads(op("scaled_dot_product_attention")(query=query, key=key, value=value))
    model |= Linear(output_dim, name="c_proj")(mixed[:, 0], output=IOKey("output"))
    return model.set_cin("input")
