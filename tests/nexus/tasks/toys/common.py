"""What the toys share: small pictures, and a result with a text under a picture."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from nexus.core.config import Config
from nexus.data.transforms import eval_transform
from nexus.visualization.drawing import caption

SIDE = 8


@dataclass(frozen=True, kw_only=True)
class ToyConfig(Config):
    """Of every toy."""

    image_size: int = SIDE
    in_channels: int = 3


def split_rng(split: str) -> np.random.Generator:
    """Chance of a split."""
    return np.random.default_rng({"train": 0, "val": 1}[split])


@dataclass(frozen=True)
class Making:
    """Makes batches of images with whatever else `more` gives of the items."""

    preprocessing: Any
    more: Callable[[Any, list[int]], dict[str, Any]]

    def make_batch(self, dataset, indices, rngs):
        transform = eval_transform(self.preprocessing)
        images = torch.stack([transform(dataset[index].image) for index in indices])
        return {"images": images, "index": torch.tensor(indices), **self.more(dataset, indices)}


@dataclass(frozen=True, eq=False)
class Said:
    """A text about one image."""

    path: str
    text: str
    image: Any = field(default=None, repr=False)
    formats: ClassVar[dict[str, Any]] = {}

    def to_json(self, count: int = 5):
        return {"path": self.path, "text": self.text}

    def to_rows(self, count: int = 5):
        return [self.to_json()]

    def draw(self):
        return caption(Image.new("RGB", (32, 32)) if self.image is None else Image.fromarray(self.image), self.text)
