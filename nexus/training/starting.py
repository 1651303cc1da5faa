"""From what a person names, a recipe or a registered model, to the recipe of a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nexus.core.config import nearest
from nexus.data import load_dataset
from nexus.data.facets import Rays
from nexus.models.registry import list_models, model_info, split_name
from nexus.training.recipe import Recipe, TrainingRecipe
from nexus.training.recipe_files import full_path, is_recipe, list_recipes, load_recipe, override_recipe


def recipe_for(
    name: str, overrides: Iterable[str] = (), *, data: str | None = None, pretrained: bool = False
) -> Recipe:
    """Returns the recipe that a command line means.

    Args:
        name: A recipe, shipped or a file; or a registered model, which is trained as `nexus.fit` does it by default.
        overrides: Changes such as `"lr=3e-4"`.
        data: Instead of the recipe's `data.source`.
        pretrained: Start from the published weights.

    Raises:
        ValueError: There is no such recipe or model, or a change is wrong; the nearest name is given.
    """
    changes = list(overrides)
    recipe = load_recipe(name) if is_recipe(name) else _of_model(name)
    if data is not None:
        recipe = recipe.replace(data=recipe.data.replace(source=data))
    if pretrained:
        recipe = recipe.replace(model=recipe.model.replace(pretrained=True))
    fields = config_fields(recipe.model.name)
    recipe = override_recipe(recipe, changes, fields)
    given = {full_path(change.partition("=")[0].strip(), fields) for change in changes}
    return recipe if is_recipe(name) or "training.batch_size" in given else with_fitting_batch(recipe)


def config_fields(model: str | None) -> tuple[str, ...]:
    """Returns the names in the configuration of a registered model; of what is none, no names."""
    known = model is not None and split_name(model)[0] in list_models()
    return tuple(model_info(model).settings) if known else ()


def _of_model(name: str) -> Recipe:
    if split_name(name)[0] not in (models := list_models()):
        hint = nearest(name, [*list_recipes(), *models])
        raise ValueError(f"There is no recipe and no model {name!r}. {hint} A recipe file's name ends in .yaml.")
    recipe = Recipe()
    return recipe.replace(model=recipe.model.replace(name=name))


def with_fitting_batch(recipe: Recipe, dataset: Any = None) -> Recipe:
    """Returns the recipe with a batch that fits little data: a power of two, at most a quarter of the images.

    Args:
        recipe: With the default batch.
        dataset: To train on; by default the recipe's.
    """
    source = recipe.data
    if dataset is None:
        dataset = load_dataset(source.source, "train", root=source.root, download=source.download)
    if isinstance(dataset, Rays):
        return recipe
    size = min(TrainingRecipe().batch_size, 1 << max(0, (len(dataset) // 4).bit_length() - 1))
    return recipe.replace(training=recipe.training.replace(batch_size=size))


def run_name(recipe: Recipe, model: str) -> str:
    """Returns what the folder of a run is called by default: by its data and its model."""
    return f"{recipe.data.source.partition(':')[0]}-{model}"


def new_folder(name: str) -> Path:
    """Returns a folder under `runs/` that does not exist yet."""
    number, folder = 2, Path("runs") / name
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder
