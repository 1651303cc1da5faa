"""Promptable segmentation: an image is asked about by points, boxes and masks, and answers with masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn

from nexus.tasks.promptable.asking import prompts_of, read_texts
from nexus.tasks.promptable.encoded import SamClicker
from nexus.tasks.promptable.segments import Segments
from nexus.tasks.promptable.session import PromptSession
from nexus.tasks.protocol import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class PromptableTask(Task):
    """Points, boxes and masks in, masks out.

    Attributes:
        class_names: None: what a mask shows has no name.
    """

    class_names: tuple[str, ...] = ()

    name = "promptable-segmentation"
    headline = "mIoU"

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> NoReturn:
        """Raises ValueError, as `check_data` does."""
        cls.for_model(model, tokenizer=tokenizer).check_data(dataset)

    def check_data(self, dataset: "Dataset") -> NoReturn:
        """Raises ValueError: these models are asked here, not trained or measured."""
        raise ValueError(
            f"A model for {self.name} is asked about images (nexus predict), and cannot be trained or measured on"
            f" {dataset.name!r} here."
        )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Raises ValueError, as `check_data` does."""
        raise ValueError(f"A model for {self.name} cannot be trained here.")

    def session(self, model: nn.Module, prompts: Any = None) -> PromptSession:
        """Returns the model ready to be asked.

        Args:
            model: A `nexus.models.cv.SAM`.
            prompts: For all images, or a list with one for each: a mapping of `points` (n, 2), their `labels` (n,) (1
                of the object, 0 not), `boxes` (4,), `masks` (h, w), with a dimension in front for several prompts, in
                pixels of the image as given; or "everything", or `Everything`. A single point may mean several things:
                the best of three masks is returned, all with `multimask=True` in the mapping.

        Raises:
            ValueError: There are none, or they are none of these.
        """
        if prompts is None:
            raise ValueError(
                f"A model for {self.name} answers prompts: give a point (--point 500,375), a box"
                " (--box 425,600,700,875), or 'everything'; in Python prompts={'points': [[500, 375]]}."
            )
        return PromptSession(self, model, prompts_of(prompts))  # pyrefly: ignore[bad-argument-type]

    def clicker(self, model: nn.Module) -> SamClicker:
        """Returns the model ready to encode images once and to answer clicks on them."""
        return SamClicker(model)  # pyrefly: ignore[bad-argument-type]

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns the one prompt that a command line writes; see `read_texts`."""
        return read_texts(texts)

    def draw(self, image: "Image", result: Segments) -> "Image":
        """Returns the image with the masks drawn on it."""
        return result.draw_on(image)
