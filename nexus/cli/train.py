"""`nexus train`: what a person asks for, as a recipe and a folder, and the run of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import typer

from nexus.cli.output import fail, show_table
from nexus.core.files import write_whole
from nexus.data import ImageError, load_dataset
from nexus.training import Trainer
from nexus.training.batch_size import AUTO, with_largest_batch
from nexus.training.recipe import Recipe
from nexus.training.recipe_files import is_recipe
from nexus.training.starting import new_folder, recipe_for, run_name

LARGEST_REPORTED = 2000
"""Held-out images that are measured once more for a page that nobody asked for."""


class Order(NamedTuple):
    """A run that was asked for.

    Attributes:
        recipe: What to do.
        folder: Where the run is kept.
        auto: Whether the batch is the largest that fits into memory.
    """

    recipe: Recipe
    folder: Path
    auto: bool = False

    def trainer(self, **settings: Any) -> Trainer:
        """Returns the run, before it is begun, with the largest batch where that was asked for."""
        made = Trainer(self.recipe, self.folder, **settings)
        return with_largest_batch(made) if self.auto else made


def order(
    what: str | None, changes: Sequence[str], *, data: str | None, pretrained: bool, run_dir: Path | None, resume: bool
) -> Order:
    """Returns the run that a command line means.

    Args:
        what: A recipe or a model; with `resume` the folder of a run, or nothing where `run_dir` names it.
        changes: Of settings.
        data: Instead of the recipe's.
        pretrained: Start from the published weights.
        run_dir: Where the run is, or is to be.
        resume: Whether a run goes on.

    Raises:
        ValueError: There is no such recipe, model or setting.
    """
    in_folder = resume and run_dir is not None and (what is None or "=" in what)
    if in_folder:
        what, changes = str(run_dir), ([] if what is None else [what]) + list(changes)
    if what is None:
        fail(
            "train needs a model or a recipe, such as resnet18 or digits/vit_tiny. `nexus train --list` shows recipes."
        )
    if "=" in what:
        fail(f"train needs a model or a recipe before {what}: nexus train resnet18 --data folder:photos {what}")
    if unknown := [word for word in (what, *changes) if word.startswith("-")]:
        fail(f"train has no option {unknown[0]}. Changes are written without dashes, such as training.epochs=3.")
    if in_folder or (resume and Path(what).is_dir()):
        folder = run_dir or Path(what)
        if not (folder / "recipe.yaml").is_file():
            fail(f"{folder} holds no run to go on with: there is no recipe.yaml.")
        return Order(recipe_for(str(folder / "recipe.yaml"), changes, data=data, pretrained=pretrained), folder)
    if resume and run_dir is not None and not run_dir.is_dir():
        fail(f"There is no folder {run_dir}, so no run to go on with; leave --resume out to start one.")
    if resume and run_dir is None and not is_recipe(what):
        fail(f"{what} is no run; --resume needs the run's folder: nexus train --resume runs/...")
    auto = [change for change in changes if change in (f"batch_size={AUTO}", f"training.batch_size={AUTO}")]
    changes = [change for change in changes if change not in auto]
    with naming_check(data or "SOURCE"):
        recipe = recipe_for(what, changes, data=data, pretrained=pretrained)
    return Order(recipe, run_dir or _default_folder(what, recipe), bool(auto))


@contextmanager
def naming_check(source: str) -> Iterator[None]:
    """Adds to the error of an image how all such images are found at once."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{error} `nexus data check {source}` names every such file.") from error


def _default_folder(what: str, recipe: Recipe) -> Path:
    if is_recipe(what):
        return Path("runs") / Path(what).with_suffix("").as_posix().replace("/", "-")
    name = run_name(recipe, what)
    return Path("runs") / name if int(os.environ.get("WORLD_SIZE", "1")) > 1 else new_folder(name)


def run(wanted: Order, *, resume: bool, allow_changes: bool, dry_run: bool) -> None:
    """Trains, or shows what would be done, and says what came of it."""
    trainer = wanted.trainer(resume=resume, allow_changes=allow_changes)
    if dry_run:
        show_table([{"what": topic, "how": text} for topic, text in trainer.preview().items()])
        return
    with naming_check(wanted.recipe.data.source):
        result = trainer.fit()
    if result.metrics:
        show_table([{"metric": name, "value": value} for name, value in result.metrics.items()])
    typer.echo(f"The model lies in {result.run_dir / 'model'}.")
    if result.metrics and os.environ.get("RANK", "0") == "0":
        typer.echo(f"Report: {_report(wanted)}")


def show_rates(wanted: Order) -> None:
    """Shows which learning rate to train with, and writes the curve beside where the run would be."""
    from nexus.training.rates import range_test
    from nexus.visualization.figures import to_png

    with naming_check(wanted.recipe.data.source):
        test = range_test(wanted.trainer(progress="off"))
    picture = wanted.folder.with_name(f"{wanted.folder.name}-lr.png")
    write_whole(picture, lambda part: part.write_bytes(to_png(test.plot())))
    if test.suggestion is None:
        typer.echo(f"The loss falls at no rate from {test.rates[0]:.1g} to {test.rates[-1]:.1g}; look at {picture}.")
    else:
        typer.echo(f"Train with lr={test.suggestion:.2g}, where the loss falls fastest. The curve: {picture}")


def show_folds(wanted: Order, folds: int, *, resume: bool) -> None:
    """Trains once for each fold, and shows the figures with their mean and deviation."""
    from nexus.training.folds import run_folds

    with naming_check(wanted.recipe.data.source):
        found = run_folds(wanted.trainer(resume=resume), folds)
    show_table(found.table())
    typer.echo(f"The runs lie in {found.run_dir}/fold-1 to fold-{folds}; nexus compare shows them side by side.")


def _report(wanted: Order) -> str:
    """Writes the page of a run, where that costs little beside the run itself."""
    command = f"nexus report {wanted.folder}"
    data = wanted.recipe.data
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return command
    if len(load_dataset(data.source, "val", root=data.root)) > LARGEST_REPORTED:
        return command
    from nexus.cli.run_report import report_run

    return str(report_run(wanted.folder, device=wanted.recipe.training.device.replace("auto", "") or None))
