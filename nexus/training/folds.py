"""How good a recipe is on little data: the data is cut into parts, and each part is held out once.

Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection", 1995, on stratified
folds.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nexus.core.files import write_whole
from nexus.core.notebook import html_table
from nexus.data import load_dataset
from nexus.data.adapt import as_dataset
from nexus.data.dataset import Dataset
from nexus.data.facets import Labelled, Rays
from nexus.data.part import part_of
from nexus.training.fit import make_trainer
from nexus.training.kept import read_result
from nexus.training.log import DisplayName
from nexus.training.recipe import Recipe
from nexus.training.trainer import Trainer

SUMMARY = "folds.json"


@dataclass(frozen=True, repr=False)
class Folds:
    """What came of the folds.

    Attributes:
        run_dir: Holds a run for each, `fold-1`, `fold-2`, ..., and `folds.json`.
        figures: The figures of each fold's `model/` on its own held-out part.
    """

    run_dir: Path
    figures: tuple[Mapping[str, float], ...]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each figure over the folds."""
        return {name: float(np.mean([one[name] for one in self.figures])) for name in self.figures[0]}

    @property
    def deviation(self) -> dict[str, float]:
        """The standard deviation of each figure over the folds (with n - 1)."""
        return {name: float(np.std([one[name] for one in self.figures], ddof=1)) for name in self.figures[0]}

    def table(self) -> list[dict[str, Any]]:
        """Returns a row for each figure: its mean, its deviation, and its value in each fold."""
        mean, deviation = self.mean, self.deviation
        return [
            {
                "figure": name,
                "mean": mean[name],
                "deviation": deviation[name],
                **{f"fold {number}": one[name] for number, one in enumerate(self.figures, start=1)},
            }
            for name in mean
        ]

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.4g} ± {self.deviation[name]:.2g}" for name, value in self.mean.items())
        return f"Folds({self.run_dir}: {len(self.figures)} folds, {told})"

    def _repr_html_(self) -> str:
        return html_table(self.table(), f"{len(self.figures)} folds, {self.run_dir}")


def cross_validate(
    model: nn.Module | str,
    data: Any,
    *,
    folds: int = 5,
    recipe: Recipe | str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: DisplayName = "auto",
    **overrides: Any,
) -> Folds:
    """Trains once for each fold, on all others, and measures on it: `nexus.cross_validate("resnet18", "folder:X")`.

    Args:
        model: As for `nexus.fit`, like `recipe`, `progress` and `overrides`; a module is copied for each fold.
        data: A source, whose training split is cut, or a data set. A held-out split stays unseen.
        folds: How many parts; each has its share of every class.
        run_dir: Where the runs are kept; by default a new folder under `runs/`.
        resume: Go on: folds that have ended are kept, the one under way continues.

    Raises:
        ValueError: The data cannot be cut into so many parts, or what `nexus.fit` refuses.
    """
    trainer = make_trainer(model, data, recipe=recipe, run_dir=run_dir, progress=progress, overrides=overrides)
    trainer.resume = resume
    return run_folds(trainer, folds)


def run_folds(trainer: Trainer, folds: int) -> Folds:
    """Does what `cross_validate` does, for a run that has not begun."""
    source = trainer.recipe.data
    if trainer.val_data is not None:
        raise ValueError(
            "A pair (train, held-out) is given, and the folds hold out their own parts; give one data set."
        )
    given = trainer.train_data
    dataset = as_dataset(given) if given is not None else load_dataset(source.source, "train", root=source.root)
    if isinstance(dataset, Rays):
        raise ValueError("The data holds rays, which are not cut into folds.")
    parts = cut(dataset, folds, trainer.recipe.training.seed)
    figures = []
    for number in range(folds):
        others = np.sort(np.concatenate([part for at, part in enumerate(parts) if at != number]))
        figures.append(_run(trainer, dataset, others, parts[number], trainer.run_dir / f"fold-{number + 1}"))
    found = Folds(trainer.run_dir, tuple(figures))
    text = json.dumps({"folds": [*map(dict, figures)], "mean": found.mean, "deviation": found.deviation}, indent=1)
    write_whole(found.run_dir / SUMMARY, lambda file: file.write_text(text + "\n", encoding="utf-8"))
    return found


def _run(
    trainer: Trainer, dataset: Dataset, train: np.ndarray, held_out: np.ndarray, folder: Path
) -> Mapping[str, float]:
    """Returns the figures of one fold, of a run that has ended already or of a new one."""
    ended = read_result(folder) if trainer.resume else None
    if ended is not None:
        return ended[1]
    run = Trainer(
        trainer.recipe,
        folder,
        model=copy.deepcopy(trainer.model),
        train_data=part_of(dataset, train.tolist()),
        val_data=part_of(dataset, held_out.tolist()),
        resume=trainer.resume,
        allow_changes=trainer.allow_changes,
        progress=trainer.progress,
        callbacks=trainer.callbacks,
    )
    return run.fit().metrics


def cut(dataset: Dataset, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the positions of each fold, rising: at random, but with the same share of every class.

    Raises:
        ValueError: There are fewer than two folds, or more than items.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(dataset):
        raise ValueError(f"folds is {folds!r}; it is a number from 2 to the {len(dataset)} items of {dataset.name!r}.")
    order = np.random.default_rng(seed).permutation(len(dataset))
    if isinstance(dataset, Labelled):
        order = order[np.argsort(np.asarray(dataset.labels)[order], kind="stable")]
    fold_of = np.empty(len(dataset), dtype=np.int64)
    fold_of[order] = np.arange(len(dataset)) % folds
    return [np.flatnonzero(fold_of == number) for number in range(folds)]
