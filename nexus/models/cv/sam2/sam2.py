"""The model: an image, or a frame of a video, is encoded once, and answers as many prompts as are asked."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.parts import PartSpec
from nexus.models.cv.sam.mask_decoder import SCALE, enlarge
from nexus.models.cv.sam.prompt_encoder import PromptEncoder
from nexus.models.cv.sam.prompts import Prompts, read_prompts, repeat_for
from nexus.models.cv.sam.segmenter import FREE_PROMPTS, PROMPTS, Segmenter, example_prompts
from nexus.models.cv.sam2.clip_practice import ClipTargets, practise_clips
from nexus.models.cv.sam2.config import STRIDE, SAM2Config
from nexus.models.cv.sam2.hub import config_from_hub
from nexus.models.cv.sam2.image_encoder import Embedding, ImageEncoder
from nexus.models.cv.sam2.mask_decoder import MaskDecoder, Masks, several, single
from nexus.models.cv.sam2.memory import Memory
from nexus.models.cv.sam2.names import FORMATS

MAP_NAMES = ("embeddings", "eighths", "quarters")
"""What the parts of an `Embedding` are called where each is a tensor of its own."""


class SAM2(Segmenter):
    """Promptable segmentation of images and videos. `config` is a `SAM2Config` or a mapping of its fields.

    The published models see images of 1024 x 1024 pixels, whatever their proportions were. Others work where both
    sides are multiples of 32. Videos: `nexus.models.cv.sam2.VideoSession`.
    """

    config: SAM2Config
    task = "promptable-segmentation"
    other_tasks = ("video-segmentation",)
    formats = FORMATS
    head_prefixes = ()
    answers = ("embeddings", "low_res_masks")
    hub_types = ("sam2", "sam2_video")
    fills_up = False
    sure_score = 0.8

    def __init__(self, config: SAM2Config | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        width = config.embed_dim
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(width, config.mask_dim, STRIDE, always_ended=True)
        self.mask_decoder = MaskDecoder(config)
        self.no_memory = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.memory = Memory(config) if config.video else None

    def forward(
        self,
        images: Float[Tensor, "b c H W"],
        points: Float[Tensor, "b p n 2"] | None = None,
        labels: Int[Tensor, "b p n"] | None = None,
        boxes: Float[Tensor, "b p 4"] | None = None,
        masks: Float[Tensor, "b p low_h low_w"] | None = None,
        *,
        multimask: bool = True,
        targets: ClipTargets | None = None,
    ) -> dict[str, Any]:
        """Answers p prompts about each of b normalized images. Values of prompts are not checked; `predict` does that.

        Args:
            images: Normalized.
            points: (x, y) in pixels of `images`.
            labels: For each point 1 of the object, 0 not of it, -1 no point.
            boxes: x1, y1, x2, y2 in pixels of `images`.
            masks: Logits, a quarter of the images' sides: `low_res_masks` of an earlier answer.
            multimask: Several masks for each prompt, as is right for one that is ambiguous, such as a single point;
                otherwise one, as is right for the others.
            targets: Objects of clips to learn from, whose frames the images are, clip by clip, instead of prompts.

        Returns:
            With targets `losses` alone, see `practise_clips`. Else
            `masks` (b, p, k, H, W), logits, above 0 inside; `iou_scores` (b, p, k), how good each is said to be;
            `object_scores` (b, p), above 0 where the object is there; `low_res_masks` (b, p, k, low_h, low_w), logits;
            `embeddings` (b, d, h, w) of the images.
        """
        embedding = self.encode(images)
        if targets is not None:
            return {"losses": practise_clips(self, embedding, targets)}
        answer = self.decode(embedding, Prompts(points, labels, boxes, masks), multimask=multimask)
        size = (images.shape[-2], images.shape[-1])
        return {"masks": enlarge(answer["low_res_masks"], size), **answer, "embeddings": embedding.tokens}

    def encode(self, images: Float[Tensor, "b c H W"]) -> Embedding:
        """Returns the embedding of normalized images."""
        return self.image_encoder(images)

    def predict(self, *, image_embedding: Embedding, prompt: Any, multimask: bool = True) -> dict[str, Tensor]:
        """Answers prompts about images that were encoded before.

        Args:
            image_embedding: What `encode(images)` gave.
            prompt: A mapping (or `Prompts`) of `points` and their `labels`, `boxes`, `masks`, in any combination, in
                pixels of what the image encoder saw: of one prompt (points (n, 2), labels (n,), boxes (4,), masks
                (low_h, low_w)), of p prompts (a dimension in front), or of p prompts for each image (two). Points
                without labels are of the object.
            multimask: See `forward`.

        Returns:
            `masks`, `iou_scores`, `object_scores` and `low_res_masks`; see `forward`.

        Raises:
            ValueError: There is no prompt, or it does not fit; the message says what would.
        """
        if not isinstance(image_embedding, Embedding):
            raise ValueError(
                f"image_embedding is a {type(image_embedding).__name__}; it is the Embedding that `encode(images)`"
                " gives."
            )
        tokens = image_embedding.tokens
        rows, columns = tokens.shape[-2:]
        size = rows * STRIDE, columns * STRIDE
        prompts = repeat_for(read_prompts(prompt, tokens, size, (SCALE * rows, SCALE * columns)), len(tokens))
        answer = self.decode(image_embedding, prompts, multimask=multimask)
        return {"masks": enlarge(answer["low_res_masks"], size), **answer}

    def decode(self, embeddings: Embedding, prompts: Prompts, *, multimask: bool = True) -> dict[str, Tensor]:
        """Returns `low_res_masks`, `iou_scores` and `object_scores` for prompts with both leading dimensions.

        Values are not checked. In evaluation a single mask that is unstable is replaced by the best of the others.
        """
        tokens = embeddings.tokens + self.no_memory[0, :, :, None, None]
        masks = self.masks(embeddings._replace(tokens=tokens), prompts)
        chosen = several(masks) if multimask else single(masks, stable=not self.training)
        return {
            "iou_scores": chosen.iou_scores,
            "object_scores": chosen.object_scores,
            "low_res_masks": chosen.logits,
        }

    def masks(self, embedding: Embedding, prompts: Prompts) -> Masks:
        """Returns all masks that the decoder paints for prompts, on tokens that are as it shall see them."""
        grid = (embedding.tokens.shape[-2], embedding.tokens.shape[-1])
        sparse, dense = self.prompt_encoder.encode(prompts, grid)
        return self.mask_decoder(embedding, self.prompt_encoder.positions.grid(grid), sparse, dense)

    def part_specs(self) -> dict[str, PartSpec]:
        decoder = ("prompt_encoder", "mask_decoder", "no_memory")
        return {
            "image_encoder": PartSpec(_encode, ("images",), ("image_encoder",)),
            "mask_decoder": PartSpec(_decode, (*MAP_NAMES, *PROMPTS), decoder),
            "enlarger": PartSpec(_enlarge, ("low_res_masks",), ()),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"]
        return {"images": images, **example_prompts(images, STRIDE)}

    def free_dims(self) -> dict[str, dict[int, str]]:
        return {**super().free_dims(), **FREE_PROMPTS}

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> SAM2Config:
        return config_from_hub(mapping)


def _encode(model: SAM2, images: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(MAP_NAMES, model.image_encoder(images), strict=True))


def _decode(
    model: SAM2,
    embeddings: Tensor,
    eighths: Tensor,
    quarters: Tensor,
    points: Tensor,
    labels: Tensor,
    masks: Tensor,
    has_masks: Tensor,
) -> Mapping[str, Tensor]:
    """Returns all masks of each prompt, as SAM's part does. Here places end with one of no point behind boxes, too."""
    grid = (embeddings.shape[-2], embeddings.shape[-1])
    sparse, dense = model.prompt_encoder.encode_fixed(grid, points, labels, masks, has_masks)
    seen = Embedding(embeddings + model.no_memory[0, :, :, None, None], eighths, quarters)
    found = model.mask_decoder(seen, model.prompt_encoder.positions.grid(grid), sparse, dense)
    return {"iou_scores": found.iou_scores, "object_scores": found.object_scores, "low_res_masks": found.logits}


