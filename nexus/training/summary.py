"""What a run is about to do, told before its first step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from nexus.core.text import one_line
from nexus.data.dataset import open_sample
from nexus.data.facets import Annotated, Labelled, Pictured, class_names_of
from nexus.data.images import image_size
from nexus.training.assembly import Parts
from nexus.training.distributed import World
from nexus.training.length import Length
from nexus.training.recipe import Recipe

LOOKED_AT = 32
"""Images that are opened to tell their sizes."""
NAMED = 12
"""Classes that are named."""


def describe_start(parts: Parts, recipe: Recipe, world: World, run_dir: Path) -> dict[str, str]:
    """Returns by topic what a run is made of, how long it is and what it writes.

    Raises:
        ImageError: One of the images that are looked at cannot be read.
    """
    told = {"model": _model(parts, recipe), "data": _data(parts, recipe)}
    if class_names_of(parts.train.dataset):
        told["classes"] = _classes(parts.train.dataset)
    if _has_pictures(parts.train.dataset):
        told["images"] = _images(parts, recipe)
    return told | {
        "training": _training(parts, recipe),
        "device": _device(world),
        "written": f"{run_dir}: recipe.yaml, metrics.jsonl, checkpoints/, model/",
    }


def as_lines(told: Mapping[str, str]) -> str:
    """Returns topics and what is told of them, a line each; names out of files move no cursor."""
    width = max(map(len, told))
    return "\n".join(f"{topic:{width}}  {one_line(text)}" for topic, text in told.items())


def _model(parts: Parts, recipe: Recipe) -> str:
    model, settings = parts.model, recipe.model
    total = sum(parameter.numel() for parameter in model.parameters())
    start = settings.checkpoint or ("published weights" if settings.pretrained else "fresh weights")
    start = start if settings.name else "weights as given"
    probe = ", the head alone is trained" if recipe.training.linear_probe else ""
    frozen = f", frozen: {', '.join(recipe.training.freeze)}" if recipe.training.freeze else ""
    return f"{settings.name or type(model).__name__}, {total:,} parameters, {start}{probe}{frozen}"


def _data(parts: Parts, recipe: Recipe) -> str:
    train, val = parts.train.dataset, parts.val and parts.val.dataset
    held_out = "none held out, so nothing is validated" if val is None else f"{len(val):,} held out"
    return f"{getattr(train, 'name', recipe.data.source)}: {len(train):,} to train on, {held_out}"


def _classes(dataset: Any) -> str:
    """The classes and how often each occurs: images, or objects where they are annotated."""
    names = class_names_of(dataset)
    if isinstance(dataset, Annotated):
        labels = [thing.label for scene in dataset.annotations.scenes for thing in scene.objects]
    else:
        assert isinstance(dataset, Labelled)
        labels = dataset.labels
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(names)).tolist()
    shown = ", ".join(f"{name} {count:,}" for name, count in list(zip(names, counts))[:NAMED])
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)}: {shown}{more}"


def _has_pictures(dataset: Any) -> bool:
    """Whether items are images; those of somebody else's kind may be anything."""
    return isinstance(dataset, Pictured) and hasattr(open_sample(cast(Any, dataset), 0), "image")


def _images(parts: Parts, recipe: Recipe) -> str:
    """The sizes of a few images, spread over the data, and what they become."""
    dataset = parts.train.dataset
    places = sorted({round(place) for place in np.linspace(0, len(dataset) - 1, LOOKED_AT)})
    sizes = sorted({image_size(open_sample(dataset, place).image) for place in places})
    seen = _range(sizes)
    preprocessing = getattr(parts.model, "preprocessing", None) or recipe.data.preprocessing
    if preprocessing is None:
        return seen
    return f"{seen} ({len(places)} looked at), to {_size(preprocessing.image_size)} by {preprocessing.resize!r}"


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    heights, widths = zip(*sizes)
    smallest, largest = (min(heights), min(widths)), (max(heights), max(widths))
    return _size(smallest) if smallest == largest else f"{_size(smallest)} to {_size(largest)}"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _training(parts: Parts, recipe: Recipe) -> str:
    settings, optimizer, per_epoch = recipe.training, recipe.optimizer, parts.train.steps_per_epoch
    length = Length.of(settings, per_epoch)
    long = f"{settings.epochs} epochs of {per_epoch} steps" if length.in_epochs else f"{length.steps:,} steps"
    return (
        f"{long}, {settings.batch_size} items each, {optimizer.name} at {optimizer.lr:g} ({recipe.schedule.name}),"
        f" {settings.precision}, seed {settings.seed}"
    )


def _device(world: World) -> str:
    threads = f", {torch.get_num_threads()} threads" if world.device.type == "cpu" else ""
    return f"{world.device}{threads}, {world.size} {'process' if world.size == 1 else 'processes'}"
