"""What a run must find as it was when it goes on: its recipe and its data; what differs is named."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from nexus.data.dataset import Dataset
from nexus.training.fingerprint import differences, fingerprint, pack, unpack
from nexus.training.recipe import GIVEN, Recipe, differing_keys
from nexus.training.recipe_files import load_recipe
from nexus.training.run_folder import RunFolderError, is_taken

CHANGEABLE = (
    "training.epochs",
    "training.steps",
    "training.log_every",
    "training.validate_every",
    "training.patience",
    "training.keep",
    "optimizer.lr",
    "schedule.",
)
"""Keys, or starts of keys, that a run can change under way: how long and how fast it learns, and what is kept of it."""


class ChangedError(ValueError):
    """A run cannot go on as it was: its recipe or its data is another. The message names what differs."""


def check_free(run_dir: Path) -> None:
    """Raises RunFolderError if a folder holds a run."""
    if is_taken(run_dir):
        raise RunFolderError(
            f"{run_dir} holds a run already; resume it (resume=True, --resume), or use another run_dir."
        )


def check_recipe(run_dir: Path, recipe: Recipe) -> list[str]:
    """Returns the keys that a run goes on with otherwise than it was started.

    Raises:
        ChangedError: It is something that cannot change under way.
    """
    stored = run_dir / "recipe.yaml"
    if not stored.is_file():
        return []
    before = load_recipe(stored)
    changed = [key for key in differing_keys(before, recipe) if key != "data.source" or before.data.source != GIVEN]
    if any(not key.startswith(CHANGEABLE) for key in changed):
        raise ChangedError(
            f"The run in {run_dir} was started with another recipe; these keys differ: {', '.join(changed)}. Put them"
            f" back, or use another run_dir. Only {', '.join(CHANGEABLE)}* can change under way."
        )
    return changed


def check_data(run_dir: Path, before: bytes, now: Mapping[str, Dataset], allow_changes: bool) -> bytes:
    """Returns the fingerprints of a run's data, to be kept with its checkpoints.

    Args:
        run_dir: Of the run, for messages.
        before: The fingerprints at the last checkpoint; b"" if there is none.
        now: The data sets by split.
        allow_changes: Go on though they differ, with a warning.

    Raises:
        ChangedError: They differ.
    """
    found = {split: fingerprint(dataset) for split, dataset in now.items()}
    changed = differences(unpack(before, f"What a checkpoint of {run_dir} says of the data"), found) if before else ""
    if changed:
        text = f"The data of the run in {run_dir} has changed since its last checkpoint: {changed}."
        if not allow_changes:
            raise ChangedError(f"{text} Put it back, start a new run, or {_ALLOW}.")
        warnings.warn(text, stacklevel=2)
    return pack(found)


_ALLOW = "go on with the change (allow_changes=True, --allow-changes)"
