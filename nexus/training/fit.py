"""Training in one call."""

from pathlib import Path
from typing import Any

from torch import nn

from nexus.training.log import DisplayName
from nexus.training.recipe import Recipe
from nexus.training.recipe_files import key_paths, load_recipe, recipe_from_mapping, set_key, with_one_length
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
        **overrides: Changes of the recipe. A key that only one section has needs no section, `lr=3e-4`; a section is
            given as a mapping, `schedule={"name": "wsd"}`.

    Raises:
        ValueError: A key is unknown or ambiguous, or model, data and recipe do not fit together.
    """
    base = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else load_recipe(recipe)
    tree = base.to_dict()
    given_keys = set()
    for name, value in overrides.items():
        is_section = isinstance(value, dict) and name in tree
        keys = {f"{name}.{key}": inner for key, inner in value.items()} if is_section else {_path_of(name): value}
        for path, inner in keys.items():
            set_key(tree, path, inner)
            given_keys.add(path)
    if isinstance(model, str):
        tree["model"]["name"] = model
    if isinstance(data, str):
        tree["data"]["source"] = data
    train, held_out = (None, None) if isinstance(data, str) else data if isinstance(data, tuple) else (data, None)
    given = None if isinstance(model, str) else model
    settings = recipe_from_mapping(with_one_length(tree, given_keys))
    folder = Path(run_dir) if run_dir is not None else _new_folder(settings, given)
    trainer = Trainer(
        settings,
        folder,
        model=given,
        train_data=train,
        val_data=held_out,
        resume=resume,
        allow_changes=allow_changes,
        progress=progress,
    )
    return trainer.fit()


def _path_of(name: str) -> str:
    """Returns the path of a key that is given without its section; unknown ones are left to the recipe's check."""
    if "." in name:
        return name
    paths = [path for path in key_paths() if path.rpartition(".")[2] == name and path.count(".") == 1]
    if len(paths) > 1:
        raise ValueError(
            f"{name!r} is ambiguous: {', '.join(paths)}; give its section, {paths[0].split('.')[0]}={{...}}."
        )
    return paths[0] if paths else name


def _new_folder(recipe: Recipe, model: nn.Module | None) -> Path:
    """Returns a folder under `runs/` that does not exist yet."""
    source = recipe.data.source.partition(":")[0]
    name = f"{source}-{recipe.model.name or type(model).__name__}"
    number, folder = 2, Path("runs") / name
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder
