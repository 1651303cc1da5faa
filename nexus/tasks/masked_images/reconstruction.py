"""What a model painted in one image."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from nexus.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a model painted in one image.

    Attributes:
        path: The file, or the place in what was given.
        loss: Mean squared error on the hidden patches, in units of the model's target.
        hidden: (h, w), 1 where the model saw nothing.
        image: Normalized, (c, h, w).
        painted: The same with its hidden patches painted.
        preprocessing: With which the image was normalized.
    """

    path: str
    loss: float
    hidden: Tensor = field(repr=False)
    image: Tensor = field(repr=False)
    painted: Tensor = field(repr=False)
    preprocessing: Preprocessing = field(repr=False)

    formats: ClassVar[dict[str, Any]] = {}

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Returns plain values that JSON can hold: path, loss, and the share that was hidden."""
        del count
        return {"path": self.path, "loss": self.loss, "hidden": self.hidden.mean().item()}

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the one line of a table."""
        return [self.to_json(count)]

    def draw(self) -> "Image":
        """Returns three pictures beside each other: what the model saw, what it painted, the image."""
        from nexus.visualization.reconstruction import Painting, reconstruction_sheet

        return reconstruction_sheet([Painting(self.image, self.painted, self.hidden)], self.preprocessing)
