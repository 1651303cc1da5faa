"""Recipes as files: the shipped ones, safe reading, changes from a command line, errors with the key's path."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from nexus.core.config import Config, field_types, nearest, shown
from nexus.core.documents import parse_yaml, read_yaml
from nexus.core.files import write_whole
from nexus.core.text import as_message
from nexus.training.recipe import ModelRecipe, Recipe

FOLDER = Path(__file__).parent / "recipes"
C = TypeVar("C", bound=Config)


def list_recipes() -> list[str]:
    """Returns the names of the shipped recipes, such as `"digits/vit_tiny"`."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Returns a recipe with changes.

    Args:
        source: The name of a shipped recipe, or a YAML file.
        overrides: Changes as a command line gives them, `"lr=3e-4"` or `"optimizer.lr=3e-4"`; values are YAML.

    Raises:
        ValueError: There is no such recipe, a key is unknown, or a value is wrong.
    """
    path = _find(str(source))
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: A recipe is a mapping with sections such as 'model:' and 'optimizer:'.")
    try:
        recipe = recipe_from_mapping(tree)
    except ValueError as error:
        raise ValueError(as_message(f"{source}: {error}")) from error
    return override_recipe(recipe, overrides)


def override_recipe(recipe: Recipe, overrides: Iterable[str], fields: Collection[str] = ()) -> Recipe:
    """Returns the recipe with changes such as `"lr=3e-4"`; a key that only one section has needs no section.

    Args:
        recipe: What is changed.
        overrides: The changes, `key=value`.
        fields: Names of the model's configuration, which need no section either.
    """
    tree, given = recipe.to_dict(), set()
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"The change {text!r} is not of the form section.key=value, such as optimizer.lr=3e-4.")
        path = full_path(name.strip(), fields)
        given.add(path)
        set_key(tree, path, parse_yaml(value, f"The change {text!r}"))
    return recipe_from_mapping(with_one_length(tree, given))


def full_path(name: str, fields: Collection[str] = ()) -> str:
    """Returns the path of a key that may be given without its section; unknown ones are left to the recipe's check.

    Args:
        name: A key of the recipe, or of the model's configuration where the recipe has none of this name.
        fields: The names in the model's configuration.

    Raises:
        ValueError: Several sections have the key, or it is nearest to one of the model's configuration.
    """
    section, _, leaf = name.rpartition(".")
    if section == "model" and leaf not in field_types(ModelRecipe) and leaf in fields:
        raise ValueError(f"There is no key {name!r}. Did you mean 'model.config.{leaf}', or {leaf!r} for short?")
    if section:
        return name
    paths = [path for path in key_paths() if path.count(".") == 1 and path.endswith(f".{name}")]
    if len(paths) > 1:
        raise ValueError(f"{name!r} is ambiguous: {', '.join(paths)}; give its section.")
    return paths[0] if paths else _of_config(name, fields)


def _of_config(name: str, fields: Collection[str]) -> str:
    """Returns the path of a name that is none of the recipe's; one that is nearest to the model's names is refused."""
    if name in fields:
        return f"model.config.{name}"
    leaves = {path.rpartition(".")[2] for path in key_paths()}
    near = [] if name in ELSEWHERE else difflib.get_close_matches(name, {*leaves, *fields}, n=1, cutoff=0.6)
    if near and near[0] not in leaves:
        raise ValueError(f"There is no key {shown(name)}. Did you mean {near[0]!r}, of the model's configuration?")
    return name


def with_one_length(tree: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Returns a recipe's mappings without the length that a given one replaces: a run counts epochs or steps."""
    for new, old in (("epochs", "steps"), ("steps", "epochs")):
        if f"training.{new}" in given and f"training.{old}" not in given and tree["training"].get(new) is not None:
            tree["training"][old] = None
    return tree


