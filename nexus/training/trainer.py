"""The loop: steps, epochs, validation, checkpoints, and going on exactly where a run stopped."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nexus.data import Dataset
from nexus.tasks.protocol import Loss
from nexus.training.assembly import Parts, assemble
from nexus.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_at,
    discard_newer,
    newest_checkpoint,
    newest_step,
    prune_checkpoints,
    save_checkpoint,
    tidy,
)
from nexus.training.distributed import World, world
from nexus.training.engine import Engine
from nexus.training.kept import figures_at, kept_sentence, write_result
from nexus.training.length import Length
from nexus.training.log import (
    Callback,
    DisplayName,
    MetricsFile,
    Record,
    Silence,
    announce,
    check_display,
    make_display,
)
from nexus.training.loggers import make_loggers
from nexus.training.random_state import seed_everything
from nexus.training.recipe import GIVEN, Recipe
from nexus.training.recipe_files import save_recipe
from nexus.training.result import FitResult
from nexus.training.resuming import check_data, check_free, check_recipe
from nexus.training.run_folder import held, write_model
from nexus.training.signals import Interrupted, StopRequest
from nexus.training.summary import as_lines, describe_start


class TrainingError(ValueError):
    """A run cannot go on: its loss is not a number. The last good checkpoint is kept."""


@dataclass
class Position:
    """How far a run is.

    Attributes:
        epoch: Epochs that are finished, validation included.
        batches: Steps done in the epoch under way.
        step: Optimizer steps done in all.
        best: The best headline metric so far.
        best_step: The step that it was measured at.
        validated: The step of the last validation.
        stale: Validations since the best one.
    """

    epoch: int = 0
    batches: int = 0
    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    validated: int = 0
    stale: int = 0


class Trainer:
    """Trains a model by a recipe, on one process or on all that `torchrun` started.

    Args:
        recipe: What to do.
        run_dir: Where the run is kept; a new folder, unless it is resumed.
        model: The model to train instead of the recipe's.
        train_data: The data to train on instead of the recipe's.
        val_data: The data to validate on; with `train_data` and without it there is no validation.
        resume: Continue the run in `run_dir` from its newest whole checkpoint, or start it if there is none.
        allow_changes: Go on though the data is no longer what it was.
        progress: What to show on standard error: a "bar", "lines", "off", or "auto".
        callbacks: Called with every record of the metrics, in the main process. One that raises `StopIteration` ends
            the run there, as if it had its length.
        loss: Called with a classifier's logits and the labels, instead of cross-entropy; returns a scalar.
    """

    def __init__(
        self,
        recipe: Recipe,
        run_dir: str | Path,
        *,
        model: nn.Module | None = None,
        train_data: Dataset | None = None,
        val_data: Dataset | None = None,
        resume: bool = False,
        allow_changes: bool = False,
        progress: DisplayName = "auto",
        callbacks: Sequence[Callback] = (),
        loss: Loss | None = None,
    ) -> None:
        self.recipe, self.run_dir, self.resume, self.allow_changes = recipe, Path(run_dir), resume, allow_changes
        self.model, self.train_data, self.val_data = model, train_data, val_data
        check_display(progress)
        self.progress, self.callbacks, self.loss = progress, tuple(callbacks), loss
        self.changed: list[str] = []  # keys that a resumed run goes on with otherwise

    def fit(self) -> FitResult:
        """Trains to the end of the recipe.

        Raises:
            ValueError: Recipe, model, data and folder do not fit together.
            TrainingError: A loss is not a number.
            CheckpointError: A checkpoint cannot be written, or none can be read.
            RunFolderError: The folder is in use, holds another run, or a file in it cannot be written.
            Interrupted: SIGTERM or SIGINT came; a checkpoint was saved.
        """
        started = time.monotonic()
        settings = self.recipe.training
        with cpu_threads(settings.num_threads), world(settings.device) as processes, held(self.run_dir, processes):
            checkpoint = processes.main_alone(self._find_checkpoint)
            seed_everything(self.recipe.training.seed)
            parts = assemble(self.recipe, processes, self.model, self.train_data, self.val_data)
            if self.loss is not None:
                parts = replace(parts, task=parts.task.with_loss(self.loss))
            data = processes.main_alone(lambda: self._check_data(checkpoint, parts))
            engine = Engine(parts.model, parts.task, self.recipe, processes, parts.train.steps_per_epoch)
            processes.main_alone(lambda: save_recipe(self._told(), self.run_dir / "recipe.yaml"))
            run = Run(self, parts, processes, engine, checkpoint, data)
            with run:
                run.introduce(self.recipe, self.changed)
                with StopRequest() as stop:
                    run.train(stop)
                model = run.finish()
        records, step = run.metrics.records, run.kept
        return FitResult(self.run_dir, records, figures_at(records, step), model, time.monotonic() - started, step)

    def _told(self) -> Recipe:
        """Returns the recipe as the run's folder tells it: data that was given is not the recipe's."""
        data = self.recipe.data if self.train_data is None else self.recipe.data.replace(source=GIVEN)
        return self.recipe.replace(data=data)

    def preview(self) -> dict[str, str]:
        """Returns what `fit` would do, by topic, and writes nothing; what it would refuse is refused here too."""
        settings = self.recipe.training
        with cpu_threads(settings.num_threads), world(settings.device) as processes:
            if self.resume:
                check_recipe(self.run_dir, self.recipe)
            else:
                check_free(self.run_dir)
            seed_everything(settings.seed)
            parts = assemble(self.recipe, processes, self.model, self.train_data, self.val_data)
            return describe_start(parts, self.recipe, processes, self.run_dir)

    def _find_checkpoint(self) -> Checkpoint | None:
        """Returns the checkpoint to go on from, once the folder is this run's to use."""
        if not self.resume:
            check_free(self.run_dir)
            return None
        folder = self.run_dir / "checkpoints"
        tidy(folder)
        checkpoint = newest_checkpoint(folder)
        if checkpoint is not None:
            self.changed = check_recipe(self.run_dir, self.recipe)
            discard_newer(folder, checkpoint.step)
        return checkpoint

    def _check_data(self, checkpoint: Checkpoint | None, parts: Parts) -> bytes:
        """Returns what the data is, once it is what the run was started with."""
        now = {
            name: loader.dataset for name, loader in (("train", parts.train), ("val", parts.val)) if loader is not None
        }
        return check_data(self.run_dir, checkpoint.data() if checkpoint else b"", now, self.allow_changes)


