"""What a promptable segmenter is to those who ask it: SAM, MedSAM and SAM 2 are some.

Dims: b images, c channels, h w pixels of what the model sees, p prompts of an image, k masks of a prompt.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from nexus.core.module import NexusModule
from nexus.models.cv.sam.prompts import Prompts


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
