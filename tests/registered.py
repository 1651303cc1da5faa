"""What a test registers is forgotten after it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def forgotten() -> Iterator[None]:
    """Leaves the tables of models, tasks and data sets as they were."""
    from nexus.data.datasets import _OWN
    from nexus.models.registry import _CARDS
    from nexus.tasks import TASKS

    tables: tuple[dict, ...] = (_CARDS, TASKS, _OWN)
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)
