"""The model: images and captions in, boxes with the words that they answer to out.

Dims: b images, c channels, t captions, n tokens, d width, q queries, k classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.layers import channels_last
from nexus.layers.channel_norm import ChannelNorm
from nexus.layers.detector_input import Size, Target, check_targets, pad_images, sizes_tensor
from nexus.layers.sine_positions import sine_positions, sine_waves
from nexus.models.cv.detr import seen_places
from nexus.models.cv.grounding_dino.bert import Bert
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig
from nexus.models.cv.grounding_dino.decoder import Decoder
from nexus.models.cv.grounding_dino.feature_enhancer import EnhancerLayer, Surroundings
from nexus.models.cv.grounding_dino.hub import config_from_hub
from nexus.models.cv.grounding_dino.losses import Spans, grounding_losses
from nexus.models.cv.grounding_dino.names import FORMATS
from nexus.models.cv.grounding_dino.phrases import class_chances, divide, phrase_spans
from nexus.models.cv.grounding_dino.query_selection import QuerySelection, centres, token_logits
from nexus.models.cv.image_text import check_ids
from nexus.models.cv.rcnn.pyramid import backbone_maps, make_backbone
from nexus.models.features import drop_unread
from nexus.ops.set_prediction import pixel_boxes, relative_objects

LARGEST_LABEL = 1 << 31
"""Above that of any class."""
PATCH = 4
"""Pixels of the side of a Swin's patches."""
IMAGE_TEMPERATURE = 20
"""Of the waves that tell where a place is in its map."""


class Text(NamedTuple):
    """Captions as the images are compared with them; made once, used for any number of images.

    Attributes:
        tokens: Their ids.
        features: Of each token, before any image is seen.
        words: Which tokens are no padding.
        together: Which tokens see each other.
        places: Of each token in its phrase.
    """

    tokens: Int[Tensor, "t n"]
    features: Float[Tensor, "t n d"]
    words: Bool[Tensor, "t n"]
    together: Bool[Tensor, "t n n"]
    places: Int[Tensor, "t n"]


class Levels(NamedTuple):
    """The maps of an image, of all levels one after the other.

    Attributes:
        image: Places row by row, level by level.
        position: Of the places, as waves.
        sizes: (height, width) of each level.
        seen: Where the levels show an image.
        extents: Columns and rows of each level that show the image, as a share of it.
        features: The backbone's maps.
        canvas: (height, width) of the padded batch in pixels.
    """

    image: Float[Tensor, "b m d"]
    position: Float[Tensor, "b m d"]
    sizes: list[tuple[int, int]]
    seen: Bool[Tensor, "b m"]
    extents: Float[Tensor, "b l 2"]
    features: Sequence[Tensor] = ()
    canvas: Size = (0, 0)


