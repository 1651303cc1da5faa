"""Data sets, transforms and the loader. Each name is loaded when it is first used: reading images needs no torch."""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AugmentConfig": "nexus.data.transforms",
    "DataError": "nexus.data.dataset",
    "Dataset": "nexus.data.dataset",
    "ImageError": "nexus.data.images",
    "Loader": "nexus.data.loader",
    "MixConfig": "nexus.data.mixing",
    "Sample": "nexus.data.dataset",
    "WorkerError": "nexus.data.loader",
    "eval_transform": "nexus.data.transforms",
    "load_dataset": "nexus.data.datasets",
    "load_image": "nexus.data.images",
    "train_transform": "nexus.data.transforms",
}

__all__ = [
    "AugmentConfig",
    "DataError",
    "Dataset",
    "ImageError",
    "Loader",
    "MixConfig",
    "Sample",
    "WorkerError",
    "eval_transform",
    "load_dataset",
    "load_image",
    "train_transform",
]

if TYPE_CHECKING:
    from nexus.data.dataset import DataError, Dataset, Sample
    from nexus.data.datasets import load_dataset
    from nexus.data.images import ImageError, load_image
    from nexus.data.loader import Loader, WorkerError
    from nexus.data.mixing import MixConfig
    from nexus.data.transforms import AugmentConfig, eval_transform, train_transform


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nexus.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
