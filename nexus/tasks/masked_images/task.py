"""Masked-image pre-training: a model paints the patches that it does not see.

Dims: b batch, c channels, h w pixels, n patches, p values of a patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from einops import repeat
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.tasks.masked_images.metrics import ReconstructionMetrics
from nexus.tasks.masked_images.reconstruction import Reconstruction
from nexus.tasks.protocol import Task
from nexus.tasks.source import device_of
from nexus.tasks.views import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


class MaskedImageModel(Protocol):
    """What the task asks of a model: `nexus.models.cv.MAE` has it."""

    preprocessing: Preprocessing | None

    def __call__(self, images: Tensor, *, noise: Tensor | None = None) -> dict[str, Any]:
        """Returns `losses`, `predictions` (b, n, p) and `mask` (b, n), 1 where a patch was hidden."""
        ...

    def patch_grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns the rows and columns of patches of an image of `(height, width)` pixels."""
        ...

    def target(self, images: Tensor) -> Tensor:
        """Returns what `predictions` should be."""
        ...

    def to_classifier(self, num_classes: int) -> nn.Module:
        """Returns the encoder with a head, or without one for 0 classes."""
        ...

    def paint(self, images: Tensor, outputs: Mapping[str, Any]) -> Tensor:
        """Returns the images with hidden patches as they were painted."""
        ...


@dataclass(frozen=True)
class MaskedImageTask(Task):
    """Mean squared error on hidden patches; labels are not used.

    Training draws another mask at each step. Measuring and predicting draw it from the image's place in the data, so
    that figures of several runs and epochs can be compared.

    Attributes:
        class_names: Names of the data's classes, which nothing is predicted of.
    """

    class_names: tuple[str, ...] = ()

    name = "masked-image-modeling"
    headline = "explained"

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError if the data set is empty."""
        if len(dataset) == 0:
            raise ValueError(f"The data set {dataset.name!r} is empty.")

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its own `losses`, with masks drawn anew."""
        outputs = model(batch["images"])
        if "losses" not in outputs:
            raise ValueError(
                f"{type(model).__name__} gives {', '.join(outputs)}; a model for {self.name} gives 'losses'."
            )
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the model's outputs with `target`, `images`, `painted` (b, c, h, w) and `hidden` (b, h, w)."""
        painter, images = cast("MaskedImageModel", model), batch["images"]
        rows, columns = painter.patch_grid(images.shape[-2:])
        places = batch["index"].tolist()
        noise = torch.stack([_noise(place, rows * columns) for place in places]).to(images.device)
        outputs = painter(images, noise=noise)
        height, width = images.shape[-2] // rows, images.shape[-1] // columns
        return {
            **outputs,
            "target": painter.target(images),
            "images": images,
            "painted": painter.paint(images, outputs),
            "hidden": repeat(outputs["mask"], "b (r c) -> b (r p) (c q)", r=rows, p=height, q=width),
            "preprocessing": painter.preprocessing,
        }

    def metrics(self) -> ReconstructionMetrics:
        """Returns fresh share of explained variance and loss."""
        return ReconstructionMetrics(self.name)

    def feature_model(self, model: nn.Module) -> nn.Module:
        """Returns the encoder alone, which sees the whole image; its embeddings are the mean of the patches."""
        return cast("MaskedImageModel", model).to_classifier(0).to(device_of(model))

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Reconstruction]:
        """Returns one `Reconstruction` per image."""
        error = (outputs["predictions"].float() - outputs["target"].float()).square().mean(dim=-1)
        losses = (error * outputs["mask"]).sum(dim=1) / outputs["mask"].sum(dim=1).clamp(min=1)
        channels = outputs["images"].shape[1]
        preprocessing = outputs["preprocessing"] or Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
        hidden, images, painted = (outputs[name].detach().float().cpu() for name in ("hidden", "images", "painted"))
        return [
            Reconstruction(info.path, loss, hidden[i], images[i], painted[i], preprocessing)
            for i, (info, loss) in enumerate(zip(infos, losses.tolist(), strict=True))
        ]

    def draw(self, image: "Image", result: Reconstruction) -> "Image":
        """Returns what the model saw, what it painted, and the image as it saw it."""
        del image
        return result.draw()


def _noise(place: int, num_patches: int) -> Tensor:
    """Returns the numbers that decide which patches of the image at this place are hidden."""
    return torch.rand(num_patches, generator=torch.Generator().manual_seed(place))
