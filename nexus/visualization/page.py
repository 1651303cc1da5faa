"""Parts of a page about a run: what a kind of model has to show, for whoever writes the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from nexus.visualization.figures import to_data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG as a data URI, and what it shows for those who cannot see it."""

    data: str
    alt: str

    @classmethod
    def of(cls, picture: "Figure | Image", alt: str) -> Self:
        """Returns a figure or an image as part of a page."""
        return cls(data=to_data_uri(picture), alt=alt)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a sentence or two, then pictures, a table (rows with equal keys), text as it is, and links.

    Attributes:
        links: Names of files, relative to the page, and what they are.
    """

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    code: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