def recipe_from_mapping(tree: Mapping[str, Any]) -> Recipe:
    """Returns the recipe that nested mappings describe; errors name keys by their path, `optimizer.lr`."""
    return _build(Recipe, tree, "")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe, whole, as YAML."""
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def key_paths(cls: type[Config] = Recipe, prefix: str = "") -> Iterator[str]:
    """Yields the path of every key that is not a section: `optimizer.lr`, `data.preprocessing.mean`, ..."""
    for name, hint in field_types(cls).items():
        section = _section(hint)
        if section is None or section is not hint:
            yield prefix + name
        if section is not None:
            yield from key_paths(section, f"{prefix}{name}.")


def set_key(tree: dict[str, Any], path: str, value: Any) -> None:
    """Sets a value in nested mappings, making the ones that are missing; `path` is checked when they are read."""
    *parents, last = path.split(".")
    for key in parents:
        inner = tree.get(key)
        if inner is None:
            inner = tree[key] = {}
        elif not isinstance(inner, dict):
            raise ValueError(f"{path!r} goes through {key!r}, which is {shown(inner)} and has no keys.")
        tree = inner
    tree[last] = value


def is_recipe(name: str) -> bool:
    """Returns whether a name is that of a shipped recipe or of a recipe's file, which may be missing."""
    return name in list_recipes() or Path(name).suffix in (".yaml", ".yml")


def _find(source: str) -> Path:
    shipped = FOLDER / f"{source}.yaml"
    if source in list_recipes():
        return shipped
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ValueError(f"There is no recipe file {source!r}.")
    raise ValueError(f"There is no recipe {source!r}. {nearest(source, list_recipes())} A file's name ends in .yaml.")


def _section(hint: Any) -> type[Config] | None:
    """Returns the configuration class in a field's type, also in `Section | None`."""
    for option in (hint, *get_args(hint)):
        if isinstance(option, type) and issubclass(option, Config):
            return option
    return None


def _build(cls: type[C], tree: Mapping[str, Any], path: str) -> C:
    hints = field_types(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in hints:
            raise ValueError(f"There is no key {shown(path + str(key))}. {_hint(path + str(key))}")
        section = _section(hints[key])
        if section is not None and isinstance(value, Mapping):
            value = _build(section, value, f"{path}{key}.")
        elif section is hints[key]:
            named = (
                f"; write {path}{key}.name={shown(value)}"
                if "name" in field_types(section) and value is not None
                else ""
            )
            raise ValueError(f"{path}{key} is {shown(value)}; it must be a section with keys of its own{named}.")
        values[key] = value
    try:
        return cls(**values)
    except ValueError as error:
        text = str(error).replace(f"{cls.__name__}.", path).replace(cls.__name__, path[:-1])
        raise ValueError(text if path[:-1] in text else f"{path[:-1]}: {text}") from None


ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "lr0": "optimizer.lr",
    "batch": "training.batch_size",
    "per_device_train_batch_size": "training.batch_size",
    "num_train_epochs": "training.epochs",
    "gradient_accumulation_steps": "training.accumulate",
    "max_grad_norm": "training.clip_norm",
    "amp": "training.precision",
    "bf16": "training.precision",
    "workers": "data.num_workers",
    "dataset": "data.source",
    "data_dir": "data.source",
    "imgsz": "data.image_size",
    "img_size": "data.image_size",
    "wd": "optimizer.weight_decay",
}
"""What other libraries call our keys."""


def _hint(path: str) -> str:
    known = [*key_paths()]
    leaf = path.rpartition(".")[2]
    if leaf in ELSEWHERE:
        return f"Did you mean {ELSEWHERE[leaf]!r}?"
    near = difflib.get_close_matches(leaf, {key.rpartition(".")[2] for key in known}, n=1, cutoff=0.6)
    same_leaf = [key for key in known if key.rpartition(".")[2] in near]
    if same_leaf:
        close = difflib.get_close_matches(path, same_leaf, n=1, cutoff=0.0)
        return f"Did you mean {close[0]!r}?"
    return nearest(path, known)
