"""The model: an image is encoded once, and answers as many prompts as are asked."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from nexus.core.formats import State
from nexus.core.parts import PartSpec
from nexus.models.cv.sam.config import SAMConfig
from nexus.models.cv.sam.hub import config_from_hub
from nexus.models.cv.sam.image_encoder import ImageEncoder, fit_encoder
from nexus.models.cv.sam.mask_decoder import SCALE, MaskDecoder, enlarge
from nexus.models.cv.sam.names import FORMATS
from nexus.models.cv.sam.practice import Targets, practise
from nexus.models.cv.sam.prompt_encoder import PromptEncoder
from nexus.models.cv.sam.prompts import Prompts, read_prompts, repeat_for
from nexus.models.cv.sam.segmenter import FREE_PROMPTS, PROMPTS, Segmenter, example_prompts


class SAM(Segmenter):
    """Promptable segmentation. `config` is a `SAMConfig` or a mapping of its fields.

    The published models see images whose longer side is 1024 pixels, filled up with zeros right and below to a square.
    Other sizes work where both sides are multiples of the patch: positions are interpolated.
    """

    config: SAMConfig
    formats = FORMATS
    head_prefixes = ()
    answers = ("embeddings", "low_res_masks")
    hub_types = ("sam",)
    fills_up = True
    sure_score = 0.88

    def __init__(self, config: SAMConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        self.image_encoder = ImageEncoder(self.config)
        self.prompt_encoder = PromptEncoder(self.config.embed_dim, self.config.mask_dim, self.config.patch_size)
        self.mask_decoder = MaskDecoder(self.config)

    def forward(
        self,
        images: Float[Tensor, "b c H W"],
        points: Float[Tensor, "b p n 2"] | None = None,
        labels: Int[Tensor, "b p n"] | None = None,
        boxes: Float[Tensor, "b p 4"] | None = None,
        masks: Float[Tensor, "b p low_h low_w"] | None = None,
        *,
        multimask: bool = True,
        targets: Targets | None = None,
    ) -> dict[str, Any]:
        """Answers p prompts about each of b normalized images. Values of prompts are not checked; `predict` does that.

        Args:
            images: Normalized, then filled up with zeros right and below.
            points: (x, y) in pixels of `images`.
            labels: For each point 1 of the object, 0 not of it, -1 no point.
            boxes: x1, y1, x2, y2 in pixels of `images`.
            masks: Logits, four to the side of a patch: `low_res_masks` of an earlier answer.
            multimask: Several masks for each prompt, as is right for one that is ambiguous, such as a single point;
                otherwise one, as is right for the others.
            targets: Objects to learn from, instead of prompts, which are then made up; see `practise`.

        Returns:
            With `targets`, `losses` (`focal`, `dice` and `iou`, weighed: their sum is minimised) and `embeddings`. Else
            `masks` (b, p, k, H, W), logits, above 0 inside; `iou_scores` (b, p, k), how good each is said to be;
            `low_res_masks` (b, p, k, low_h, low_w), logits; `embeddings` (b, d, h, w) of the images.
        """
        self.image_encoder.checkpointing = self.checkpointing
        embeddings = self.image_encoder(images)
        if targets is not None:
            return {"losses": practise(self, embeddings, targets), "embeddings": embeddings}
        answer = self.decode(embeddings, Prompts(points, labels, boxes, masks), multimask=multimask)
        size = (images.shape[-2], images.shape[-1])
        return {"masks": enlarge(answer["low_res_masks"], size), **answer, "embeddings": embeddings}

    def encode(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Returns the embeddings of normalized images."""
        return self.image_encoder(images)

    def predict(
        self, *, image_embedding: Float[Tensor, "b d h w"], prompt: Any, multimask: bool = True
    ) -> dict[str, Tensor]:
        """Answers prompts about images that were encoded before.

        Args:
            image_embedding: What `image_encoder(images)` gave.
            prompt: A mapping (or `Prompts`) of `points` and their `labels`, `boxes`, `masks`, in any combination, in
                pixels of what the image encoder saw: of one prompt (points (n, 2), labels (n,), boxes (4,), masks
                (low_h, low_w)), of p prompts (a dimension in front), or of p prompts for each image (two). Points
                without labels are of the object.
            multimask: See `forward`.

        Returns:
            `masks` (b, p, k, H, W), `iou_scores` (b, p, k) and `low_res_masks` (b, p, k, low_h, low_w); see `forward`.

        Raises:
            ValueError: There is no prompt, or it does not fit; the message says what would.
        """
        self._check_embedding(image_embedding)
        rows, columns = image_embedding.shape[-2:]
        size = rows * self.config.patch_size, columns * self.config.patch_size
        prompts = read_prompts(prompt, image_embedding, size, (SCALE * rows, SCALE * columns))
        prompts = repeat_for(prompts, len(image_embedding))
        answer = self.decode(image_embedding, prompts, multimask=multimask)
        return {"masks": enlarge(answer["low_res_masks"], size), **answer}

    def decode(
        self, embeddings: Float[Tensor, "b d h w"], prompts: Prompts, *, multimask: bool = True
    ) -> dict[str, Tensor]:
        """Returns `low_res_masks` and `iou_scores` for prompts with both leading dimensions. Values are not checked."""
        grid = (embeddings.shape[-2], embeddings.shape[-1])
        sparse, dense = self.prompt_encoder.encode(prompts, grid)
        positions = self.prompt_encoder.positions.grid(grid)
        masks, scores = self.mask_decoder(embeddings, positions, sparse, dense)
        chosen = slice(1, None) if multimask else slice(0, 1)
        return {"iou_scores": scores[:, :, chosen], "low_res_masks": masks[:, :, chosen]}

    def _check_embedding(self, embedding: Any) -> None:
        if not isinstance(embedding, Tensor) or embedding.ndim != 4 or embedding.shape[1] != self.config.embed_dim:
            told = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise ValueError(
                f"image_embedding is {told}; it is what `image_encoder(images)` gives:"
                f" (b, {self.config.embed_dim}, h, w)."
            )

    def fit_state(self, state: State) -> State:
        """Resamples positions from another image size."""
        return fit_encoder(state, self.config.grid, self.config.global_blocks)

    def part_specs(self) -> dict[str, PartSpec]:
        decoder = ("prompt_encoder", "mask_decoder")
        return {
            "image_encoder": PartSpec(_encode, ("images",), ("image_encoder",)),
            "mask_decoder": PartSpec(_decode, ("embeddings", *PROMPTS), decoder),
            "enlarger": PartSpec(_enlarge, ("low_res_masks",), ()),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"]
        return {"images": images, **example_prompts(images, self.config.patch_size)}

    def free_dims(self) -> dict[str, dict[int, str]]:
        return {**super().free_dims(), **FREE_PROMPTS}

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> SAMConfig:
        return config_from_hub(mapping)


def _encode(model: SAM, images: Tensor) -> Mapping[str, Tensor]:
    return {"embeddings": model.image_encoder(images)}


def _decode(
    model: SAM, embeddings: Tensor, points: Tensor, labels: Tensor, masks: Tensor, has_masks: Tensor
) -> Mapping[str, Tensor]:
    """Returns all masks of each prompt: first the one for prompts that are not ambiguous, then the others."""
    grid = (embeddings.shape[-2], embeddings.shape[-1])
    sparse, dense = model.prompt_encoder.encode_fixed(grid, points, labels, masks, has_masks)
    low, scores = model.mask_decoder(embeddings, model.prompt_encoder.positions.grid(grid), sparse, dense)
    return {"iou_scores": scores, "low_res_masks": low}


def _enlarge(model: SAM, masks: Tensor) -> Mapping[str, Tensor]:
    factor = model.config.patch_size // SCALE
    return {"masks": enlarge(masks, (factor * masks.shape[-2], factor * masks.shape[-1]))}


_LARGE = {"encoder_embed_dim": 1024, "encoder_depth": 24, "encoder_num_heads": 16}
_HUGE = {"encoder_embed_dim": 1280, "encoder_depth": 32, "encoder_num_heads": 16}

VARIANTS = {
    "sam_vit_base": SAMConfig(),
    "sam_vit_large": SAMConfig(**_LARGE),
    "sam_vit_huge": SAMConfig(**_HUGE),
}
