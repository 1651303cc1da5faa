"""The course of a training: losses, figures of the validation and learning rate, from `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexus.core.documents import ANNOTATIONS, FileError, parse_json, read_text
from nexus.visualization.figures import BLUE, GREY, INK, ORANGE, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

FIGURES = (("top1", "top5"), ("AP", "AP50"), ("mIoU_1", "mIoU_3"))
"""What is drawn of a validation, the figure that matters first."""
NUMBERS = ("step", "epoch", "loss", "lr")
"""What stands as a number in every line that has it."""
LABELS = {"top1": "top 1", "top5": "top 5", "mIoU_1": "mIoU, 1 click", "mIoU_3": "mIoU, 3 clicks"}


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, or of the one in a run's folder.

    A last line that was cut off when the run was killed is left out.

    Raises:
        ValueError: There is no such file, or another line of it is not JSON.
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} does not exist; a training run writes it into its folder.")
    lines = read_text(path, ANNOTATIONS.size).splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            record = parse_json(line, where, nan=True)
        except FileError:
            if number < len(lines):
                raise
            continue
        if not isinstance(record, dict):
            raise FileError(f"{where} is a {type(record).__name__}; each line of a run's metrics is a mapping.")
        if lacking := [key for key in ("kind", "step") if key not in record]:
            raise FileError(f"{where} has no {lacking[0]}; each line of a run's metrics says its kind and its step.")
        wrong = [key for key in NUMBERS if type(record.get(key, 0)) not in (int, float)]
        if wrong:
            raise FileError(f"{where}: {wrong[0]} is {repr(record[wrong[0]])[:60]}; it must be a number.")
        records.append(record)
    return records


def plot_training_curves(source: str | Path | Sequence[Record]) -> "Figure":
    """Returns a figure of a run: losses, figures of the validation, and the learning rate, over the steps.

    Args:
        source: A run's folder, its `metrics.jsonl`, or the records themselves: mappings with `kind` ("train" or
            "val"), `step`, and figures such as `loss`, `top1`, `lr`.

    Raises:
        ValueError: There is no record with a loss.
    """
    records = read_metrics(source) if isinstance(source, str | Path) else list(source)
    train = [record for record in records if record.get("kind") == "train"]
    val = [record for record in records if record.get("kind") == "val"]
    if not any("loss" in record for record in records):
        raise ValueError(f"There is no loss in {source if isinstance(source, str | Path) else 'the records'}.")
    figure = new_figure(10.5, 3.1)
    losses, figures, rates = figure.subplots(1, 3, width_ratios=(1.15, 1.15, 0.8))
    _plot_losses(plain_axes(losses), train, val)
    _plot_figures(plain_axes(figures), val)
    steps, values = _column(train, "lr")
    plain_axes(rates).plot(steps, values, color=GREY, linewidth=1.6, marker=_dots(steps), markersize=3)
    rates.set_title("learning rate", fontsize=10, color=INK)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    for axes in (losses, figures, rates):
        axes.set_xlabel("step", fontsize=9, color=GREY)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=8, colors=GREY, length=3)
    return figure


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Returns an exponential mean over about `window` values, without the usual pull towards its start."""
    keep = 1 - 1 / max(window, 1)
    total = weight = 0.0
    smoothed = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        smoothed[i] = total / weight
    return smoothed


def plot_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float] | np.ndarray, suggestion: float | None
) -> "Figure":
    """Returns a figure of a range test: the loss of each step over its learning rate, and the suggested rate."""
    figure = new_figure(6.4, 3.6)
    axes = plain_axes(figure.subplots())
    axes.plot(rates, losses, color=BLUE, alpha=0.25, linewidth=0.9)
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.8, label="loss, smoothed")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate", fontsize=9, color=INK)
    low, high = float(np.min(smoothed)), float(np.max(smoothed[: max(1, int(np.argmin(smoothed)))]))
    axes.set_ylim(low - 0.2 * (high - low) - 1e-3, high + 0.3 * (high - low) + 1e-3)
    if suggestion is not None:
        axes.axvline(suggestion, color=ORANGE, linewidth=1.6, label=f"suggested: lr={suggestion:.2g}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _plot_losses(axes: "Axes", train: Sequence[Record], val: Sequence[Record]) -> None:
    steps, values = _column(train, "loss")
    if len(values) > 50:
        axes.plot(steps, values, color=BLUE, alpha=0.22, linewidth=0.9)
        values = smooth(values, len(values) // 40)
    axes.plot(steps, values, color=BLUE, linewidth=1.6, marker=_dots(steps), markersize=3, label="training")
    steps, values = _column(val, "loss")
    if len(values):
        axes.plot(steps, values, color=ORANGE, linewidth=1.6, marker="o", markersize=3, label="validation")
    axes.set_title("loss", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8)


def _plot_figures(axes: "Axes", val: Sequence[Record]) -> None:
    """Draws the accuracies of a classifier, the precisions of a detector, or what else the validation measured."""
    from matplotlib.ticker import PercentFormatter

    known = [name for record in val[:1] for name in record if name not in ("kind", "step", "epoch", "loss")]
    names = next(((a, b) for a, b in FIGURES if a in known), known[:1])
    for name, colour in zip(names, (ORANGE, "#f5c396")):
        steps, values = _column(val, name)
        if len(values):
            label = LABELS.get(name, name)
            axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=label)
    best = _column(val, names[0])[1] if names else np.empty(0)
    best_so_far = f", best {LABELS.get(names[0], names[0])} {best.max():.2%}" if len(best) else ""
    axes.set_title(f"validation{best_so_far}", fontsize=10, color=INK)
    if len(best) and not best.any():
        axes.set_ylim(-0.02, 1)  # nothing reached yet: zero lies on the ground, and no scale is made up around it
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    if len(best):
        axes.legend(frameon=False, fontsize=8, loc="lower right")


def _dots(steps: np.ndarray) -> str:
    """The mark of a point, which a line of one point needs to be seen."""
    return "o" if len(steps) == 1 else ""


def _column(records: Sequence[Record], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of the records that have this figure."""
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
