"""Training in one call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from torch import nn
from torch.utils.data import DataLoader

from nexus.data.adapt import as_dataset
from nexus.tasks.protocol import Loss
from nexus.training.batch_size import AUTO, with_largest_batch
from nexus.training.log import Callback, DisplayName
from nexus.training.recipe import Recipe
from nexus.training.recipe_files import full_path, load_recipe, recipe_from_mapping, set_key, with_one_length
from nexus.training.starting import config_fields, new_folder, run_name, with_fitting_batch
from nexus.training.trainer import FitResult, Trainer


def fit(
    model: nn.Module | str,
    data: Any,
    *,
    recipe: Recipe | str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    progress: DisplayName = "auto",
    callbacks: Sequence[Callback] = (),
    loss: Loss | None = None,
    **overrides: Any,
) -> FitResult:
    """Trains a model: `nexus.fit("vit_small_patch16_224", "folder:flowers", pretrained=True, epochs=10, lr=1e-4)`.

    Args:
        model: A registered name, or any module that returns logits.
        data: A source such as "digits" or "folder:PATH", a data set, or a pair (train, held-out); a data set may be
            one of torch's, or a `DataLoader` (see `nexus.data.adapt`).
        recipe: A shipped recipe's name, a file, or a `Recipe`; by default AdamW with a cosine, as `Recipe()` says.
        run_dir: Where the run is kept; by default a new folder under `runs/`.
        resume: Continue the run in `run_dir`.
        allow_changes: See `Trainer`.
        progress: What to show on standard error: a "bar", "lines", "off", or "auto".
        callbacks: See `Trainer`, like `loss`: what watches the run and may end it.
        loss: Of logits and labels, instead of a classifier's cross-entropy: `nn.CrossEntropyLoss(label_smoothing=0.1)`.
        **overrides: Changes of the recipe. A key that only one section has needs no section, `lr=3e-4`, nor does
            one of a named model's configuration, `drop_path_rate=0.1`; a section is given as a mapping,
            `schedule={"name": "wsd"}`. Without a recipe and a `batch_size`, the batch fits the
            data: 128, or less where it has fewer than 512 items. `batch_size="auto"` takes the largest that fits into
            memory.

    Raises:
        ValueError: A key is unknown or ambiguous, or model, data and recipe do not fit together.
    """
    trainer = make_trainer(model, data, recipe=recipe, run_dir=run_dir, progress=progress, overrides=overrides)
    trainer.resume, trainer.allow_changes = resume, allow_changes
    trainer.callbacks, trainer.loss = tuple(callbacks), loss
    return trainer.fit()


def make_trainer(
    model: nn.Module | str,
    data: Any,
    *,
    recipe: Recipe | str | Path | None = None,
    run_dir: str | Path | None = None,
    progress: DisplayName = "auto",
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Trainer:
    """Returns the run that `fit` makes, before it is begun; arguments and errors are those of `fit`."""
    _check_kinds(model, data)
    auto = overrides.get("batch_size") == AUTO
    overrides = {key: value for key, value in overrides.items() if not (auto and key == "batch_size")}
    settings, given_keys = _settings(model, data, recipe, overrides)
    train: Any
    held_out: Any
    train, held_out = (None, None) if isinstance(data, str) else data if isinstance(data, tuple) else (data, None)
    if train is None and not isinstance(data, str):
        raise ValueError("data is None; give a source such as 'folder:PATH', a data set, or a pair (train, held-out).")
    given = None if isinstance(model, str) else model
    if recipe is None and "training.batch_size" not in given_keys and not isinstance(train, DataLoader):
        train = train if train is None else as_dataset(train)
        settings = with_fitting_batch(settings, train)
    name = run_name(settings, settings.model.name or type(given).__name__)
    folder = Path(run_dir) if run_dir is not None else new_folder(name)
    trainer = Trainer(settings, folder, model=given, train_data=cast(Any, train), val_data=held_out, progress=progress)
    return with_largest_batch(trainer) if auto else trainer


def _check_kinds(model: object, data: object) -> None:
    if not isinstance(model, str | nn.Module):
        raise ValueError(
            f"model is {_shown(model)}; give a registered name, or a module that is made: nn.Linear(8, 2)."
        )
    if isinstance(data, tuple) and len(data) != 2:
        raise ValueError(f"data is {len(data)} values; give one data set, or a pair (train, held-out).")


def _settings(
    model: nn.Module | str, data: object, recipe: Recipe | str | Path | None, overrides: Mapping[str, Any]
) -> tuple[Recipe, set[str]]:
    """Returns the recipe with its changes, and which keys were changed."""
    base = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else load_recipe(recipe)
    tree, given_keys = base.to_dict(), set()
    fields = config_fields(model) if isinstance(model, str) else ()
    for name, value in overrides.items():
        is_section = isinstance(value, dict) and name in tree
        keys = (
            {f"{name}.{key}": inner for key, inner in value.items()} if is_section else {full_path(name, fields): value}
        )
        for path, inner in keys.items():
            set_key(tree, path, inner)
            given_keys.add(path)
    if isinstance(model, str):
        tree["model"]["name"] = model
    if isinstance(data, str):
        tree["data"]["source"] = data
    return recipe_from_mapping(with_one_length(tree, given_keys)), given_keys


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
