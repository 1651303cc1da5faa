"""The one family of errors: what is wrong, where, both shapes, where each was set, the nearest right name."""

import difflib
from collections.abc import Iterable, Sequence


class MithrilError(ValueError):
    """A mistake in a model, in the arguments of `compile`, or in the values given to a compiled model.

    `message` says what is wrong in one sentence; `notes` are the lines below it (paths, shapes, places).
    """

    def __init__(self, message: str, notes: Sequence[str] = ()):
        self.message = message
        self.notes = tuple(notes)
        super().__init__("\n  ".join([message, *notes]))


class ShapeError(MithrilError):
    """Shapes that an operator's rule does not allow. Rules raise it as one sentence; paths are added later."""


class DtypeError(MithrilError):
    """A dtype that an operator or a key does not allow."""


class ConnectionError(MithrilError):
    """Wrong wiring of a logical model: unknown key, two writers, cycle."""


class KeyMismatchError(MithrilError):
    """Names given to `compile` or to a compiled model that do not fit its keys."""


class ValueMismatchError(MithrilError):
    """Params or data that are missing, superfluous, or of a wrong shape or dtype. Lists every problem at once."""


class OperatorError(MithrilError):
    """An operator that is unknown, lacks an implementation for a backend, or was given wrong attributes."""


class ConversionError(MithrilError):
    """A torch module that cannot become a model. Names the part of the module and the line of its source."""


class BackendError(MithrilError):
    """A backend that cannot be used here. Says why."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name closest to `name`, or a short list of what there is."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    if not known:
        return " There are none."
    listed = ", ".join(f"'{k}'" for k in known[:8])
    return f" There are {listed}{', ...' if len(known) > 8 else ''}."
