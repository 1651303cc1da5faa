"""What an evaluation of retrieval says."""

from dataclasses import dataclass
from typing import Any

from nexus.tasks.report import Report


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RetrievalEvaluation(Report):
    """An image-text model's figures on images with captions.

    Attributes:
        num_texts: The captions of all images.
    """

    num_texts: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return {**super().to_json(), "num_texts": self.num_texts}
