"""The data sets, by name."""

from pathlib import Path

from nexus.core.config import nearest
from nexus.data.dataset import Dataset
from nexus.data.datasets.digits import Digits

SOURCES = ("digits", "folder:PATH", "cifar10", "cifar100")


def load_dataset(
    source: str, split: str = "train", *, root: str | Path | None = None, download: bool = False
) -> Dataset:
    """Returns the data set that `source` names.

    Raises:
        ValueError: The source or the split is unknown.
    """
    if source == "digits":
        return Digits(split)
    raise ValueError(f"There is no data set {source!r}. {nearest(source, SOURCES)}")
