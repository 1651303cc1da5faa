"""From a recipe to the things that a run is made of: data, model, preprocessing, task, loaders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from nexus.core.config import Config, field_types
from nexus.core.module import NexusModule
from nexus.core.preprocessing import HALF, Preprocessing
from nexus.data import AugmentConfig, Dataset, Loader, load_dataset
from nexus.data.adapt import Adapted, as_dataset
from nexus.data.facets import Pictured, Rays, class_names_of
from nexus.data.foreign_loader import ForeignLoader
from nexus.data.images import image_size
from nexus.models.registry import create_model, model_info
from nexus.tasks.protocol import Task
from nexus.tasks.source import untouched
from nexus.tasks.table import find_task, task_of
from nexus.training.distributed import World
from nexus.training.recipe import GIVEN, DataRecipe, ModelRecipe, Recipe, kind_settings

Batches = Loader | ForeignLoader


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        model: With `preprocessing` and `class_names` set, if it is a `NexusModule`.
        task: Its losses and metrics.
        train: Batches of this process, in a new order each epoch.
        val: Batches of this process in a fixed order; None without held-out data.
    """

    model: nn.Module
    task: Task
    train: Batches
    val: Batches | None


def assemble(recipe: Recipe, world: World, model: nn.Module | None, train_data: Any, val_data: Any) -> Parts:
    """Returns the parts of a run; what is given is used, the rest is made by the recipe.

    Raises:
        ValueError: Model, data and recipe do not fit together.
    """
    check_batch_size(recipe, world.size)
    if train_data is None:
        train_data = open_data(recipe.data, "train", world)
        val_data = val_data if val_data is not None else open_data(recipe.data, "val", world)
    train, val = (_opened(source, recipe, world) for source in (train_data, val_data))
    if val is None and recipe.training.patience is not None:
        raise ValueError(
            f"training.patience is {recipe.training.patience}, and no data is held out to see when it gets no better;"
            " leave it out, or give such data."
        )
    assert train is not None
    dataset = _dataset_of(train)
    if model is None:
        model = in_turn(world, lambda: make_model(recipe, dataset))
    preprocessing = choose_preprocessing(recipe.data, model, dataset)
    if isinstance(model, NexusModule):
        model.preprocessing, model.class_names = preprocessing, class_names_of(dataset)
    kind = task_of(model, dataset)
    check_settings(kind, recipe)
    task = kind.for_run(model, dataset, recipe)
    for opened in (train, val):
        if opened is not None:
            task.check_data(_dataset_of(opened))
    return Parts(model, task, *make_loaders(recipe, world, task, preprocessing, train, val))


def _opened(source: Any, recipe: Recipe, world: World) -> Any:
    """Returns what a user gives as a data set, or as batches of one."""
    if isinstance(source, DataLoader):
        return ForeignLoader(source, seed=recipe.training.seed, rank=world.rank, world_size=world.size)
    return None if source is None else as_dataset(source)


def _dataset_of(opened: Any) -> Dataset:
    return opened.dataset if isinstance(opened, ForeignLoader) else opened


def check_settings(kind: type[Task], recipe: Recipe) -> None:
    """Raises ValueError where a recipe sets what a kind of model does not have."""
    for key, value in kind_settings(recipe).items():
        if key not in kind.settings:
            raise ValueError(f"{key} is {value!r}, and {kind.name} has nothing that it is for; leave it out.")


def check_batch_size(recipe: Recipe, processes: int) -> None:
    """Raises ValueError unless the batch can be split evenly."""
    size, accumulate = recipe.training.batch_size, recipe.training.accumulate
    shares = processes * accumulate
    if size % shares:
        raise ValueError(
            f"training.batch_size is {size}, which {processes} processes x {accumulate} accumulated parts cannot share"
            f" evenly; use a multiple of {shares}, such as {max(1, round(size / shares)) * shares}."
        )


