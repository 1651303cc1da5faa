"""One step of training and one pass of validation, on whatever processes, precision and sharding a run has."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nexus.core.config import nearest
from nexus.data import Loader
from nexus.data.batch import split
from nexus.data.foreign_loader import ForeignLoader
from nexus.tasks.measuring import measure
from nexus.tasks.protocol import Task
from nexus.tasks.source import place_for
from nexus.training.distributed import World, distribute
from nexus.training.ema import WeightAverage, copy_values
from nexus.training.optimizers import make_optimizer
from nexus.training.precision import Precision
from nexus.training.random_state import random_state, set_random_state
from nexus.training.recipe import Recipe
from nexus.training.schedules import make_schedule
from nexus.training.sharding import load_optimizer_state, load_values, local, optimizer_state, unsharded, whole

Batch = Mapping[str, Any]


class Engine:
    """A model with all that trains it.

    Attributes:
        model: The model itself, sharded in place with FSDP.
        module: What is called in training: the model, or DDP around it.
        sharded: Whether FSDP spreads the model over the processes.
        loss_names: Names of the values that `step` returns, in order; empty before the first step.
    """

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, world: World, steps_per_epoch: int | None) -> None:
        settings = recipe.training
        self.task, self.world, self.settings = task, world, settings
        self.head = freeze_all_but_head(model) if settings.linear_probe else None
        self.frozen = freeze(model, settings.freeze)
        if settings.gradient_checkpointing:
            checkpoint_activations(model)
        self.model = model.to(world.device)
        if settings.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        self.sharded = settings.sharding == "fsdp" and world.size > 1
        self._unsharded = copy.deepcopy(model).cpu() if self.sharded and world.is_main else None
        if settings.compile:
            self.model.compile()
        self.module = distribute(self.model, world, settings.sharding, settings.sync_batchnorm)
        self.optimizer = make_optimizer(self.model, recipe.optimizer, settings.batch_size)
        self.schedule = make_schedule(self.optimizer, recipe.schedule, steps_per_epoch, settings.epochs, settings.steps)
        self.precision = Precision(settings.precision, world.device)
        self.average = WeightAverage(self.model, settings.ema) if settings.ema is not None else None
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.loss_names: tuple[str, ...] = ()

    @property
    def lr(self) -> float:
        """The highest learning rate of the next step."""
        return max(float(rate) for rate in self.schedule.get_last_lr())

    def train(self) -> None:
        """Puts the modules that are trained in training mode."""
        if self.head is None:
            self.module.train()
            for module in self.frozen:
                module.eval()
        else:
            self.module.eval()
            self.head.train()

    def step(self, batch: Batch) -> Tensor:
        """Takes one optimizer step on this process's part of a batch.

        Returns the values of `loss_names` on the device: each loss of the task, then, with clipping, the gradient's
        norm. Nothing here waits for the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        values: list[Tensor] = []
        parts = split(self._place(batch), self.settings.accumulate)
        for number, part in enumerate(parts, start=1):
            with self._synchronize(number == len(parts)):
                with self.precision.autocast():
                    losses = self.task.losses(self.module, part)[1]  # the outputs are not kept over the backward pass
                    scaled = [loss / len(parts) for loss in losses.values()]
                    total = torch.stack(scaled).sum() if len(scaled) > 1 else scaled[0]
                self.precision.backward(total)
            detached = [loss.detach() for loss in scaled]
            values = [a + b for a, b in zip(values, detached, strict=True)] if values else detached
            self.loss_names = tuple(losses)
        norm = self.precision.step(self.optimizer, self.parameters, self.settings.clip_norm)
        if norm is not None:
            values.append(unsharded(norm))
            self.loss_names += ("gradient_norm",)
        self._step_schedule()
        if self.average is not None:
            self.average.update(self.model)
        return torch.stack([value.float() for value in values])

    @torch.no_grad()
    def evaluate(self, loader: Loader | ForeignLoader) -> dict[str, float]:
        """Returns the task's figures over all processes' batches, with the averaged weights if there are any."""
        self.module.eval()
        with nullcontext() if self.average is None else self.average.applied(self.model):
            metrics = measure(self.task, self.model, loader.epoch(0), self._place, self.precision.autocast)
            if self.sharded:
                self._keep_company(loader)
        metrics.synchronize()
        return metrics.compute()

    def finished_model(self) -> nn.Module | None:
        """Returns the model in evaluation mode, whole, with the weights that count; with FSDP in the main process."""
        if self.average is not None:
            copy_values(self.model, self.average.values)
        self.model.eval()
        if not self.sharded:
            return self.model
        state = whole(self.model.state_dict())
        if self._unsharded is not None:
            self._unsharded.load_state_dict(state)
            self._unsharded.eval()
        return self._unsharded

    def state(self) -> dict[str, Any]:
        """Returns everything that decides the next step, whole and on the CPU.

        All processes call it together; without sharding the main process alone gets it.
        """
        average, random = self.average, self.world.gather(random_state())
        if not (self.sharded or self.world.is_main):
            return {}
        return {
            "model": whole(self.model.state_dict()),
            "model_ema": whole(average.values) if average is not None else None,
            "ema_updates": average.updates if average is not None else 0,
            "optimizer": optimizer_state(self.optimizer, self.model),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "loss_names": list(self.loss_names),
            "random": random,
        }

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Takes the weights alone of what `state` returned."""
        load_values(self.model.state_dict(), state["model"], "weight")
        if self.average is not None:
            load_values(self.average.values, state["model_ema"], "averaged weight")

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned, on any number of processes.

        Raises:
            ValueError: It is of another model or optimizer.
        """
        self.load_weights(state)
        if self.average is not None:
            self.average.updates = state["ema_updates"]
        rates = list(self.schedule.base_lrs)
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._put_rates(rates)
        self.precision.scaler.load_state_dict(state["scaler"])
        self.loss_names = tuple(state["loss_names"])
        if self.world.rank < len(state["random"]):
            set_random_state(state["random"][self.world.rank])

    def _put_rates(self, rates: list[Any]) -> None:
        """Lets the recipe decide the rates at the step that was reached; they are the old ones unless it changed."""
        self.schedule.base_lrs = rates
        for group, rate, factor in zip(self.optimizer.param_groups, rates, self.schedule.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * factor(self.schedule.last_epoch)
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def first_broken_weight(self) -> str | None:
        """Returns the name of a weight that is not finite in some process, or None. This waits for the device."""
        names, weights = zip(*self.model.named_parameters(), strict=True)
        norms = torch.stack(torch._foreach_norm([local(weight.detach()).float() for weight in weights]))
        broken = self.world.sum((~norms.isfinite()).int().cpu()).nonzero()
        return names[int(broken[0])] if len(broken) else None

    def _step_schedule(self) -> None:
        """Moves the learning rate; it warns if fp16 skipped the very first step, which is no mistake."""
        if self.schedule.last_epoch > 0 or not self.precision.scaler.is_enabled():
            self.schedule.step()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.schedule.step()

    def _place(self, batch: Batch) -> dict[str, Any]:
        placed = place_for(self.model, batch)
        if not self.settings.channels_last:
            return placed
        return {key: _channels_last(value) for key, value in placed.items()}

    @contextmanager
    def _synchronize(self, now: bool) -> Iterator[None]:
        """Within the context gradients are shared between processes only if `now`."""
        if isinstance(self.module, DistributedDataParallel):
            with nullcontext() if now else self.module.no_sync():
                yield
        else:
            if self.sharded:
                from torch.distributed.fsdp import FSDPModule

                assert isinstance(self.model, FSDPModule)
                self.model.set_requires_gradient_sync(now)
            yield

    def _keep_company(self, loader: Loader | ForeignLoader) -> None:
        """Runs the sharded model on an image that does not count while other processes have a batch more."""
        missing = max(self.world.gather(len(loader))) - len(loader)
        for _ in range(missing):
            one = next(_single(loader))
            with self.precision.autocast():
                self.task.predict(self.model, self._place(one))


def _single(loader: Loader | ForeignLoader) -> Iterator[Any]:
    """Gives a batch that is as small as can be."""
    if isinstance(loader, ForeignLoader):
        return loader.epoch(0)
    return Loader(loader.dataset, loader.transform, batch_size=1).epoch(0)


def _channels_last(value: Any) -> Any:
    is_maps = isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()
    return value.contiguous(memory_format=torch.channels_last) if is_maps else value


def freeze_all_but_head(model: nn.Module) -> nn.Module:
    """Freezes a model except for its last layer, `model.head` (or `fc`, `classifier`), and returns that layer.

    Raises:
        ValueError: The model has no such layer with parameters.
    """
    children = dict(model.named_children())
    for name in ("head", "fc", "classifier"):
        head = children.get(name)
        if head is not None and any(True for _ in head.parameters()):
            model.requires_grad_(False)
            head.requires_grad_(True)
            return head
    raise ValueError(
        f"training.linear_probe needs a model with a layer `head`; {type(model).__name__} has {', '.join(children)}."
    )


def freeze(model: nn.Module, starts: Sequence[str]) -> list[nn.Module]:
    """Freezes the parameters whose names begin so, and returns the modules whose names do.

    Raises:
        ValueError: No parameter's name begins with some start.
    """
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    for start in starts:
        found = [parameter for name, parameter in parameters.items() if start and name.startswith(start)]
        if not found:
            parts = {name.partition(".")[0] + "." for name in parameters}
            raise ValueError(f"training.freeze: no parameter starts with {start!r}. {nearest(start, parts)}")
        for parameter in found:
            parameter.requires_grad_(False)
    return [module for name, module in modules.items() if name and f"{name}.".startswith(tuple(starts))]


def checkpoint_activations(model: nn.Module) -> None:
    """Makes a model of the zoo recompute its activations.

    Raises:
        ValueError: The model is not a `NexusModule`.
    """
    from nexus.core.module import NexusModule

    if not isinstance(model, NexusModule):
        raise ValueError(f"training.gradient_checkpointing needs a NexusModule, not a {type(model).__name__}.")
    model.set_gradient_checkpointing()
