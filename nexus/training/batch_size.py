"""`batch_size=auto`: the largest batch whose step fits into memory, by what a small one keeps for its backward pass."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nexus.data.facets import Rays
from nexus.tasks.protocol import Task
from nexus.tasks.source import place_for
from nexus.training.assembly import assemble
from nexus.training.distributed import world
from nexus.training.precision import Precision
from nexus.training.recipe import Recipe
from nexus.training.trainer import Trainer, cpu_threads

AUTO = "auto"
SHARE = 0.6
"""Of the free memory that a step may take; gradients, temporaries and fragments need the rest."""
COPIES = 4
"""Of the weights: themselves, their gradients, and the two averages of Adam."""
MOST = 1024
"""Items in a batch: more change how a recipe trains, not how fast."""
PROBES = (2, 4)
"""Batches whose memory is compared."""


def with_largest_batch(trainer: Trainer) -> Trainer:
    """Gives a run that has not begun the largest batch that fits, a power of two, at most a quarter of the items.

    Raises:
        ValueError: The data has fewer than four items, or not even one fits.
    """
    recipe = trainer.recipe
    with cpu_threads(recipe.training.num_threads), world(recipe.training.device) as processes:
        small = recipe.replace(
            training=recipe.training.replace(batch_size=PROBES[-1] * processes.size, accumulate=1), augment={}
        )
        parts = assemble(small, processes, trainer.model, trainer.train_data, None)
        items, share = len(parts.train.dataset), processes.size * recipe.training.accumulate
        precision = Precision(recipe.training.precision, processes.device)
        parts.model.to(processes.device)
        batch = next(iter(parts.train.epoch(0)))
        before = {name: value.detach().clone() for name, value in parts.model.state_dict().items()}
        costs = [_kept(parts.task, parts.model, _first(batch, count), precision) for count in PROBES]
        parts.model.load_state_dict(before)  # running statistics have moved
        each = max(1.0, (costs[1] - costs[0]) / (PROBES[1] - PROBES[0]))
        weights = COPIES * sum(p.numel() * p.element_size() for p in parts.model.parameters())
        fitting = int((SHARE * free_memory(processes.device) - weights) / each)
        of_data = MOST if isinstance(parts.train.dataset, Rays) else max(1, items // 4)
        trainer.recipe = _sized(recipe, min(processes.size * fitting, of_data, MOST), share)
    return trainer


def _sized(recipe: Recipe, most: int, share: int) -> Recipe:
    size = share * (1 << max(0, (most // share).bit_length() - 1)) if most >= share else 0
    if size == 0:
        raise ValueError("Not one item fits into the free memory, or the data has too few; use a smaller image_size.")
    return recipe.replace(training=recipe.training.replace(batch_size=size))


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _first(batch: Any, count: int) -> dict[str, Any]:
    """Returns the first items of a batch; what is shared by all stays."""
    length = len(batch["index"])
    return {
        key: value[:count] if isinstance(value, Tensor | list | tuple) and len(value) == length else value
        for key, value in batch.items()
    }


def _kept(task: Task, model: nn.Module, batch: dict[str, Any], precision: Precision) -> int:
    """Returns the bytes that the losses of a batch keep for the backward pass, besides the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    model.train()
    with saved_tensors_hooks(note, lambda value: value), precision.autocast():
        losses = task.losses(model, place_for(model, batch))[1]
    del losses
    return sum(kept.values())
