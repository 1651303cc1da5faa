"""`nexus report`: one page about a run, whatever the kind of its model."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nexus import visualization
from nexus.cli.report import write_report
from nexus.cli.runs import own_data, recipe_of
from nexus.cli.sheet import truth_of
from nexus.core.files import write_whole
from nexus.core.module import NexusModule
from nexus.data import load_dataset
from nexus.data.facets import Annotated, Pictured
from nexus.evaluation import evaluate
from nexus.predict import Predictor
from nexus.tasks.protocol import Task
from nexus.tasks.report import Report
from nexus.tasks.source import open_model
from nexus.tasks.table import task_of
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import numbered_name, to_picture

SHOWN = 12
NO_ERROR = "There is no error to draw."
MERITS = 4
"""Figures that stand large at the top."""


def report_run(
    run: str | Path,
    *,
    data: str | None = None,
    split: str = "val",
    output: Path | None = None,
    device: str | None = None,
) -> Path:
    """Measures a finished run on held-out data, writes its page, and returns the page's path.

    Args:
        run: The run's folder.
        data: Instead of the run's own.
        split: Which part of the data is shown.
        output: The page; by default `report.html` in the run's folder.
        device: Where the model runs.

    Raises:
        ValueError: There is no such run, it is not finished, or its data is not known or has no such part.
    """
    folder = Path(run)
    recipe = recipe_of(folder)
    if recipe is None or not (folder / "recipe.yaml").is_file():
        raise ValueError(f"{folder} is no run: there is no recipe.yaml in it.")
    source, root = (data, None) if data is not None else own_data(folder) or ("", None)
    dataset = load_dataset(source, split, root=root)
    model = open_model(folder, device)
    report: Report = evaluate(model, dataset)
    name = recipe.model.name or type(model).__name__
    merits = {key: _shown(key, value) for key, value in list(report.metrics.items())[:MERITS] if value is not None}
    return write_report(
        output or folder / "report.html",
        title=f"{name} on {dataset.name}",
        summary=f"Measured on {report.num_images:,} images of {split!r}, with the weights in {folder / 'model'}.",
        figures_of_merit={**merits, "parameters": f"{_count(model):,}"},
        sections=[_curves(folder), *report.sections(dataset), *_predictions(model, dataset), _settings(folder)],
    )


def draw_worst(report: Report, dataset: Any, folder: Path) -> list[Path]:
    """Draws the worst errors into a folder, and returns the files, numbered from 1, the worst first.

    Raises:
        ValueError: The kind of model has no such pictures.
    """
    written = []
    for rank, (name, picture) in enumerate(report.worst_pictures(dataset), start=1):
        written.append(folder / numbered_name(rank, name))
        write_whole(written[-1], lambda part, picture=picture: picture.save(part, "PNG"))
    return written


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name.startswith("top") else f"{value:.4g}"


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _curves(folder: Path) -> Section:
    figure = visualization.plot_training_curves(folder)
    return Section(
        title="Training",
        text="Loss, held-out figures and learning rate over the steps of the run.",
        pictures=[Picture.of(figure, "curves of loss, figures and learning rate")],
    )


def _predictions(model: torch.nn.Module, dataset: Any) -> list[Section]:
    """A few held-out images, spread over the data, with what the model says about them drawn on them."""
    if not isinstance(model, NexusModule) or not _has_pictures(dataset) or not _answers_unasked(model):
        return []
    places = sorted({round(place) for place in np.linspace(0, len(dataset) - 1, SHOWN)})
    predictions = Predictor(model)([to_picture(dataset[place].image) for place in places])
    truths = [truth_of(dataset, place) for place in places]
    drawn = [one.draw() for one in predictions]
    if isinstance(dataset, Annotated):  # captions of boxes are too small on a sheet
        pictures = [Picture.of(picture, truth) for picture, truth in zip(drawn, truths)]
    else:
        pictures = [Picture.of(visualization.contact_sheet(drawn, truths), "images with predictions")]
    said = "Held-out images, and what the model says about them."
    return [Section(title="Predictions", text=said, pictures=pictures)]


def _answers_unasked(model: torch.nn.Module) -> bool:
    """Whether a model's kind takes no prompts: it leaves the session as it is."""
    return task_of(model).session is Task.session


def _has_pictures(dataset: Any) -> bool:
    return isinstance(dataset, Pictured) and hasattr(dataset[0], "image")  # pyrefly: ignore[bad-index]


def _settings(folder: Path) -> Section:
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    lines = [f"# {name} {value}" for name, value in versions.items()]
    recipe = folder / "recipe.yaml"
    return Section(
        title="Settings of the run",
        text=f"The same run again: nexus train {recipe} -o another/folder",
        code="\n".join([*lines, recipe.read_text(encoding="utf-8")]),
    )
