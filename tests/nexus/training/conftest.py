"""A small run that takes about a second, here or in a process of its own that may be killed."""

import json
import multiprocessing
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nexus.data import Sample
from nexus.training import Recipe
from nexus.training.recipe_files import recipe_from_mapping

CHILD = Path(__file__).with_name("child.py")


class Stripes:
    """Images of 8 x 8 random pixels with a bright row; the row's number is the class."""

    class_names = ("first", "second", "third", "fourth")
    in_channels = 1

    def __init__(self, count: int, seed: int, name: str = "stripes") -> None:
        rng = np.random.default_rng(seed)
        self.name = name
        self.labels = rng.integers(0, 4, count)
        self.images = rng.integers(0, 128, (count, 8, 8, 1), dtype=np.uint8)
        for image, label in zip(self.images, self.labels, strict=True):
            image[2 * label] += 100

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), f"{self.name}[{index}]")


SMALL: dict[str, Any] = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "config": {
            "patch_size": 4,
            "embed_dim": 16,
            "num_layers": 2,
            "num_heads": 2,
            "dropout": 0.1,
            "drop_path_rate": 0.1,
            "weight_std": 0.2,
            "position_std": 0.5,
        },
    },
    "data": {"preprocessing": {"image_size": [8, 8], "resize": "none", "mean": [0.5], "std": [0.25]}},
    "augment": {"pad_crop": 1},
    "optimizer": {"lr": 3e-3},
    "schedule": {"warmup_epochs": 1},
    "training": {"epochs": 3, "batch_size": 16, "log_every": 3, "checkpoint_every": 3, "device": "cpu"},
}


def small_recipe(**changes: dict[str, Any]) -> Recipe:
    """The small run's recipe, with changes per section."""
    return recipe_from_mapping({**SMALL, **{name: {**SMALL[name], **values} for name, values in changes.items()}})


def small_data() -> dict[str, Stripes]:
    """8 steps per epoch at batch 16, with 11 images over; 21 held out, which two processes share unevenly."""
    return {"train_data": Stripes(139, 0), "val_data": Stripes(21, 1)}


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The helpers of this file: `recipe`, `data`, `Stripes`, `read_metrics`, `start`."""
    return SimpleNamespace(
        recipe=small_recipe, data=small_data, Stripes=Stripes, read_metrics=read_metrics, start=start_child
    )


def start_child(run_dir: Path, recipe: Recipe, **settings: Any) -> Any:
    """Starts the small run in a process forked from one that has torch imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "nexus.training", "nexus.models.cv"])
    settings = {"run_dir": run_dir, "recipe": recipe, "data": str(Path(__file__)), **settings}
    process = context.Process(target=runpy.run_path, args=(str(CHILD), settings, "__main__"))
    process.start()
    return process


@pytest.fixture(autouse=True)
def _keep_global_state() -> Any:
    """Training seeds the global generators; each test leaves them as they were."""
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    yield
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
