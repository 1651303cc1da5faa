"""What every detector takes and gives: images of any size in, boxes for each of them out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.core.module import NexusModule
from nexus.layers.detector_input import Size, Target, check_targets, pad_images


class Detector(NexusModule, ABC):
    """Base of the detectors, which say in `detect` how they find objects in a padded batch.

    Attributes:
        multiple_of: Both sides of a padded batch are multiples of that many pixels.
    """

    task = "detection"
    answers = ()
    multiple_of: ClassVar[int] = 32

    def forward(
        self,
        images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _ _"]],
        targets: Sequence[Target] | None = None,
        *,
        image_sizes: Sequence[Size] | None = None,
    ) -> dict[str, Any]:
        """Detects objects in images as the model's preprocessing makes them.

        Args:
            images: A batch, or a list of images of different sizes, which are padded with zeros to one.
            targets: For each image `boxes` (n, 4), xyxy in pixels of that image, and `labels` (n,), and what the
                model's heads need besides, such as `masks`; n may be 0.
            image_sizes: (height, width) of images in a batch that is padded below and to the right.

        Returns:
            `boxes` (n, 4), xyxy in pixels, `scores` (n,) and `labels` (n,): lists with one entry per image, best
            first; `features`, and what `detect` names. With `targets` also `losses`, a dict of scalars; in training
            mode then neither boxes nor scores nor labels.

        Raises:
            ValueError: Images or targets do not fit the model.
        """
        batch, sizes = self.read(images, targets, image_sizes)
        return self.detect(batch, sizes, targets)

    def read(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[Target] | None, image_sizes: Sequence[Size] | None
    ) -> tuple[Float[Tensor, "b c h w"], list[Size]]:
        """Returns a padded batch and the size of each image in it; refuses targets that do not fit."""
        batch, sizes = pad_images(
            images, self.config.in_channels, image_sizes=image_sizes, multiple_of=self.multiple_of
        )
        if targets is not None:
            check_targets(targets, len(sizes), self.config.num_classes, *self.target_keys())
        return batch, sizes

    def target_keys(self) -> list[str]:
        """Returns what a target needs besides boxes and labels."""
        return []

    @abstractmethod
    def detect(
        self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size], targets: Sequence[Target] | None
    ) -> dict[str, Any]:
        """Returns what `forward` gives, for a padded batch, the sizes of its images, and targets that fit."""

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size)["images"]
        _, _, height, width = images.shape
        images = F.pad(images, (0, -width % self.multiple_of, 0, -height % self.multiple_of))
        sizes = torch.tensor([images.shape[-2:]] * len(images), device=images.device)
        return {"images": images, "image_sizes": sizes}

    def free_dims(self) -> dict[str, dict[int, str]]:
        return {**super().free_dims(), "image_sizes": {0: "batch"}}


def counted(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns detections of fixed number with `count`, how many of each image are detections: all of them."""
    scores = found["scores"]
    return {**found, "count": torch.full_like(scores[:, 0], scores.shape[1], dtype=torch.long)}
