"""Runs, as commands find them."""

from pathlib import Path

from nexus.training.recipe import GIVEN, Recipe
from nexus.training.recipe_files import load_recipe


def recipe_of(run: str | Path) -> Recipe | None:
    """Returns the recipe of a run, named by its folder or the `model` in it; None of what is no run."""
    folder = Path(run)
    if folder.name == "model" and not (folder / "recipe.yaml").is_file():
        folder = folder.parent
    return load_recipe(folder / "recipe.yaml") if (folder / "recipe.yaml").is_file() else None


def own_data(run: str | Path) -> tuple[str, str | None] | None:
    """Returns the source and the root of the data that a run was trained on; None of what is no run.

    Raises:
        ValueError: The data was given in Python, and no name leads to it.
    """
    recipe = recipe_of(run)
    if recipe is None:
        return None
    if recipe.data.source == GIVEN:
        raise ValueError(f"The data of {run} was given in Python, so its recipe cannot name it; name it by --data.")
    return recipe.data.source, recipe.data.root
