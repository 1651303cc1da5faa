"""Masked-image pre-training: a model paints the patches that it does not see.

Dims: b batch, c channels, h w pixels, n patches, p values of a patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from einops import repeat
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.tasks.distributed import sum_over_processes
from nexus.tasks.protocol import ImageInfo

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

    def paint(self, images: Tensor, outputs: Mapping[str, Any]) -> Tensor:
        """Returns the images with hidden patches as they were painted."""
        ...


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a model painted in one image.

    Attributes:
        path: The file, or the place in what was given.
        loss: Mean squared error on the hidden patches, in units of the model's target.
        hidden: (h, w), 1 where the model saw nothing.
        image: Normalized, (c, h, w).
        painted: The same with its hidden patches painted.
        preprocessing: With which the image was normalized.
    """

    path: str
    loss: float
    hidden: Tensor = field(repr=False)
    image: Tensor = field(repr=False)
    painted: Tensor = field(repr=False)
    preprocessing: Preprocessing = field(repr=False)

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Returns plain values that JSON can hold: path, loss, and the share that was hidden."""
        del count
        return {"path": self.path, "loss": self.loss, "hidden": self.hidden.mean().item()}

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the one line of a table."""
        return [self.to_json(count)]

    def draw(self) -> "Image":
        """Returns three pictures beside each other: what the model saw, what it painted, the image."""
        from nexus.visualization.reconstruction import Painting, reconstruction_sheet

        return reconstruction_sheet([Painting(self.image, self.painted, self.hidden)], self.preprocessing)


class ReconstructionMetrics:
    """How well hidden patches are painted, over all of them.

    `explained` is the share of their variance that the model explains (R squared): 1 is perfect, 0 is no better than
    their mean. `loss` is the mean squared error. The sums stay on the device of the outputs.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64)  # values, targets, squared targets, squared errors

    @torch.inference_mode(False)  # the sums are added to later, outside of it
    @torch.no_grad()
    def update(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Adds a batch: `predictions` and `target` (b, n, p) where `mask` (b, n) is 1."""
        del batch
        predictions, target = outputs["predictions"].double(), outputs["target"].double()
        mask = outputs["mask"].double()[..., None]
        error = (predictions - target) ** 2
        sums = [(mask * value).sum() for value in (torch.ones_like(target), target, target**2, error)]
        self._sums = self._sums.to(mask.device) + torch.stack(sums)

    def state(self) -> dict[str, Tensor]:
        """Returns the sums themselves: adding another process's state in place merges it."""
        return {"sums": self._sums}

    def synchronize(self) -> None:
        """Merges what all processes saw."""
        sum_over_processes(self.state().values())

    def compute(self) -> dict[str, float]:
        """Returns `explained` (at most 1) and `loss`.

        Raises:
            ValueError: No hidden patch was seen.
        """
        count, total, squares, errors = self._sums.tolist()
        if count == 0:
            raise ValueError("There is nothing to measure: not one hidden patch was seen. Is the data set empty?")
        variance = max(squares - total**2 / count, 1e-12)
        return {"explained": 1 - errors / variance, "loss": errors / count}


@dataclass(frozen=True)
class MaskedImageTask:
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
        places = batch["index"].tolist() if "index" in batch else range(len(images))
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
        return ReconstructionMetrics()

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
