"""Batches of images of different sizes with their objects.

Dims: b batch, c channels, h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nexus.core.preprocessing import Preprocessing
from nexus.data.augment import ColorJitter
from nexus.data.dataset import DataError
from nexus.data.detection.mirror import mirrored_names
from nexus.data.detection.scene import DetectionDataset, DetectionSample
from nexus.data.detection.views import (
    Crop,
    DropFlat,
    Flip,
    OnImage,
    ResizeTo,
    ScaleJitter,
    Step,
    View,
    copy_paste,
    mosaic,
    view_of,
)
from nexus.data.geometry import MatchChannels
from nexus.data.images import naming
from nexus.data.preprocess import resize_steps
from nexus.data.transforms import AugmentConfig, Normalize
from nexus.data.workers import note

NOT_FOR_BOXES = ("pad_crop", "rotate", "rand_augment", "erase", "mixup", "cutmix")


def stack_images(images: Sequence[Float[Tensor, "c _ _"]]) -> tuple[Float[Tensor, "b c h w"], list[tuple[int, int]]]:
    """Returns one batch, smaller images padded with zeros below and to the right, and each (height, width) in it."""
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    if len(set(sizes)) == 1:
        return torch.stack(list(images)), sizes
    batch = images[0].new_zeros(len(images), images[0].shape[0], *(max(side) for side in zip(*sizes)))
    for place, image, (height, width) in zip(batch, images, sizes):
        place[:, :height, :width] = image
    return batch, sizes


@dataclass(frozen=True)
class DetectionTransform:
    """Makes whole batches: the loader hands it positions and generators.

    A batch has `images` (b, c, h, w), padded; `image_sizes`, (height, width) of each in it; `index` (b,); for training
    `targets`, a dict for each image with `boxes` (n, 4) xyxy in pixels of the padded image, `labels` (n,), and `masks`
    (n, h, w) and `keypoints` (n, j, 3) where the data has them; for evaluation `scenes`, the annotations as they are.

    Attributes:
        preprocessing: How an image becomes input.
        augment: What is random; None is evaluation.
    """

    preprocessing: Preprocessing
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        augment = self.augment or AugmentConfig()
        lost = [key for key in NOT_FOR_BOXES if getattr(augment, key)]
        if lost:
            raise ValueError(f"augment sets {', '.join(lost)}, which moves no boxes along; a detector cannot use it.")

    def check_dataset(self, dataset: DetectionDataset) -> None:
        """Raises ValueError where images would be cropped, or mirrored though nothing pairs the keypoints."""
        _resizing(self.preprocessing)
        if self.augment is not None and self.augment.flip:
            _pairs(dataset)

    def make_batch(
        self, dataset: DetectionDataset, indices: Sequence[int], rngs: Sequence[np.random.Generator]
    ) -> dict[str, Any]:
        """Returns the batch of the samples at `indices`, each with its own source of chance."""
        normalize = Normalize(self.preprocessing.mean, self.preprocessing.std, self.preprocessing.levels)
        samples = [_sample(dataset, index) for index in indices]
        views = []
        for sample, rng in zip(samples, rngs):
            with naming(sample.path):
                views.append(self._view(dataset, sample, rng))
        images, sizes = stack_images([normalize(view.image) for view in views])
        batch: dict[str, Any] = {"images": images, "image_sizes": sizes, "index": torch.tensor(list(indices))}
        if self.augment is None:
            return {**batch, "scenes": [sample.scene for sample in samples]}
        return {**batch, "targets": [_target(view) for view in views]}

    def _view(self, dataset: DetectionDataset, sample: DetectionSample, rng: np.random.Generator) -> View:
        names = dataset.annotations.keypoint_names
        channels = MatchChannels(self.preprocessing.in_channels)
        resizing: list[Step] = [ResizeTo(step) for step in _resizing(self.preprocessing)]
        if self.augment is None:
            return _through([OnImage(channels), *resizing], View(sample.image, np.zeros((0, 4)), np.zeros(0, int)), rng)
        augment, size = self.augment, self.preprocessing.image_size
        first = _through([OnImage(channels)], view_of(sample, len(names)), rng)
        steps: list[Step] = []

        def another() -> View:
            return _through(
                [OnImage(channels)], view_of(_sample(dataset, int(rng.integers(len(dataset)))), len(names)), rng
            )

        if augment.mosaic and rng.random() < augment.mosaic:
            first = mosaic([first, another(), another(), another()], size, rng)
        if augment.scale_jitter is not None:
            steps = [ScaleJitter(size, augment.scale_jitter)]
        elif augment.crop_scale is not None:
            steps = [Crop(augment.crop_scale, augment.crop_ratio), *resizing]
        else:
            steps = resizing
        if augment.flip:
            steps = [*steps, Flip(augment.flip, _pairs(dataset))]
        view = _through(steps, first, rng)
        if augment.copy_paste and rng.random() < augment.copy_paste:
            view = copy_paste(view, _through(steps, another(), rng), rng)
        colour: list[Step] = [OnImage(ColorJitter(*augment.color_jitter))] if any(augment.color_jitter) else []
        return _through([*colour, DropFlat()], view, rng)


def _pairs(dataset: DetectionDataset) -> tuple[int, ...]:
    """For each keypoint its mirror image."""
    return dataset.annotations.mirror or mirrored_names(dataset.annotations.keypoint_names)


def _through(steps: Sequence[Step], view: View, rng: np.random.Generator) -> View:
    for step in steps:
        view = step(view, rng)
    return view


def _resizing(preprocessing: Preprocessing) -> list[Any]:
    if preprocessing.resize in ("shorter", "crop", "patches") or isinstance(preprocessing.resize_size, tuple):
        raise ValueError(
            f'resize is "{preprocessing.resize}"; a detector needs "within", "squash" or "none", which crop nothing.'
        )
    return resize_steps(preprocessing)


def _sample(dataset: DetectionDataset, index: int) -> DetectionSample:
    note(index)
    sample = dataset[index]
    if not isinstance(sample, DetectionSample):
        raise DataError(f"{dataset.name} has no objects; a detector is trained on annotated images.")
    return sample


def _target(view: View) -> dict[str, Tensor]:
    target = {"boxes": torch.from_numpy(view.boxes.astype(np.float32)), "labels": torch.from_numpy(view.labels)}
    if view.masks is not None:
        target["masks"] = torch.from_numpy(np.ascontiguousarray(view.masks).astype(np.uint8))
    if view.keypoints is not None:
        target["keypoints"] = torch.from_numpy(view.keypoints.astype(np.float32))
    return target
