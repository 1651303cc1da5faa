"""What a promptable segmenter is to those who ask it: SAM, MedSAM and SAM 2 are some.

Dims: b images, c channels, h w pixels of what the model sees, p prompts of an image, k masks of a prompt.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nexus.core.module import NexusModule
from nexus.models.cv.sam.mask_decoder import SCALE
from nexus.models.cv.sam.prompts import Prompts

PROMPTS = ("points", "labels", "mask_prompts", "has_mask_prompts")
"""What the part that decodes takes of prompts; see `PromptEncoder.encode_fixed`."""

_ASKED = {0: "batch", 1: "prompts"}
_LOW = {2: "low_height", 3: "low_width"}
FREE_PROMPTS = dict(zip(PROMPTS, ({**_ASKED, 2: "points"}, {**_ASKED, 2: "points"}, {**_ASKED, **_LOW}, _ASKED)))
"""Dimensions of these that may have any size."""


class Segmenter(NexusModule):
    """Encodes images once and answers prompts about them: what a subclass has to say, and nothing else.

    Attributes:
        config: Its `image_size` is what images are made for, its `patch_size` the side of a token in pixels.
        fills_up: Whether pictures keep their proportions and are filled up with zeros; otherwise they are stretched.
        sure_score: Predicted IoU above which its authors keep a mask where everything is asked for.
    """

    config: Any
    task = "promptable-segmentation"
    fills_up: bool
    sure_score: float

    def encode(self, images: Float[Tensor, "b c H W"]) -> Any:
        """Returns what is kept of normalized images: a tensor, or a named tuple of tensors, images first."""
        raise NotImplementedError

    def decode(self, embeddings: Any, prompts: Prompts, *, multimask: bool = True) -> dict[str, Tensor]:
        """Returns `low_res_masks`, four pixels to the side of a token, and `iou_scores`, both (b, p, k, ...)."""
        raise NotImplementedError


def example_prompts(images: Float[Tensor, "b c H W"], patch_size: int) -> dict[str, Tensor]:
    """Returns three prompts about each image of an example, as `PROMPTS` names them."""
    height, width = images.shape[-2:]
    count = len(images)
    places = [[width / 2, height / 2], [width / 4, height / 3], [0, 0]]
    points = images.new_tensor(places).expand(count, 3, 3, 2)
    labels = torch.tensor([1, 0, -1], device=images.device).expand(count, 3, 3)
    low = (SCALE * (height // patch_size), SCALE * (width // patch_size))
    masks = 4 * torch.randn(count, 3, *low, generator=torch.Generator().manual_seed(1)).to(images)
    has_masks = torch.tensor([True, False, True], device=images.device).expand(count, 3)
    return dict(zip(PROMPTS, (points, labels, masks, has_masks)))


def images_of(embeddings: Any) -> list[Any]:
    """Returns what is kept of each image, as a batch of one."""
    if isinstance(embeddings, Tensor):
        return list(embeddings.split(1))
    return [type(embeddings)(*parts) for parts in zip(*(part.split(1) for part in embeddings), strict=True)]


def bytes_of(embeddings: Any) -> int:
    """Returns the bytes of what is kept of images."""
    return embeddings.nbytes if isinstance(embeddings, Tensor) else sum(part.nbytes for part in embeddings)


def weights_like(model: Segmenter) -> Tensor:
    """Returns a tensor of the type of a model's numbers, where the model is."""
    return next(model.parameters())