def in_turn(world: World, make: Any) -> Any:
    """Calls `make` in the main process first, so that the others find downloads finished."""
    made = make() if world.is_main else None
    world.barrier()
    return made if world.is_main else make()


def open_data(recipe: DataRecipe, split: str, world: World) -> Dataset:
    """Returns one split of the recipe's data.

    Raises:
        ValueError: It is nowhere to be found.
    """
    if recipe.source == GIVEN:
        raise ValueError(
            "The data of this run was given in Python, so its recipe cannot name it; name it (data.source, --data)."
        )
    return in_turn(world, lambda: load_dataset(recipe.source, split, root=recipe.root, download=recipe.download))


def make_model(recipe: Recipe, dataset: Dataset) -> NexusModule:
    """Returns the recipe's model with one output per class of the data.

    Raises:
        ValueError: The recipe names no model, or asks for another number of classes than the data has.
    """
    wanted = recipe.model
    if wanted.name is None:
        raise ValueError("model.name is not set, and the trainer was given no model; name one, such as resnet18.")
    card = model_info(wanted.name)
    fields = field_types(type(card.config)) if isinstance(card.config, Config) else card.config
    decided = find_task(card.task).changes(dataset, fields)
    changes = {**_fitting(recipe, dataset, fields), **decided, **wanted.config}
    for key, value in decided.items():
        if changes[key] != value:
            raise ValueError(
                f"model.config.{key} is {changes[key]}, and the data {dataset.name!r} has {value}"
                f" {key.removeprefix('num_')}; leave it out, or use other data."
            )
    try:
        if wanted.checkpoint is not None:
            return card.model_class.from_pretrained(wanted.checkpoint, **changes)
        model = create_model(wanted.name, pretrained=wanted.pretrained, **changes)
        if wanted.backbone_checkpoint is not None:
            load_backbone(model, wanted.backbone_checkpoint)
        return model
    except ValueError as error:
        raise ValueError(f"The model {wanted.name!r} cannot be made: {error}") from error


def load_backbone(model: NexusModule, source: str) -> None:
    """Gives the backbone of a detector the weights of a classifier, up to its head.

    Args:
        model: With a model of the zoo as `backbone`, or inside it as `backbone.body`.
        source: See `NexusModule.from_pretrained`.

    Raises:
        ValueError: There is no such backbone, or the weights do not fit it.
    """
    outer = dict(model.named_children()).get("backbone", model)
    body = dict(outer.named_children()).get("body", outer)
    if body is model or not isinstance(body, NexusModule):
        raise ValueError(
            f"model.backbone_checkpoint is {source!r}, and {type(model).__name__} has no model of the zoo as backbone."
        )
    trained = type(body).from_pretrained(source, in_channels=_channels(body), num_classes=0).state_dict()
    own = body.state_dict()
    wrong = [key for key in own if key not in trained or trained[key].shape != own[key].shape]
    if wrong:
        raise ValueError(f"{source} does not fit the backbone of {type(model).__name__}: {wrong[0]} differs.")
    body.load_state_dict({key: trained[key] for key in own})


def _channels(model: NexusModule) -> int:
    settings = model.config.to_dict() if isinstance(model.config, Config) else model.config
    return settings["in_channels"]


