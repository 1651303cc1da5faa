"""What passes between the stages of an R-CNN, and what a stage has to offer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nexus.layers.detector_input import Size, Target


class Samples(NamedTuple):
    """Proposals of an image that are trained on.

    Attributes:
        boxes: In pixels.
        labels: Class that each answers for; 0 is the background, objects count from 1.
        objects: Index of the object that a positive one answers for.
        given: Whether it is an object's own box, which was put among the proposals.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    objects: Int[Tensor, " n"]
    given: Bool[Tensor, " n"]

    def positive(self) -> "Samples":
        """Only those that answer for an object."""
        return Samples(*(part[self.labels > 0] for part in self))


class Detections(NamedTuple):
    """Detected objects of an image, best first; labels count classes of objects from 0."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]


class SecondStage(nn.Module, ABC):
    """Turns the proposals of the first stage into detections."""

    @abstractmethod
    def losses(
        self,
        levels: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        image_sizes: Sequence[Size],
    ) -> tuple[dict[str, Tensor], list[list[Samples]]]:
        """Returns losses by name, and for each of its heads the samples of each image that it was trained on."""

    @abstractmethod
    def detect(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: Sequence[Size]
    ) -> list[Detections]:
        """Returns the detections of each image."""


class Branch(nn.Module, ABC):
    """Says more of each detected box, such as its mask.

    Attributes:
        target_key: What it needs in the targets.
    """

    target_key: str

    @abstractmethod
    def losses(
        self, levels: Sequence[Tensor], samples: Sequence[Sequence[Samples]], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Returns losses by name; `samples` are those of each head of the second stage."""

    @abstractmethod
    def predict(
        self, levels: Sequence[Tensor], detections: Sequence[Detections], image_sizes: Sequence[Size]
    ) -> dict[str, list[Tensor]]:
        """Returns outputs by name, each a list with one entry per image."""
