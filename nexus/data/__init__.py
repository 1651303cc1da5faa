"""Data sets, transforms and the loader."""

from nexus.data.dataset import DataError, Dataset, Sample
from nexus.data.datasets import load_dataset
from nexus.data.images import ImageError, load_image
from nexus.data.loader import Loader, WorkerError
from nexus.data.mixing import MixConfig
from nexus.data.transforms import AugmentConfig, eval_transform, train_transform

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