def _enlarge(model: SAM2, masks: Tensor) -> Mapping[str, Tensor]:
    factor = STRIDE // SCALE
    return {"masks": enlarge(masks, (factor * masks.shape[-2], factor * masks.shape[-1]))}


_SMALL = {"trunk_depths": (1, 2, 11, 2), "trunk_global_blocks": (7, 10, 13)}
_BASE = {
    "trunk_embed_dim": 112,
    "trunk_num_heads": 2,
    "trunk_depths": (2, 3, 16, 3),
    "trunk_global_blocks": (12, 16, 20),
    "trunk_background": (14, 14),
}
_LARGE = {
    "trunk_embed_dim": 144,
    "trunk_num_heads": 2,
    "trunk_depths": (2, 6, 36, 4),
    "trunk_global_blocks": (23, 33, 43),
    "trunk_windows": (8, 4, 16, 8),
}
_SIZES: dict[str, dict[str, Any]] = {"tiny": {}, "small": _SMALL, "base_plus": _BASE, "large": _LARGE}

VARIANTS = {
    **{
        f"sam2_hiera_{size}": SAM2Config(pointer_times=False, absent_memory=False, **fields)
        for size, fields in _SIZES.items()
    },
    **{f"sam2.1_hiera_{size}": SAM2Config(**fields) for size, fields in _SIZES.items()},
}