class GroundingDINO(NexusModule):
    """Detector of whatever words name. `config` is a `GroundingDINOConfig` or a mapping of its fields.

    Images may have any size; a caption is a row of ids, as BERT's tokenizer makes them of "cat. red car.".
    """

    config: GroundingDINOConfig
    task = "open-vocabulary-detection"
    head_prefixes = ()
    formats = FORMATS
    hub_types = ("grounding-dino",)

    def __init__(self, config: GroundingDINOConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width = config.embed_dim
        maps = backbone_maps(config.body, config.in_channels)
        if maps.tokens:
            raise ValueError(f"backbone {config.backbone} gives tokens; Grounding DINO reads maps, as swin_* gives.")
        self.map_index, dims = maps.index[1:], maps.dims[1:]
        self.backbone: Any = make_backbone(config.body, config.in_channels)
        drop_unread(self.backbone, self.map_index)
        self.norms = nn.ModuleList([ChannelNorm(dim, eps=1e-5) for dim in dims])
        halved = [dims[-1], *[width] * config.num_levels][: config.num_levels - len(dims)]
        self.input_proj = nn.ModuleList(
            [
                *[nn.Sequential(nn.Conv2d(dim, width, 1), nn.GroupNorm(32, width)) for dim in dims],
                *[
                    nn.Sequential(nn.Conv2d(dim, width, 3, stride=2, padding=1), nn.GroupNorm(32, width))
                    for dim in halved
                ],
            ]
        )
        self.level_embed = nn.Parameter(torch.randn(config.num_levels, width))
        self.text_encoder = Bert(config)
        self.text_proj = nn.Linear(config.text_dim, width)
        self.enhancer = nn.ModuleList([EnhancerLayer(config) for _ in range(config.num_layers[0])])
        self.selection = QuerySelection(config)
        self.decoder = Decoder(config)
        self._init_weights()

    def forward(
        self,
        images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _ _"]],
        text: Int[Tensor, "t n"] | Text,
        targets: Sequence[Target] | None = None,
        *,
        spans: Spans | Bool[Tensor, "k n"] | None = None,
        image_sizes: Sequence[Size] | None = None,
    ) -> dict[str, Any]:
        """Finds what captions name in images as the model's preprocessing makes them.

        Args:
            images: A batch, or a list of images of different sizes, which are padded with zeros to one.
            text: Ids of a caption for each image, or of one for all; or what `encode_text` made of them.
            targets: For each image `boxes` (n, 4), xyxy in pixels of that image, and `labels` (n,), rows of `spans`.
            spans: Which tokens each class consists of, for each image, or for all; None: the caption's phrases are
                the classes, in their order.
            image_sizes: (height, width) of images in a batch that is padded below and to the right.

        Returns:
            `boxes` (n, 4), xyxy in pixels, `scores` (n,) and `labels` (n,), rows of `spans`: lists with one entry per
            image, best first; a query may occur with several labels. `pred_logits` (b, q, n), how well each query fits
            each token, `pred_boxes` (b, q, 4), cxcywh from 0 to 1 across the padded batch; `embeddings` (b, q, d);
            `features`, the backbone's maps. With `targets` also `losses`, a dict of scalars; in training mode then
            neither boxes nor scores nor labels.

        Raises:
            ValueError: Images, captions or targets do not fit the model, or each other.
        """
        batch, sizes = pad_images(images, self.config.in_channels, image_sizes=image_sizes, multiple_of=1)
        text = self.encode_text(text) if isinstance(text, Tensor) else text
        text, spans = self._for_images(text, spans, len(batch))
        if targets is not None:
            check_labels(targets, spans)
        levels = self.encode_image(batch, sizes)
        outputs = self._answer(levels, text)
        logits, boxes = outputs.pop("logits"), outputs.pop("boxes")
        found: dict[str, Any] = {"pred_logits": logits[-1], "pred_boxes": boxes[-1], **outputs}
        found["features"] = levels.features
        if targets is not None:
            numbered = {f"_{place}": pair for place, pair in enumerate(zip(logits[:-1], boxes[:-1]))}
            first = found["encoder_logits"], found["encoder_boxes"]
            layers = {"": (logits[-1], boxes[-1]), **numbered, "_encoder": first}
            objects = relative_objects(targets, [levels.canvas] * len(sizes))
            found["losses"] = grounding_losses(layers, objects, spans, text.words, self.config)
        if targets is None or not self.training:
            found |= best_classes(logits[-1], boxes[-1], spans, levels.canvas, self.config.num_detections)
        return found

    def encode_image(self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size]) -> Levels:
        """Returns images as captions are compared with them, which they can be again and again (`find`).

        Args:
            batch: Padded below and to the right.
            sizes: (height, width) of each image in it.
        """
        features = self._maps(batch)
        levels = self._levels(*self._project(batch, sizes_tensor(sizes, batch), features))
        return levels._replace(features=features, canvas=(batch.shape[-2], batch.shape[-1]))

    def find(self, levels: Levels, text: Text, spans: Spans | Bool[Tensor, "k n"] | None = None) -> dict[str, Any]:
        """Returns what `forward` gives for encoded images and text, without `features`."""
        text, spans = self._for_images(text, spans, len(levels.image))
        outputs = self._answer(levels, text)
        logits, boxes = outputs["logits"][-1], outputs["boxes"][-1]
        found = best_classes(logits, boxes, spans, levels.canvas, self.config.num_detections)
        return {"pred_logits": logits, "pred_boxes": boxes, "embeddings": outputs["embeddings"], **found}

    def encode_text(self, tokens: Int[Tensor, "t n"]) -> Text:
        """Returns captions as images are compared with them.

        Raises:
            ValueError: These are no ids of the model's vocabulary, or a caption has more tokens than the model reads.
        """
        check_ids(tokens)
        most, known = self.config.max_text_len, self.config.vocab_size
        if tokens.shape[1] > most:
            raise ValueError(f"The caption has {tokens.shape[1]} tokens, and the model reads {most}; ask in parts.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < known:
            raise ValueError(f"The caption has ids up to {int(tokens.max())}; the model knows 0 to {known - 1}.")
        return self._encode(tokens)

    def _encode(self, tokens: Int[Tensor, "t n"]) -> Text:
        _, together, places = divide(tokens, self.config.separator_ids)
        features = self.text_encoder(tokens, together, places, checkpointing=self.checkpointing)
        return Text(tokens, self.text_proj(features), tokens != self.config.pad_id, together, places)

    def part_specs(self) -> dict[str, PartSpec]:
        maps = [f"{kind}{level}" for kind in ("map", "seen") for level in range(self.config.num_levels)]
        detector = ("level_embed", "enhancer", "selection", "decoder")
        return {
            "text_encoder": PartSpec(_text_encoder, ("text",), ("text_encoder", "text_proj")),
            "image_encoder": PartSpec(_image_encoder, ("images", "image_sizes"), ("backbone", "norms", "input_proj")),
            "detector": PartSpec(_detector, ("text", *TEXT_PARTS, *maps), detector),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"]
        sizes = torch.tensor([images.shape[-2:]] * len(images), device=images.device)
        ends = self.config.separator_ids
        text = torch.tensor([[ends[0], 1, 2, ends[-1], 3, ends[-1]]] * len(images), device=images.device)
        return {"images": images, "image_sizes": sizes, "text": text}

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> GroundingDINOConfig:
        return config_from_hub(mapping)

    def _for_images(self, text: Text, spans: Any, count: int) -> tuple[Text, Spans]:
        """Returns a caption and its classes for each of `count` images."""
        captions = len(text.tokens)
        if captions not in (1, count):
            raise ValueError(f"There are {captions} captions for {count} images; give one for all, or one for each.")
        if spans is None:
            spans = phrase_spans(text.tokens, self.config.separator_ids, self.config.pad_id)
        spans = [spans] * count if isinstance(spans, Tensor) else list(spans)
        spans = spans * count if len(spans) == 1 else spans
        if len(spans) != count or any(span.shape[1:] != text.tokens.shape[1:] for span in spans):
            raise ValueError(
                f"spans must be (k, {text.tokens.shape[1]}), one for each of {count} images, or one for all."
            )
        expanded = (part.expand(count, *part.shape[1:]) for part in text)
        return Text(*expanded), spans

    def _maps(self, batch: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Returns the backbone's maps; it sees whole patches, filled up with zeros."""
        height, width = batch.shape[-2:]
        whole = F.pad(batch, (0, -width % PATCH, 0, -height % PATCH))
        return self.backbone.forward_maps(channels_last(whole), self.map_index[-1] + 1)

    def _project(
        self, batch: Tensor, sizes: Int[Tensor, "b 2"], features: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the maps of all levels in the model's width, and where they show an image."""
        maps = [norm(features[index]) for norm, index in zip(self.norms, self.map_index)]
        projected = [proj(x) for proj, x in zip(self.input_proj, maps)]
        last = maps[-1]
        for proj in list(self.input_proj)[len(maps) :]:
            last = proj(last)
            projected.append(last)
        return projected, [seen_places(batch, sizes, x) for x in projected]

    def _levels(self, maps: Sequence[Float[Tensor, "b d _ _"]], seen: Sequence[Bool[Tensor, "b _ _"]]) -> Levels:
        """Returns all levels one after the other, with their positions."""
        width, dtype = self.config.embed_dim, maps[0].dtype
        positions = [
            sine_positions(inside, width, dtype, temperature=IMAGE_TEMPERATURE) + embed
            for inside, embed in zip(seen, self.level_embed)
        ]
        return Levels(
            torch.cat([rearrange(x, "b d h w -> b (h w) d") for x in maps], dim=1),
            torch.cat(positions, dim=1),
            [(x.shape[-2], x.shape[-1]) for x in maps],
            torch.cat([inside.flatten(1) for inside in seen], dim=1),
            torch.stack([extent(inside, dtype) for inside in seen], dim=1),
        )

    def _answer(self, levels: Levels, text: Text) -> dict[str, Any]:
        """Returns `logits` (r, b, q, n) and `boxes` (r, b, q, 4) of each decoder layer, and what comes with them."""
        image, words = levels.image, text.features
        around = Surroundings(
            levels.position,
            torch.cat(centres(levels.sizes, levels.extents), dim=1)[:, :, None] * levels.extents[:, None],
            levels.sizes,
            levels.seen,
            text.words,
            text.together,
            sine_waves(text.places[..., None].to(words.dtype), self.config.embed_dim),
        )
        for layer in self.enhancer:
            image, words = layer(image, words, around)
        start = self.selection(image, words, text.words, levels.seen, levels.sizes, levels.extents)
        answers = self.decoder(
            start.content,
            start.box_logits.detach(),
            image,
            words,
            levels.sizes,
            levels.seen,
            text.words,
            levels.extents,
            checkpointing=self.checkpointing,
        )
        return {
            "logits": torch.stack([token_logits(x, words, text.words) for x in answers.embeddings]),
            "boxes": answers.boxes,
            "embeddings": answers.embeddings[-1],
            "text_embeddings": words,
            "encoder_logits": start.logits,
            "encoder_boxes": start.box_logits.sigmoid(),
        }

    def _init_weights(self) -> None:
        """Boxes start where they are proposed; projections of maps and texts keep the size of what they get."""
        for block in [*self.enhancer, *self.decoder.layers]:
            for name, weight in block.named_parameters():
                if weight.ndim > 1 and "sampling_offsets" not in name and "attention_weights" not in name:
                    nn.init.xavier_uniform_(weight)
        for layer in [*self.input_proj.modules(), self.text_proj, self.selection.proj]:
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for head in (self.selection.bbox_embed, self.decoder.bbox_embed):
            nn.init.zeros_(head.last.weight)
            nn.init.zeros_(head.last.bias)


def check_labels(targets: Sequence[Target], spans: Spans) -> None:
    """Raises unless there is one target per image, whose labels are classes of its caption.

    Raises:
        ValueError: There is not; the message names the target.
    """
    check_targets(targets, len(spans), LARGEST_LABEL)
    for place, (target, span) in enumerate(zip(targets, spans)):
        highest = int(target["labels"].max()) if len(target["labels"]) else -1
        if highest >= len(span):
            raise ValueError(
                f"Target {place} has the label {highest}, and its caption has {len(span)} classes,"
                f" 0 to {len(span) - 1}."
            )


TEXT_PARTS = ("text_features", "words", "together", "text_places")


def _text_encoder(model: GroundingDINO, tokens: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(TEXT_PARTS, model._encode(tokens)[1:]))


def _image_encoder(model: GroundingDINO, images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    features = model._maps(images)
    projected, seen = model._project(images, sizes, features)
    maps = {f"map{level}": x for level, x in enumerate(projected)}
    return {**maps, **{f"seen{level}": inside for level, inside in enumerate(seen)}}


def _detector(model: GroundingDINO, *given: Tensor) -> Mapping[str, Tensor]:
    text, maps = Text(*given[:5]), given[5:]
    half = len(maps) // 2
    outputs = model._answer(model._levels(maps[:half], maps[half:]), text)
    return {
        "pred_logits": outputs["logits"][-1],
        "pred_boxes": outputs["boxes"][-1],
        "embeddings": outputs["embeddings"],
    }


def extent(inside: Bool[Tensor, "b h w"], dtype: torch.dtype) -> Float[Tensor, "b 2"]:
    """Returns which share of the columns and of the rows shows the image."""
    return torch.stack([inside[:, 0].to(dtype).mean(1), inside[:, :, 0].to(dtype).mean(1)], dim=-1)


def best_classes(
    logits: Float[Tensor, "b q n"],
    boxes: Float[Tensor, "b q 4"],
    spans: Spans,
    canvas: Size,
    count: int,
) -> dict[str, list[Tensor]]:
    """Returns of each image the `count` likeliest pairs of a query and a class, best first."""
    pixels = pixel_boxes(boxes, sizes_tensor([canvas] * len(boxes), boxes))
    found: dict[str, list[Tensor]] = {"boxes": [], "scores": [], "labels": []}
    for scores, places, span in zip(logits, pixels, spans):
        chances = class_chances(scores, span)
        best, index = chances.flatten().topk(min(count, chances.numel()))
        classes = max(1, len(span))
        found["boxes"].append(places[torch.div(index, classes, rounding_mode="floor")])
        found["scores"].append(best)
        found["labels"].append(index % classes)
    return found


VARIANTS = {  # Table 1
    "grounding_dino_tiny": GroundingDINOConfig(),
    "grounding_dino_base": GroundingDINOConfig(backbone="swin_base_patch4_window12_384"),
}
