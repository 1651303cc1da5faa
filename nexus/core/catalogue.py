"""Where the loader looks for cards. Whoever has models offers theirs here; this room knows none itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nexus.core.card import ModelCard


class Catalogue(Protocol):
    """Cards by name: what `nexus.models.registry` is."""

    def all_cards(self) -> "list[ModelCard]":
        """Returns every card."""
        ...

    def split_name(self, name: str) -> tuple[str, str]:
        """Returns the name of a card that `name` begins with, and the tag of its weights."""
        ...

    def model_info(self, name: str) -> "ModelCard":
        """Returns the card called `name`, or raises a `ValueError` that names the nearest one."""
        ...


_opened: list[Callable[[], Catalogue]] = []


def offer(open_catalogue: Callable[[], Catalogue]) -> None:
    """Makes a catalogue known. It is opened when a card is asked for, not before."""
    _opened[:] = [open_catalogue]


def catalogue() -> Catalogue:
    """Returns the catalogue that was offered: `import nexus` offers that of the zoo."""
    return _opened[0]()