class Run:
    """A run under way: the engine, how far it is, and what it writes."""

    def __init__(
        self,
        trainer: Trainer,
        parts: Parts,
        processes: World,
        engine: Engine,
        checkpoint: Checkpoint | None,
        data: bytes,
    ) -> None:
        self.settings, self.run_dir, self.data = trainer.recipe.training, trainer.run_dir, data
        self.parts, self.world, self.engine = parts, processes, engine
        seed_everything(self.settings.seed + processes.rank)  # dropout differs between processes, weights do not
        self.position, self.kept = Position(), 0
        self.window: list[Tensor] = []  # of the steps since the last train record
        history = b"" if checkpoint is None else checkpoint.metrics()
        if checkpoint is not None:
            self._load(checkpoint)
        main = processes.is_main
        self.metrics = MetricsFile(self.run_dir / "metrics.jsonl" if main else None, history)
        self.length = Length.of(self.settings, parts.train.steps_per_epoch)
        self.batches: Iterator[Any] | None = None  # of the epoch under way
        self.display = make_display(trainer.progress if main else "off", self.length.steps, self.position.step)
        names = self.settings.all_loggers if main else ()
        self.loggers = make_loggers(names, self.run_dir, trainer.recipe.to_dict())
        self.callbacks = (*trainer.callbacks, *self.loggers) if main else ()
        self.may_stop, self.stopped = bool(trainer.callbacks), False  # a callback may end the run

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.display.close()
        self.metrics.close()
        for logger in self.loggers:
            logger.close()

    def introduce(self, recipe: Recipe, changed: Sequence[str]) -> None:
        """Shows what is about to be done, where anything is shown."""
        if isinstance(self.display, Silence):
            return
        self.display.message(as_lines(describe_start(self.parts, recipe, self.world, self.run_dir)))
        if self.position.step:
            other = f" with other values of {', '.join(changed)}" if changed else ""
            self.display.message(f"The run goes on at step {self.position.step}{other}.")

    def train(self, stop: StopRequest) -> None:
        """Trains and validates to the end of the run."""
        position, every = self.position, self.settings.checkpoint_every
        while not self._ended() or self._awaits_validation():
            self._train_part(stop)
            improved = self._validate()
            ended = self.length.ends_epoch(position.batches)
            if ended:
                position.epoch, position.batches, self.batches = position.epoch + 1, 0, None
            due = ended if every is None else self._is_due(every)
            if improved or due or self._ended():
                self._save()

    def _ended(self) -> bool:
        """Whether the run has its length, or got no better for as long as its recipe waits."""
        patience = self.settings.patience
        return (
            self.stopped
            or self.position.step >= self.length.steps
            or (patience is not None and self.position.stale >= patience)
        )

    def finish(self) -> nn.Module | None:
        """Writes `model/`, says which weights it holds, and returns the model."""
        self._go_back()
        model = self.engine.finished_model()
        if self.world.is_main and model is not None:
            write_model(model, self.run_dir)
            self._tell_kept()
        self.world.barrier()
        return model

    def _go_back(self) -> None:
        """Takes the weights of the best checkpoint, unless the recipe keeps the last ones or these are the best."""
        position, folder = self.position, self.run_dir / "checkpoints"
        self.kept = position.step
        if self.settings.keep == "last" or position.best_step in (0, position.step):
            return
        best = self.world.main_alone(lambda: checkpoint_at(folder, position.best_step))
        if best is None:
            self.display.message(f"The checkpoint of the best step, {position.best_step}, is gone: the last is kept.")
            return
        self.engine.load_weights(best.state())
        self.kept = best.step

    def _tell_kept(self) -> None:
        """Writes `result.json` and says which step `model/` is of."""
        figures, epoch = figures_at(self.metrics.records, self.kept), self.length.epoch_at(self.kept)
        write_result(self.run_dir, self.kept, epoch, figures)
        headline, stale = self.parts.task.headline, self.position.stale
        if self.stopped:
            self.display.message(f"A callback ended the run at step {self.position.step}.")
        elif self.position.step < self.length.steps:
            self.display.message(f"Stopped early: no better {headline} in {stale} validations.")
        if figures and self.settings.keep == "best":
            told = kept_sentence(self.kept, self.position.step, epoch, headline, figures[headline])
            self.display.message(told)

    def _train_part(self, stop: StopRequest) -> None:
        """Trains until the epoch ends, held-out data is to be measured, or the run ends."""
        position, every = self.position, self.settings.checkpoint_every
        if self._awaits_validation():
            return
        self.engine.train()
        if self.batches is None:
            self.batches = self.parts.train.epoch(position.epoch, start_step=position.batches)
        for batch in self.batches:
            lr = self.engine.lr
            self.window.append(self.engine.step(batch))
            position.step += 1
            position.batches += 1
            ended = self._part_ended()
            if position.step % self.settings.log_every == 0 or ended:
                self._log(lr)
            elif self.world.size == 1 and self.world.device.type == "cpu":
                self._check(self.engine.loss_names, self.window[-1].tolist(), position.step, lr)
            stopped = self.world.any(stop.signal_number is not None)
            if stopped or (every is not None and self._is_due(every) and not ended):
                saved = self._save()
                if stopped:
                    self._leave(stop.signal_number, saved)
            if ended or self.stopped:
                return

    def _part_ended(self) -> bool:
        position = self.position
        return self.length.ends_epoch(position.batches) or self._validates_here()

    def _validates_here(self) -> bool:
        return self.length.validates(self.position.step, self.position.epoch, self.position.batches)

    def _awaits_validation(self) -> bool:
        """Whether the run was stopped where an epoch ends or held-out data is to be measured, before that was done."""
        return self.position.batches > 0 and self.position.validated < self.position.step and self._part_ended()

    def _is_due(self, every: int) -> bool:
        return self.position.step % every == 0

    def _leave(self, signal_number: int | None, saved: Path) -> None:
        """Ends a run that was asked to stop, here or in another process."""
        numbers = [number for number in self.world.gather(signal_number) if number is not None]
        interruption = Interrupted(numbers[0], saved)
        self.display.message(interruption.message)
        raise interruption

    def _log(self, lr: float) -> None:
        """Writes the mean of the window, over all processes. This is where the host waits for the device."""
        rows = self._window_values()
        self.window.clear()
        step, count = self.position.step, len(rows)
        for number, row in enumerate(rows, start=step - count + 1):
            self._check(self.engine.loss_names, row, number, lr)
        means = [sum(column) / count for column in zip(*rows, strict=True)]
        figures = dict(zip(self.engine.loss_names, means, strict=True))
        losses = [value for name, value in figures.items() if name != "gradient_norm"]
        if len(losses) == 1:
            figures = {name: value for name, value in figures.items() if name == "gradient_norm"}
        epoch = self.length.epoch_at(step)
        self._record({"kind": "train", "step": step, **epoch, "loss": sum(losses), **figures, "lr": lr})

    def _window_values(self) -> list[list[float]]:
        if not self.window:
            return []
        return (self.world.sum(torch.stack(self.window)) / self.world.size).tolist()

    def _check(self, names: Sequence[str], row: Sequence[float], step: int, lr: float) -> None:
        """Raises TrainingError if a value of a step is not a number; fp16 may skip a step whose gradient is not."""
        for name, value in zip(names, row, strict=True):
            skipped = name == "gradient_norm" and self.settings.precision == "fp16"
            if not math.isfinite(value) and not skipped:
                raise TrainingError(
                    f"{name} is {value} at step {step} (epoch {self.position.epoch + 1}, learning rate {lr:.3g})."
                    f" {self._advice()} Checkpoints up to step {self._last_saved()} are kept."
                )

    def _advice(self) -> str:
        advice = ["Lower optimizer.lr", "lengthen schedule.warmup_epochs"]
        if self.settings.clip_norm is None:
            advice.append("set training.clip_norm=1.0")
        if self.settings.precision == "fp16":
            advice.append("use training.precision=bf16")
        return f"{', '.join(advice)}, or look for broken images."

    def _last_saved(self) -> int:
        return newest_step(self.run_dir / "checkpoints")

    def _validate(self) -> bool:
        """Writes the figures on held-out data if the epoch asks for it; returns whether they are the best so far."""
        position = self.position
        due, position.validated = self._validates_here(), position.step
        if self.parts.val is None or not due:
            return False
        epoch = {"epoch": position.epoch + 1} if self.length.in_epochs else self.length.epoch_at(position.step)
        figures = self.engine.evaluate(self.parts.val)
        self._check([f"The held-out {name}" for name in figures], [*figures.values()], position.step, self.engine.lr)
        self._record({"kind": "val", "step": position.step, **epoch, **figures})
        headline = figures[self.parts.task.headline]
        if headline <= position.best:
            position.stale += 1
            return False
        position.best, position.best_step, position.stale = headline, position.step, 0
        return True

    def _record(self, record: Record) -> None:
        self.metrics.write(record)
        self.display.record(record)
        asked = announce(self.callbacks, record)
        self.stopped = self.stopped or (self.may_stop and self.world.any(asked))

    def _save(self) -> Path:
        """Saves a checkpoint and removes those that are no longer kept. All processes wait for it."""
        for number, row in enumerate(self._window_values(), start=self.position.step - len(self.window) + 1):
            self._check(self.engine.loss_names, row, number, self.engine.lr)
        broken = self.engine.first_broken_weight()
        if broken is not None:
            self._check([f"The weight {broken!r}"], [math.nan], self.position.step, self.engine.lr)
        folder, position = self.run_dir / "checkpoints", self.position
        rows = self.world.gather(torch.stack(self.window).cpu() if self.window else None)
        state = {**self.engine.state(), "position": vars(position).copy(), "window": rows}
        facts = {"epoch": position.epoch, "batches": position.batches, "best": position.best_step}
        if self.world.is_main:
            save_checkpoint(folder, position.step, state, self.metrics.content(), facts, self.data)
            prune_checkpoints(folder, position.step, self.settings.keep_checkpoints, position.best_step)
        self.world.barrier()
        return folder / f"step-{position.step:08d}"

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state()
        try:
            self.engine.load_state(state)
            self.position = Position(**state["position"])
            rows = state["window"]
            row = rows[self.world.rank] if len(rows) == self.world.size else None
            self.window = list(row.to(self.world.device)) if row is not None else []
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} is not of this run ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
            ) from error


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Limits torch to `count` threads of the CPU for a while; None leaves its choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
