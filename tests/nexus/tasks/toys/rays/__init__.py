"""Items are rays: what colour is seen along a direction? Training counts steps; a camera is the prompt."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import nn

from nexus.core.config import Config
from nexus.core.module import NexusModule
from nexus.tasks.protocol import Task
from nexus.tasks.report import Report
from nexus.tasks.session import OneByOne
from toys.common import SIDE, split_rng

GRID = torch.stack(torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="xy"), dim=-1)


def directions(camera):
    """The rays of a camera, (n, 2): it looks at a part of the plane that begins at its corner."""
    return (GRID + torch.as_tensor(camera, dtype=torch.float32)).reshape(-1, 2)


def colours(rays):
    """The scene: what is seen along rays (n, 2)."""
    return torch.cat([rays / 2, rays.sum(dim=1, keepdim=True) / 4], dim=1)


class Data:
    """Views of a plane; 4 to train on, 2 held out."""

    name = "toy-rays"

    def __init__(self, split: str = "train"):
        self.cameras = split_rng(split).random((4 if split == "train" else 2, 2), dtype=np.float32)
        self._rays = torch.cat([directions(camera) for camera in self.cameras])
        self.num_rays = len(self._rays)

    def __len__(self):
        return len(self.cameras)

    def __getitem__(self, index):
        return directions(self.cameras[index])

    def rays(self, places):
        rays = self._rays[torch.as_tensor(places)]
        return {"rays": rays, "colours": colours(rays)}


@dataclass(frozen=True, kw_only=True)
class RayConfig(Config):
    """Of the field."""

    width: int = 16


class Field(NexusModule):
    """A field from rays to colours."""

    config: RayConfig
    task = "toy-rays"

    def __init__(self, config):
        super().__init__(config)
        width = self.config.width
        self.layers = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, rays):
        return {"colours": self.layers(rays)}


class Views:
    """Makes batches of whole views."""

    def make_batch(self, dataset, indices, rngs):
        rays = torch.stack([dataset[index] for index in indices])
        seen = torch.stack([colours(one) for one in rays])
        return {"rays": rays, "colours": seen, "index": torch.tensor(indices)}


class Psnr:
    """Peak signal-to-noise ratio over all pixels."""

    def __init__(self):
        self.errors = []

    def update(self, outputs, batch):
        self.errors.append((outputs["colours"] - batch["colours"]).square().mean(dim=(1, 2)))

    def synchronize(self):
        pass

    def compute(self):
        return {"psnr": -10 * torch.log10(torch.cat(self.errors).mean()).item()}

    def report(self, dataset):
        return Report(data=dataset.name, task="toy-rays", num_images=len(dataset), metrics=self.compute())


@dataclass(frozen=True, eq=False)
class Rendered:
    """What a camera sees."""

    path: str
    pixels: np.ndarray = field(repr=False)
    formats: ClassVar[dict[str, Any]] = {}

    def to_json(self, count=5):
        return {"path": self.path, "mean": float(self.pixels.mean())}

    def to_rows(self, count=5):
        return [self.to_json()]

    def draw(self):
        return Image.fromarray((self.pixels.clip(0, 1) * 255).astype(np.uint8))


class Rendering(OneByOne):
    """Each prompt is a camera."""

    def __init__(self, task, model, cameras):
        super().__init__(task, model)
        self.cameras = cameras

    def push(self, view):
        seen = self.model(directions(self.cameras[view.number]))["colours"]
        return Rendered(view.info.path, seen.reshape(SIDE, SIDE, 3).numpy())


@dataclass(frozen=True)
class Rays(Task):
    """Squared error of colours."""

    class_names: tuple[str, ...] = ()
    name = "toy-rays"
    headline = "psnr"
    takes_images = False

    def check_data(self, dataset):
        if not hasattr(dataset, "num_rays"):
            raise ValueError(f"{dataset.name} has no rays.")

    def transforms(self, preprocessing, augment):
        return Views(), Views()

    def losses(self, model, batch):
        outputs = self.predict(model, batch)
        return outputs, {"colour": F.mse_loss(outputs["colours"], batch["colours"])}

    def predict(self, model, batch):
        return model(batch["rays"])

    def metrics(self):
        return Psnr()

    def session(self, model, prompts=None):
        return Rendering(self, model, prompts)

    def read_prompts(self, texts):
        return [tuple(float(number) for number in text.split(",")) for text in texts]

    def draw(self, image, result):
        return result.draw()


TASK = Rays


def render(
    model: Annotated[Path, typer.Argument(help="A run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")],
    camera: Annotated[str, typer.Option("--camera", help="Where it begins.")] = "0,0",
) -> None:
    """See what a camera sees: a command that this kind alone has."""
    from nexus.predict import Predictor

    predictor = Predictor(model)
    predictor(prompts=predictor.task.read_prompts([camera]))[0].draw().save(output)
    typer.echo(f"Drawn into {output}.")


COMMANDS = {"render": render}
Model = Field
