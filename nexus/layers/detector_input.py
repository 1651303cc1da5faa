"""Images and targets as detectors take them: of different sizes, and with any number of objects."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.layers import check_images

Size = tuple[int, int]
Target = Mapping[str, Tensor]


def pad_images(
    images: Tensor | Sequence[Float[Tensor, "c h w"]],
    in_channels: int,
    *,
    image_sizes: Sequence[Size] | None = None,
    multiple_of: int = 32,
) -> tuple[Float[Tensor, "b c h w"], list[Size]]:
    """Returns one batch, padded with zeros below and to the right, and the (height, width) of each image in it.

    Args:
        images: A batch, or a list of images of different sizes; normalized.
        in_channels: Channels that the model takes.
        image_sizes: Of images in a batch that is padded already; without them every image fills it.
        multiple_of: Sides of the result are multiples of that many pixels.

    Raises:
        ValueError: The images do not fit the model, or the sizes do not fit the batch.
    """
    if not isinstance(images, Tensor):
        if not len(images):
            raise ValueError("images is an empty list; the model needs at least one image.")
        for image in images:
            check_images(image[None] if image.ndim == 3 else image, in_channels)
        if image_sizes is not None:
            raise ValueError("image_sizes belong to a padded batch; a list of images has their sizes already.")
        image_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (max(side) for side in zip(*image_sizes))
        images = F.pad(_stack_padded(images, height, width), (0, -width % multiple_of, 0, -height % multiple_of))
        return images, image_sizes
    check_images(images, in_channels)
    count, _, height, width = images.shape
    image_sizes = [(height, width)] * count if image_sizes is None else [(h, w) for h, w in image_sizes]
    if len(image_sizes) != count or any(h > height or w > width for h, w in image_sizes):
        raise ValueError(f"image_sizes is {image_sizes} for {count} images of at most {height}x{width} pixels.")
    return F.pad(images, (0, -width % multiple_of, 0, -height % multiple_of)), image_sizes


def _stack_padded(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image in zip(batch, images):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def sizes_tensor(sizes: Sequence[Size], like: Tensor) -> Int[Tensor, "b 2"]:
    """Returns (height, width) of images as a tensor beside `like`."""
    return torch.tensor(sizes, device=like.device)


def inside_images(batch: Float[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"]) -> Bool[Tensor, "b 1 h w"]:
    """Returns where a padded batch shows an image."""
    height, width = batch.shape[-2:]
    rows = torch.arange(height, device=batch.device) < sizes[:, :1]
    columns = torch.arange(width, device=batch.device) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def fill_padding(batch: Float[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"], value: float) -> Float[Tensor, "b c h w"]:
    """Returns the batch with `value` where there is no image."""
    return torch.where(inside_images(batch, sizes), batch, value)


def check_targets(targets: Sequence[Target], num_images: int, num_classes: int, *extra: str) -> None:
    """Raises unless there is one target per image with fitting `boxes` (n, 4), `labels` (n,), and `extra` keys.

    Raises:
        ValueError: Something is missing or of the wrong shape, a box has no area, or a label is no class.
    """
    if len(targets) != num_images:
        raise ValueError(f"There are {len(targets)} targets for {num_images} images; each image needs one.")
    for place, target in enumerate(targets):
        missing = [key for key in ("boxes", "labels", *extra) if key not in target]
        if missing:
            raise ValueError(f"Target {place} lacks {', '.join(missing)}.")
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
            raise ValueError(
                f"The boxes of target {place} are {boxes.dtype} of shape {tuple(boxes.shape)}; "
                "they must be floats (n, 4), xyxy in pixels."
            )
        for key in ("labels", *extra):
            if len(target[key]) != len(boxes):
                raise ValueError(f"Target {place} has {len(boxes)} boxes and {len(target[key])} {key}.")
        flat = ~(boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if flat.any():
            which = int(flat.nonzero()[0])
            raise ValueError(f"Box {which} of target {place} is {boxes[which].tolist()}; it has no width or height.")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
            raise ValueError(
                f"The labels of target {place} run from {int(labels.min())} to {int(labels.max())}; "
                f"with num_classes={num_classes} they must lie in 0 to {num_classes - 1}."
            )
