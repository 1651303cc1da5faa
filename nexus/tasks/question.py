"""What `nexus explain` asks of a kind of model: one image, one model, one picture of what the model saw."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from torch import Tensor

from nexus.core.module import NexusModule, TokenLayout

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@dataclass(frozen=True)
class Question:
    """What is to be explained.

    Attributes:
        model: In evaluation mode.
        pixels: The normalized image, (1, c, h, w).
        layer: A module's path, or None for the method's own choice.
        target: A class by its number or name, or None for the model's guess; where an image holds many finds, the
            number of one of them, 0 the surest.
        prompts: What the model is asked, as the task's `read_prompts` returns it; None where nothing is.
        size: Height and width of the image as given, in whose pixels places of prompts are.
    """

    model: NexusModule
    pixels: Tensor
    layer: str | None
    target: int | str | None
    prompts: Any = None
    size: tuple[int, int] | None = None

    @property
    def layout(self) -> TokenLayout | None:
        """Where the patches stand among the tokens, for models that have tokens."""
        return self.model.token_layout(self.pixels.shape[-2:])

    @property
    def rank(self) -> int | None:
        """The number of a find, where an image holds many.

        Raises:
            ValueError: The target is a name.
        """
        if isinstance(self.target, str):
            raise ValueError(f"--target is {self.target!r}; for this model it is the number of a find, 0 the surest.")
        return self.target

    def name(self, label: int) -> str:
        """What the class is called."""
        return self.model.class_names[label] if self.model.class_names else f"class {label}"


Method = Callable[[Question], Union["Image", "Figure"]]
"""Draws the answer."""
