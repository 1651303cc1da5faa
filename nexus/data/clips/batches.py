"""Batches of clips: a few frames in a row with the masks of some objects to learn from, or whole clips to measure on.

Dims: b clips, t frames, n objects of a clip, c channels, h w pixels of what the model sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.data.clips.clip import Clip, first_seen, masks_of
from nexus.data.facets import Clips
from nexus.data.images import naming
from nexus.data.transforms import AugmentConfig, eval_transform
from nexus.data.workers import note

KNOWN = ("flip",)
"""Options of `augment` that clips follow; all frames of a clip are mirrored, or none."""


@dataclass(frozen=True)
class ClipTransform:
    """Makes whole batches of clips, each with `index` (b,).

    For training a batch has `images` (b, t, c, h, w) and `objects`, for each clip the masks (n, t, h, w) of objects
    that are seen in its first frame. For measuring it has `clips`, as the data set gives them.

    Attributes:
        preprocessing: How a frame becomes input.
        augment: What is random; None is for measuring.
        frames: In a row; of a clip with fewer annotated ones, they come again backwards.
        max_objects: Of a clip; of more, as many are drawn.
        reverse: How often a clip runs backwards.
    """

    preprocessing: Preprocessing
    augment: AugmentConfig | None = None
    frames: int = 8
    max_objects: int = 3
    reverse: float = 0.0

    def __post_init__(self) -> None:
        plain = AugmentConfig().to_dict()
        changed = [key for key, value in (self.augment or AugmentConfig()).to_dict().items() if value != plain[key]]
        other = [key for key in changed if key not in KNOWN]
        if other:
            raise ValueError(f"augment sets {', '.join(other)}, and clips follow {', '.join(KNOWN)}; leave it out.")
        if self.preprocessing.resize != "squash":
            raise ValueError(f'resize is "{self.preprocessing.resize}"; clips are seen whole: take "squash".')

    def check_dataset(self, dataset: Any) -> None:
        """Raises ValueError unless it has clips."""
        if not isinstance(dataset, Clips):
            raise ValueError(f"The data set {dataset.name!r} has no clips; take digit-videos or clips:PATH.")

    def make_batch(self, dataset: Any, indices: Sequence[int], rngs: Sequence[np.random.Generator]) -> dict[str, Any]:
        """Returns the batch of the clips at `indices`, each with its own source of chance."""
        batch: dict[str, Any] = {"index": torch.tensor(list(indices))}
        clips = []
        for index in indices:
            note(index)
            clips.append(dataset[index])
        if self.augment is None:
            return {**batch, "clips": clips}
        drawn = [self._drawn(clip, rng) for clip, rng in zip(clips, rngs)]
        return {**batch, "images": torch.stack([images for images, _ in drawn]), "objects": [one for _, one in drawn]}

    def _drawn(self, clip: Clip, rng: np.random.Generator) -> tuple[Tensor, Bool[Tensor, "n t h w"]]:
        assert self.augment is not None
        places, objects = self._places(clip, rng)
        if len(objects) > self.max_objects:
            objects = sorted(rng.choice(objects, self.max_objects, replace=False).tolist())
        transform = eval_transform(self.preprocessing)
        with naming(clip.path):
            images = torch.stack([transform(clip.frame(at), rng) for at in places])
        masks = np.stack([masks_of(clip.ids(at), objects) for at in places], axis=1)
        size = (images.shape[-2], images.shape[-1])
        seen = F.interpolate(torch.from_numpy(masks).float(), size=size, mode="bilinear", antialias=True) >= 0.5
        if rng.random() < self.augment.flip:
            images, seen = images.flip(-1), seen.flip(-1)
        return images, seen[seen[:, 0].flatten(1).any(dim=1)]

    def _places(self, clip: Clip, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Frames in a row, and the objects that the first of them shows."""
        annotated = list(clip.annotated)
        annotated = annotated if rng.random() >= self.reverse else annotated[::-1]
        count = min(self.frames, len(annotated))
        starts = rng.permutation(len(annotated) - count + 1).tolist()
        first = {at: [int(n) for n in np.unique(clip.ids(annotated[at])) if n] for at in starts[:4]}
        start = next((at for at, objects in first.items() if objects), None)
        if start is None:
            start = annotated.index(min(first_seen(clip).values()))
        row = annotated[start : start + count]
        there_and_back = [*row, *row[-2:0:-1]] or row
        objects = [int(n) for n in np.unique(clip.ids(row[0])) if n]
        return [there_and_back[at % len(there_and_back)] for at in range(self.frames)], objects
