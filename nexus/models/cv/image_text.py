"""What models of images and texts have in common: two towers that end in one space.

Dims: b images, t texts, c channels, h w pixels, n tokens of a text, e width of the shared space.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.layers import EncoderBlock, collect

HUB_TOWERS: Mapping[str, str | None] = {
    r"\.position_ids$": None,
    r"^vision_model\.": "visual.",
    r"^text_model\.": "text.",
    r"\.embeddings\.patch_embedding\.": ".patch_embed.proj.",
    r"\.embeddings\.position_embedding\.weight$": ".pos_embed",
    r"\.embeddings\.token_embedding\.": ".token_embed.",
    r"\.encoder\.layers\.": ".blocks.",
    r"\.self_attn\.([qkv])_proj\.": r".attn.\1.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.layer_norm(\d)\.": r".norm\1.",
    r"\.(post_layernorm|final_layer_norm)\.": ".norm.",
}
"""What transformers calls the weights of both towers, of CLIP and of SigLIP alike."""


class ImageTower(nn.Module, ABC):
    """The tower for images."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"], checkpointing: bool, keep: bool) -> list[Tensor]:
        """Returns the features before the first block and after each; without `keep` after the last alone."""

    @abstractmethod
    def project(self, features: Tensor) -> Float[Tensor, "b e"]:
        """Returns the place of each image in the shared space, of any length, for its last features."""

    @abstractmethod
    def attention_maps(self, features: Sequence[Tensor]) -> list[Float[Tensor, "b heads n n"]]:
        """Returns the attention weights of each block, for what `forward` kept."""


class TransformerTower(ImageTower):
    """A tower whose `blocks` read what `embed` makes of the images."""

    blocks: nn.ModuleList

    @abstractmethod
    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns the tokens that the first block reads."""

    def forward(self, images: Float[Tensor, "b c h w"], checkpointing: bool, keep: bool) -> list[Tensor]:
        """Returns the tokens before the first block and after each; without `keep` after the last alone."""
        tokens = self.embed(images)
        features = collect(self.blocks, tokens, checkpointing=checkpointing, keep=keep)
        return [tokens, *features] if keep else features

    def attention_maps(self, features: Sequence[Tensor]) -> list[Float[Tensor, "b heads n n"]]:
        blocks = [block for block in self.blocks if isinstance(block, EncoderBlock)]
        return [block.attention_maps(x) for block, x in zip(blocks, features)]


def check_ids(tokens: Tensor) -> None:
    """Raises ValueError unless `tokens` are ids of texts (t, n)."""
    if not isinstance(tokens, Tensor):
        raise ValueError(f"tokens are a {type(tokens).__name__}; the model takes a tensor of ids (texts, tokens).")
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; the model takes integer ids (texts, tokens), "
            "as its tokenizer makes them."
        )


def check_known(tokens: Tensor, vocab_size: int) -> None:
    """Raises ValueError unless `tokens` are ids of texts (t, n) that a model knows.

    It looks at the values, so it stands outside of what becomes a graph.
    """
    check_ids(tokens)
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise ValueError(
            f"tokens hold ids from {int(tokens.min())} to {int(tokens.max())}, and the model knows {vocab_size}, from"
            " 0: they are of the tokenizer of another model."
        )


class ImageTextModel(NexusModule, ABC):
    """Images and texts in one space. Members have the towers `visual` and `text`, and say how they compare.

    Attributes:
        largest_scale: Bound of `logit_scale.exp()` in training; None has none.
        lower_case: Whether texts are read in small letters.
        tokenizer: Repository of the hub with the tokenizer of every published model; empty where each has its own.
    """

    head_prefixes = ()
    task = "image-text"
    largest_scale: ClassVar[float | None] = None
    lower_case: ClassVar[bool] = False
    tokenizer: ClassVar[str] = ""
    visual: Any
    text: Any
    logit_scale: nn.Parameter

    @abstractmethod
    def compare(self, embeddings: Float[Tensor, "b e"], text_embeddings: Float[Tensor, "t e"]) -> Float[Tensor, "b t"]:
        """Returns logits: how well each text fits each image."""

    @abstractmethod
    def contrastive_loss(
        self, embeddings: Float[Tensor, "b e"], text_embeddings: Float[Tensor, "b e"]
    ) -> Float[Tensor, ""]:
        """Returns the loss of pairs: text i belongs to image i; over the pairs of all processes."""

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        tokens: Int[Tensor, "t n"],
        *,
        output_attentions: bool = False,
        output_features: bool = True,
        output_losses: bool = False,
    ) -> dict[str, Any]:
        """Compares normalized images with texts.

        Args:
            images: Of a size that the image tower takes.
            tokens: Ids from the model's tokenizer.
            output_attentions: Also return the image tower's attention maps.
            output_features: Return `features`; without them inference needs less memory.
            output_losses: Text i belongs to image i: return `losses`, over the pairs of all processes.

        Returns:
            `logits` (b, t); `embeddings` (b, e) of images and `text_embeddings` (t, e), of length 1; `features` of the
            image tower, tokens (b, n, d) or maps (b, d, h, w) after each block; on request `attentions` (b, heads, n,
            n) of each block, and `losses`.
        """
        kept = self.visual(images, self.checkpointing, output_features or output_attentions)
        embeddings = F.normalize(self.visual.project(kept[-1]), dim=-1)
        text_embeddings = self.encode_text(tokens)
        outputs: dict[str, Any] = {
            "logits": self.compare(embeddings, text_embeddings),
            "embeddings": embeddings,
            "text_embeddings": text_embeddings,
        }
        if output_features:
            outputs["features"] = kept[1:]
        if output_attentions:
            outputs["attentions"] = self.visual.attention_maps(kept)
        if output_losses:
            outputs["losses"] = {"contrastive": self.contrastive_loss(embeddings, text_embeddings)}
        return outputs

    def encode_image(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Returns the place of each image in the shared space, of length 1."""
        features = self.visual(images, self.checkpointing, False)
        return F.normalize(self.visual.project(features[-1]), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "t n"]) -> Float[Tensor, "t e"]:
        """Returns the place of each text in the shared space, of length 1."""
        return F.normalize(self.text(tokens, self.checkpointing), dim=-1)

    def part_specs(self) -> dict[str, PartSpec]:
        return {
            "image_encoder": PartSpec(_image_encoder, ("images",), ("visual",)),
            "text_encoder": PartSpec(_text_encoder, ("tokens",), ("text",)),
            "head": PartSpec(_head, ("embeddings", "text_embeddings"), ("logit_scale", "logit_bias")),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        tokens = torch.arange(3 * self.config.context_length).reshape(3, -1) % self.config.vocab_size
        return {**super().example_inputs(image_size), "tokens": tokens.to(self.logit_scale.device)}

    def free_dims(self) -> dict[str, dict[int, str]]:
        return {**super().free_dims(), "tokens": {0: "texts"}}


def _image_encoder(model: ImageTextModel, images: Tensor) -> Mapping[str, Tensor]:
    return {"embeddings": model.encode_image(images)}


def _text_encoder(model: ImageTextModel, tokens: Tensor) -> Mapping[str, Tensor]:
    return {"text_embeddings": model.encode_text(tokens)}


def _head(model: ImageTextModel, embeddings: Tensor, text_embeddings: Tensor) -> Mapping[str, Tensor]:
    return {"logits": model.compare(embeddings, text_embeddings)}