def _fitting(recipe: Recipe, dataset: Dataset, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the changes of a model's configuration that fit it to the images."""
    changes: dict[str, Any] = {}
    preprocessing = recipe.data.preprocessing
    if preprocessing is not None:
        changes["in_channels"] = preprocessing.in_channels
        height, width = preprocessing.image_size
        changes["image_size"] = height if height == width else (height, width)
    elif not _has_weights(recipe.model) and isinstance(dataset, Pictured):
        changes["in_channels"] = dataset.in_channels
    if recipe.data.image_size is not None:
        changes["image_size"] = recipe.data.image_size
    return {key: value for key, value in changes.items() if key in fields}


def _has_weights(recipe: ModelRecipe) -> bool:
    return recipe.pretrained or recipe.checkpoint is not None


def choose_preprocessing(recipe: DataRecipe, model: nn.Module, dataset: Any) -> Preprocessing | None:
    """Returns the recipe's preprocessing, or the model's, or a plain one: values to [-1, 1] at the model's size.

    The recipe may change the size alone. A model that does not say which size it takes gets images as they are, all as
    large as the first. None where the data has no images, or tensors that go into the model as they are.
    """
    if recipe.preprocessing is not None:
        return recipe.preprocessing
    chosen = _own_preprocessing(model, dataset)
    if chosen is None or recipe.image_size is None:
        return chosen
    resized = chosen.replace(resize="shorter") if chosen.resize == "none" else chosen
    return resized.fitted({"image_size": recipe.image_size})


def _own_preprocessing(model: nn.Module, dataset: Any) -> Preprocessing | None:
    channels = dataset.in_channels if isinstance(dataset, Pictured) else None
    if channels is None or _goes_in_as_it_is(dataset):
        return None
    if not isinstance(model, NexusModule):
        return _plain(image_size(dataset[0].image), channels, resize="none")
    if model.preprocessing is not None:
        return model.preprocessing
    settings = model.config.to_dict() if isinstance(model.config, Config) else model.config
    channels, size = settings.get("in_channels", channels), settings.get("image_size")
    if model.card is not None:
        return model.card.preprocessing.fitted({"image_size": size, "in_channels": channels})
    if size is None:
        size = image_size(dataset[0].image)
    return _plain((size, size) if isinstance(size, int) else (size[0], size[1]), channels, resize="shorter")


def _plain(size: tuple[int, int], channels: int, resize: str) -> Preprocessing:
    half = (HALF[0],) * channels
    return Preprocessing.from_mapping({"image_size": size, "mean": half, "std": half, "resize": resize})


def make_loaders(
    recipe: Recipe, world: World, task: Task, preprocessing: Preprocessing | None, train: Any, val: Any = None
) -> tuple[Batches, Batches | None]:
    """Returns the batches of this process, to train and to validate on; batches that are given are taken as they are.

    Raises:
        ValueError: The data has fewer items than a batch, or the augmentation does not fit it.
    """
    share = {
        "seed": recipe.training.seed,
        "rank": world.rank,
        "world_size": world.size,
        "num_workers": recipe.data.num_workers,
        "batch_size": recipe.training.batch_size,
    }
    dataset: Any = _dataset_of(train)
    pixels = untouched(dataset.in_channels) if _goes_in_as_it_is(dataset) else preprocessing
    transform, held_out = task.transforms(pixels, recipe.augment)
    weights = task.item_weights(dataset, recipe)
    if not isinstance(train, ForeignLoader):
        _check_fits(recipe, train)
        mix = recipe.augment.mix(len(class_names_of(train)))
        train = Loader(train, transform, shuffle=True, drop_last=True, mix=mix, weights=weights, **share)
    elif weights is not None:
        raise ValueError("data.sampling is set, and a DataLoader is given, which draws by itself; leave it out.")
    if val is not None and not isinstance(val, ForeignLoader):
        val = Loader(val, held_out, shuffle=False, drop_last=False, **share)
    return train, val


def _check_fits(recipe: Recipe, dataset: Dataset) -> None:
    size = recipe.training.batch_size
    if len(dataset) < size and not isinstance(dataset, Rays):
        raise ValueError(
            f"training.batch_size is {size}, and {dataset.name!r} has {len(dataset)} images to train on; use a batch of"
            " at most as many."
        )
    if _goes_in_as_it_is(dataset) and recipe.augment.replace(mixup=0.0, cutmix=0.0) != AugmentConfig():
        raise ValueError(
            f"augment changes images, and {dataset.name!r} gives tensors that go into the model as they are; leave"
            " augment out, or give images."
        )


def _goes_in_as_it_is(dataset: Any) -> bool:
    return isinstance(dataset, Adapted) and dataset.as_input
