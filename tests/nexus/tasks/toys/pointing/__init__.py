"""A prompt per image: is it light where you point?"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.module import NexusModule
from nexus.data import Sample
from nexus.tasks.classification.metrics import AnswerMetrics
from nexus.tasks.protocol import Task
from nexus.tasks.session import Stateless, view_batch
from toys.common import SIDE, Making, Said, ToyConfig, split_rng

NAMES = ("dark", "light")


class Data:
    """Pictures of light and dark pixels, each with a point (x, y)."""

    name, in_channels, class_names = "toy-pointing", 3, NAMES

    def __init__(self, split: str = "train"):
        rng = split_rng(split)
        self.images = np.repeat(rng.integers(0, 2, (64, SIDE, SIDE, 1), dtype=np.uint8) * 255, 3, axis=3)
        self.points = rng.integers(0, SIDE, (64, 2))
        self.labels = np.array([int(i[y, x, 0] > 0) for i, (x, y) in zip(self.images, self.points)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Sample(self.images[index], int(self.labels[index]), f"{self.name}[{index}]")


class Pointer(NexusModule):
    """Looks at the pixel alone."""

    config: ToyConfig
    task = "toy-pointing"

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(3, 2)

    def forward(self, images, points):
        places = torch.arange(len(images), device=images.device)
        return {"logits": self.head(images[places, :, points[:, 1], points[:, 0]])}


class PointSession(Stateless):
    """Each image has a point of its own."""

    def __init__(self, task, model, points):
        super().__init__(task, model)
        self.points = points

    def push_all(self, views):
        points = torch.tensor([self.points[view.number] for view in views])
        batch = {**view_batch(views, self.model), "points": points}
        return self.task.results(self.outputs(batch), [view.info for view in views])


@dataclass(frozen=True)
class Pointing(Task):
    """Cross-entropy of the pixel."""

    class_names: tuple[str, ...] = NAMES
    name = "toy-pointing"
    headline = "top1"

    def check_data(self, dataset):
        if not hasattr(dataset, "points"):
            raise ValueError(f"{dataset.name} has no points.")

    def transforms(self, preprocessing, augment):
        made = Making(
            preprocessing,
            lambda data, i: {"points": torch.tensor(data.points[i]), "labels": torch.tensor(data.labels[i])},
        )
        return made, made

    def losses(self, model, batch):
        outputs = self.predict(model, batch)
        return outputs, {"pixel": F.cross_entropy(outputs["logits"], batch["labels"])}

    def predict(self, model, batch):
        return model(batch["images"], batch["points"])

    def metrics(self):
        return AnswerMetrics(self.name, self.class_names)

    def session(self, model, prompts=None):
        return Stateless(self, model) if prompts is None else PointSession(self, model, prompts)

    def read_prompts(self, texts):
        return [tuple(int(number) for number in text.split(",")) for text in texts]

    def results(self, outputs, infos):
        found = outputs["logits"].argmax(dim=1).tolist()
        return [Said(info.path, NAMES[label], info.image) for info, label in zip(infos, found)]

    def draw(self, image, result):
        return result.draw()


TASK = Pointing
Model = Pointer
