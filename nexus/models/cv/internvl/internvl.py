"""InternVL 2, 2.5, 3 and 3.5: images, and a conversation about them.

Chen et al., "Expanding Performance Boundaries of Open-Source Multimodal Models" (2.5), 2024,
https://arxiv.org/abs/2412.05271; Zhu et al., "InternVL3", 2025, https://arxiv.org/abs/2504.10479.

Tiles of images become tokens (InternViT, pixel shuffle, projector) that stand among the words a language model reads.

Dims: b texts, i tiles, c channels, h w pixels, n tokens of a text, m tokens of a tile, d width, v words known.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.layers import check_images, fit_positions, resample_position_embedding
from nexus.models.cv.image_text import check_known
from nexus.models.cv.internvl.config import InternVLConfig
from nexus.models.cv.internvl.language import build_language
from nexus.models.cv.internvl.names import FORMATS, config_from_hub
from nexus.models.cv.internvl.vision import InternViT, Projector, pixel_shuffle

IGNORED = -100
"""A label of a token that is not to be learnt."""


class InternVL(NexusModule):
    """Answers questions about images. `config` is an `InternVLConfig` or a mapping of its fields."""

    config: InternVLConfig
    head_prefixes = ()
    hub_types = ("internvl_chat", "internvl")
    task = "conversation"

    def __init__(self, config: InternVLConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        self.visual = InternViT(self.config)
        self.projector = Projector(self.config)
        self.language: Any = build_language(self.config.language)

    def forward(
        self,
        images: Float[Tensor, "i c h w"] | None,
        tokens: Int[Tensor, "b n"],
        places: Bool[Tensor, "b n"] | None = None,
        *,
        attention_mask: Int[Tensor, "b n"] | None = None,
        labels: Int[Tensor, "b n"] | None = None,
    ) -> dict[str, Any]:
        """Reads texts with images among them.

        Args:
            images: Tiles of all images, normalized, in the order of their places in the texts; None without any.
            tokens: Ids of the texts.
            places: Where tokens of tiles stand instead of words.
            attention_mask: 0 where a shorter text is filled up.
            labels: Ids that the texts should have; `IGNORED` where nothing is to be learnt.

        Returns:
            `logits` (b, n, v) of the next word after each; with `labels` `losses`, the mean cross-entropy.

        Raises:
            ValueError: The tiles' tokens and their places differ in number.
        """
        embedded = self.embed(images, tokens, places)
        mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
        logits = self.language(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        outputs: dict[str, Any] = {"logits": logits}
        if labels is not None:
            outputs["losses"] = {"language": next_word_loss(logits, labels)}
        return outputs

    def embed(
        self, images: Float[Tensor, "i c h w"] | None, tokens: Int[Tensor, "b n"], places: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n d"]:
        """Returns what the language model reads: words, and tokens of tiles at their places."""
        check_known(tokens, self.language.get_input_embeddings().num_embeddings)
        if places is not None and places.shape != tokens.shape:
            raise ValueError(f"places are {tuple(places.shape)} and tokens {tuple(tokens.shape)}; they must be one.")
        words = self.language.get_input_embeddings()(tokens)
        wanted = 0 if places is None else int(places.sum())
        seen = None if images is None else self.encode_image(images).flatten(0, 1)
        given = 0 if seen is None else len(seen)
        if wanted != given:
            per_tile = self.config.tokens_per_tile
            raise ValueError(
                f"The texts have {wanted} places for tokens of images, and the images give {given}: a tile needs"
                f" {per_tile}. Write a place for each image, and show an image for each place."
            )
        if seen is None or places is None:
            return words
        return words.masked_scatter(places[..., None].expand_as(words), seen.to(words.dtype))

    def encode_image(self, images: Float[Tensor, "i c h w"]) -> Float[Tensor, "i m d"]:
        """Returns the tokens of tiles that the language model reads."""
        check_images(images, self.config.in_channels)
        tokens = self.visual(images, self.checkpointing)[self.config.select_layer]
        rows, columns = self.visual.patch_embed.grid(images.shape[-2:])
        side = self.config.shuffle
        if rows % side or columns % side:
            raise ValueError(f"An image has {rows} x {columns} patches; both must be multiples of {side}.")
        maps = tokens[:, 1:].unflatten(1, (rows, columns))
        return self.projector(pixel_shuffle(maps, side, self.config.shuffle_version).flatten(1, 2))

    @torch.no_grad()
    def generate(
        self,
        images: Float[Tensor, "i c h w"] | None,
        tokens: Int[Tensor, "b n"],
        places: Bool[Tensor, "b n"] | None = None,
        *,
        attention_mask: Int[Tensor, "b n"] | None = None,
        max_new_tokens: int = 1024,
        stop: int | list[int] | None = None,
        pad: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        streamer: Any = None,
    ) -> Int[Tensor, "b _"]:
        """Writes on, and returns the ids of the new words alone.

        Args:
            images: See `forward`.
            tokens: Shorter texts are filled up on the left.
            places: See `forward`.
            attention_mask: 0 where a text is filled up.
            max_new_tokens: Most words that are written.
            stop: Ids that end a text.
            pad: Id that fills up texts that ended; None is the first of `stop`.
            temperature: 0 always takes the likeliest word; above 0 words are drawn.
            top_p: Of drawn words, those that have this share of the chance together.
            streamer: Is given words as they come; see transformers.
        """
        ends = [stop] if isinstance(stop, int) else list(stop or [])
        drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
        return self.language.generate(
            inputs_embeds=self.embed(images, tokens, places),
            attention_mask=torch.ones_like(tokens) if attention_mask is None else attention_mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=pad if pad is not None else next(iter(ends), 0),
            streamer=streamer,
            **{"do_sample": False, **drawn},
        )

    def fit_state(self, state: State) -> State:
        """Resamples positions from another tile size, and gives the output layer its weights where it shares them."""
        resample = partial(resample_position_embedding, num_prefix=1, antialias=False)
        positions = fit_positions(state, "visual.pos_embed", self.visual.grid, resample, num_prefix=1)
        shared, head = "language.model.embed_tokens.weight", "language.lm_head.weight"
        if self.language.config.tie_word_embeddings and head not in positions and shared in positions:
            positions[head] = positions[shared]
        return positions

    def part_specs(self) -> dict[str, PartSpec]:
        return {
            "image_encoder": PartSpec(_encode, ("images",), ("visual", "projector")),
            "language_model": PartSpec(_read, ("embeddings", "tokens"), ("language",)),
        }

    def free_dims(self) -> dict[str, dict[int, str]]:
        """Raises ValueError: there is no graph of a model that writes word after word."""
        raise ValueError(
            "An InternVL cannot be exported as a whole: it writes word after word, and remembers those before. Its"
            " stages are modules of their own, model.parts(); the image encoder has a graph."
        )

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"][:1]
        rows, columns = self.visual.patch_embed.grid(images.shape[-2:])
        count = rows * columns // self.config.shuffle**2
        tokens = torch.arange(2 + count, device=images.device)[None] % self.config.language["vocab_size"]
        places = torch.zeros_like(tokens, dtype=torch.bool)
        places[:, 1 : 1 + count] = True
        return {"images": images, "tokens": tokens, "places": places}

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> InternVLConfig:
        return config_from_hub(mapping)


InternVL.formats = FORMATS


def next_word_loss(logits: Float[Tensor, "b n v"], labels: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy of each word that follows; `IGNORED` labels do not count."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)


def _encode(model: InternVL, images: Tensor) -> Mapping[str, Tensor]:
    return {"embeddings": model.encode_image(images)}


def _read(model: InternVL, embeddings: Tensor, tokens: Tensor) -> Mapping[str, Tensor]:
    words = model.language.get_input_embeddings()(tokens)
    count = embeddings.shape[1]
    embedded = torch.cat([words[:, :1], embeddings, words[:, 1 + count :]], dim=1)
    mask = torch.ones_like(tokens)
    return {"logits": model.language(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits}


def _qwen(kind: str, width: int, layers: int, heads: int, groups: int, inner: int) -> dict[str, Any]:
    """Returns the configuration of a Qwen2.5 or Qwen3, as the releases have it."""
    settings: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": 151674 if kind == "qwen2" else 151936,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 32768 if kind == "qwen2" else 40960,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    }
    return settings | ({"head_dim": 128} if kind == "qwen3" else {})


_QWEN25 = {
    "1b": _qwen("qwen2", 896, 24, 14, 2, 4864),
    "2b": _qwen("qwen2", 1536, 28, 12, 2, 8960),
    "4b": _qwen("qwen2", 2048, 36, 16, 2, 11008),
    "8b": _qwen("qwen2", 3584, 28, 28, 4, 18944),
    "14b": _qwen("qwen2", 5120, 48, 40, 8, 13824),
}
_QWEN3 = {
    "1b": _qwen("qwen3", 1024, 28, 16, 8, 3072),
    "2b": _qwen("qwen3", 2048, 28, 16, 8, 6144),
    "4b": _qwen("qwen3", 2560, 36, 32, 8, 9728),
    "8b": _qwen("qwen3", 4096, 36, 32, 8, 12288),
    "14b": _qwen("qwen3", 5120, 40, 40, 8, 17408),
}
VARIANTS = {
    "internvl2_5_1b": InternVLConfig(language=_QWEN25["1b"]),
    "internvl2_5_4b": InternVLConfig(language=_QWEN25["4b"]),
    **{f"internvl3_{size}": InternVLConfig(language=_QWEN25[size]) for size in ("1b", "2b", "8b", "14b")},
    **{f"internvl3_5_{size}": InternVLConfig(language=language) for size, language in _QWEN3.items()},
}
