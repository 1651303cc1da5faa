"""Where a run's figures go beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow, trackio.

Each is a callback that sends every number of a record as `kind/name`, and is closed when the run ends. A package is
imported when its logger is made. Where the figures are kept is the package's own setting (`WANDB_MODE=offline`,
`MLFLOW_TRACKING_URI`); without one, MLflow writes into the run's folder and trackio onto this machine.
"""

import importlib
import os
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from nexus.core.text import one_line

Record = Mapping[str, Any]
PROJECT = "nexus"


class Logger(Protocol):
    """Takes the records of a run."""

    def __call__(self, record: Record) -> None:
        """Sends the numbers of a record."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


def make_loggers(names: Sequence[str], run_dir: Path, recipe: Mapping[str, Any]) -> tuple[Logger, ...]:
    """Returns the loggers of these names, each once.

    Args:
        names: Keys of `LOGGERS`.
        run_dir: The run's folder; what they write on this machine goes there where that can be said.
        recipe: What the run does, as plain values; trackers show it beside the figures.

    Raises:
        ValueError: A package is not installed, or does not take the run.
    """
    return tuple(LOGGERS[name](run_dir, recipe) for name in dict.fromkeys(names))


def figures(record: Record) -> dict[str, float]:
    """Returns the numbers of a record by `kind/name`."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
    return {f"{record['kind']}/{name}": value for name, value in numbers.items() if name != "step"}


class TensorBoard:
    """Writes event files, which `tensorboard --logdir` shows."""

    def __init__(self, folder: Path) -> None:
        writer = _package("tensorboard", "torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(folder))

    def __call__(self, record: Record) -> None:
        for name, value in figures(record).items():
            if not name.endswith("/epoch"):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Writes what is buffered; what a full disk does not take stands in `metrics.jsonl`."""
        with suppress(OSError):
            self._writer.close()


class Tracker:
    """A run of somebody else's tracker. One that fails on the way is told once and left: the training goes on."""

    def __init__(self, name: str, send: Callable[[dict[str, float], int], None], end: Callable[[], None]) -> None:
        self.name, self._send, self._end, self._failed = name, send, end, False

    def __call__(self, record: Record) -> None:
        self._try(lambda: self._send(figures(record), record["step"]))

    def close(self) -> None:
        """Tells the tracker that the run is over."""
        self._try(self._end)

    def _try(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # of the network, the server, the package: each has its own
            self._failed = True
            warnings.warn(
                f"{self.name} takes no more figures ({one_line(str(error))[:200]}); metrics.jsonl has them all.",
                stacklevel=4,
            )


def _wandb(run_dir: Path, recipe: Mapping[str, Any]) -> Tracker:
    wandb = _package("wandb")
    known = _identity(run_dir / "wandb")
    settings = {"project": PROJECT, "name": run_dir.name, "id": known, "resume": "allow", "dir": str(run_dir)}
    run = _start("wandb", lambda: wandb.init(config=dict(recipe), **settings), "WANDB_MODE=offline keeps it here.")
    return Tracker("wandb", lambda numbers, step: run.log(numbers, step=step), run.finish)


def _mlflow(run_dir: Path, recipe: Mapping[str, Any]) -> Tracker:
    mlflow, folder = _package("mlflow"), run_dir / "mlflow"
    known = _identity(folder)
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"

    def begin() -> tuple[Any, str]:
        client = mlflow.MlflowClient(tracking_uri=address)
        experiment = client.get_experiment_by_name(PROJECT)
        number = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        same = client.search_runs([number], f"tags.nexus_run = '{known}'")
        if same:
            return client, same[0].info.run_id
        run = client.create_run(number, run_name=run_dir.name, tags={"nexus_run": known})
        for key, value in _leaves(recipe):
            client.log_param(run.info.run_id, key, value)
        return client, run.info.run_id

    client, number = _start("mlflow", begin, "Is MLFLOW_TRACKING_URI right?")

    def send(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            client.log_metric(number, name, value, step=step)

    return Tracker("mlflow", send, lambda: client.set_terminated(number))


def _trackio(run_dir: Path, recipe: Mapping[str, Any]) -> Tracker:
    trackio = _package("trackio")
    settings = {"project": PROJECT, "name": run_dir.name, "resume": "allow"}
    run = _start("trackio", lambda: trackio.init(config=dict(recipe), **settings), "Is it a recent one?")
    return Tracker("trackio", lambda numbers, step: run.log(numbers, step=step), run.finish)


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": lambda run_dir, recipe: TensorBoard(run_dir / "tensorboard"),
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}


def _package(name: str, module: str = "") -> Any:
    try:
        return importlib.import_module(module or name)
    except ImportError as error:
        install = "'nexus-vision[tensorboard]'" if name == "tensorboard" else name
        raise ValueError(
            f"training.loggers has {name!r}, which needs the package {name}: pip install {install}."
        ) from error


def _start(name: str, begin: Callable[[], Any], advice: str) -> Any:
    try:
        return begin()
    except Exception as error:
        raise ValueError(f"{name} does not take the run: {one_line(str(error))[:300]} {advice}") from error


def _identity(folder: Path) -> str:
    """Returns a name that the run keeps when it is resumed."""
    path = folder / "run-id"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _leaves(tree: Mapping[str, Any], start: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        rows += _leaves(value, f"{start}{key}.") if isinstance(value, Mapping) else [(f"{start}{key}", value)]
    return rows
