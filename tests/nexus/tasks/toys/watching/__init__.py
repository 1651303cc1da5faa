"""Memory between frames: is a frame lighter than every one before it?"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nexus.core.module import NexusModule
from nexus.tasks.classification.metrics import ClassificationMetrics
from nexus.tasks.protocol import Task
from nexus.tasks.report import Report
from nexus.tasks.session import OneByOne
from toys.common import SIDE, Said, ToyConfig, split_rng

NAMES = ("darker", "lightest so far")
FRAMES = 5


class Data:
    """Clips of even frames; a batch is of clips."""

    name, in_channels, class_names = "toy-watching", 3, NAMES

    def __init__(self, split: str = "train"):
        self.values = split_rng(split).random((48, FRAMES), dtype=np.float32)
        self.num_frames = [FRAMES] * 48

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return torch.tensor(self.values[index]).view(FRAMES, 1, 1, 1).expand(FRAMES, 3, SIDE, SIDE)


class Watcher(NexusModule):
    """Compares a frame with the lightest before it."""

    config: ToyConfig
    task = "toy-watching"

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(1, 2)

    def forward(self, frame, memory):
        light = frame.mean(dim=(1, 2, 3))
        return {"logits": self.head((light - memory)[:, None] * 20), "memory": torch.maximum(light, memory)}


@dataclass(frozen=True)
class Clips:
    """Makes batches of clips."""

    def make_batch(self, dataset, indices, rngs):
        values = torch.tensor(dataset.values[indices])
        before = torch.cummax(F.pad(values[:, :-1], (1, 0), value=-10.0), dim=1).values
        clips = torch.stack([dataset[index] for index in indices])
        return {"clips": clips, "labels": (values > before).long(), "index": torch.tensor(indices)}


class FrameMetrics(ClassificationMetrics):
    """Accuracy over all frames."""

    def update(self, outputs, batch):
        super().update({"logits": outputs["logits"].flatten(0, 1)}, {"labels": batch["labels"].flatten()})

    def report(self, dataset):
        return Report(data=dataset.name, task="toy-watching", num_images=len(dataset), metrics=self.compute())


class Watch(OneByOne):
    """Remembers the lightest frame."""

    memory = torch.tensor([-10.0])

    def push(self, view):
        outputs = self.model(view.pixels[None], self.memory)
        self.memory = outputs["memory"]
        return self.task.results(outputs, [view.info])[0]


@dataclass(frozen=True)
class Watching(Task):
    """Cross-entropy of every frame."""

    class_names: tuple[str, ...] = NAMES
    name = "toy-watching"
    headline = "top1"

    def check_data(self, dataset):
        if not hasattr(dataset, "num_frames"):
            raise ValueError(f"{dataset.name} has no clips.")

    def transforms(self, preprocessing, augment):
        return Clips(), Clips()

    def losses(self, model, batch):
        outputs = self.predict(model, batch)
        return outputs, {"frames": F.cross_entropy(outputs["logits"].flatten(0, 1), batch["labels"].flatten())}

    def predict(self, model, batch):
        memory, logits = batch["clips"].new_full((len(batch["clips"]),), -10.0), []
        for frame in batch["clips"].unbind(1):
            outputs = model(frame, memory)
            memory = outputs["memory"]
            logits.append(outputs["logits"])
        return {"logits": torch.stack(logits, dim=1)}

    def metrics(self):
        return FrameMetrics()

    def session(self, model, prompts=None):
        return Watch(self, model)

    def results(self, outputs, infos):
        found = outputs["logits"].argmax(dim=1).tolist()
        return [Said(info.path, NAMES[label], info.image) for info, label in zip(infos, found)]

    def draw(self, image, result):
        return result.draw()


TASK = Watching
Model = Watcher
