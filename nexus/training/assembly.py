"""From a recipe to the things that a run is made of: data, model, preprocessing, task, loaders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from nexus.core.config import Config, field_types
from nexus.core.module import NexusModule
from nexus.core.preprocessing import HALF, Preprocessing
from nexus.data import Dataset, Loader, eval_transform, load_dataset, train_transform
from nexus.data.captions import CaptionTransform, sentences
from nexus.data.detection.batches import DetectionTransform
from nexus.data.images import image_size
from nexus.data.loader import ImageTransform
from nexus.models.cv import CLIP, SigLIP
from nexus.models.registry import create_model, model_info
from nexus.tasks import ImageTextTask, Task, get_task, task_name
from nexus.tasks.image_text.tokenizers import bring_tokenizer
from nexus.training.distributed import World
from nexus.training.recipe import DataRecipe, ModelRecipe, Recipe


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
    train: Loader
    val: Loader | None


def assemble(
    recipe: Recipe, world: World, model: nn.Module | None, train_data: Dataset | None, val_data: Dataset | None
) -> Parts:
    """Returns the parts of a run; what is given is used, the rest is made by the recipe.

    Raises:
        ValueError: Model, data and recipe do not fit together.
    """
    check_batch_size(recipe, world.size)
    if train_data is None:
        train_data = open_data(recipe.data, "train", world)
        val_data = val_data if val_data is not None else open_data(recipe.data, "val", world)
    if model is None:
        model = in_turn(world, lambda: make_model(recipe, train_data))
    preprocessing = choose_preprocessing(recipe.data, model, train_data)
    if isinstance(model, NexusModule):
        model.preprocessing, model.class_names = preprocessing, tuple(train_data.class_names)
    task = make_task(recipe, model, train_data)
    for dataset in (train_data, val_data):
        if dataset is not None:
            task.check_data(dataset)
    return Parts(model, task, *make_loaders(recipe, world, task, preprocessing, train_data, val_data))


def make_task(recipe: Recipe, model: nn.Module, dataset: Dataset) -> Task:
    """Returns the model's task with the recipe's settings. A model that reads texts is given its tokenizer.

    Raises:
        ValueError: The recipe smooths labels, and the task has none; the tokenizer does not fit; or the weights of an
            image-text model shall be sharded.
    """
    name, class_names = task_name(model), tuple(dataset.class_names)
    smoothing = recipe.training.label_smoothing
    if name == "classification":
        return get_task(name, class_names=class_names, label_smoothing=smoothing)
    if smoothing:
        raise ValueError(f"training.label_smoothing is {smoothing}, and {name} has no labels to smooth; leave it out.")
    if name != "image-text":
        return get_task(name, class_names=class_names)
    if recipe.training.sharding == "fsdp":  # FSDP gathers weights for `forward`, not for one tower alone
        raise ValueError(f"training.sharding is 'fsdp', which {type(model).__name__} cannot use; 'none' is DDP.")
    templates = recipe.data.templates
    task = ImageTextTask(class_names, templates=templates)
    task.check_data(dataset)
    texts = (text for index in range(len(dataset)) for text in sentences(dataset, index, templates))
    return replace(
        task, tokenize=bring_tokenizer(cast("CLIP | SigLIP", model), recipe.data.tokenizer, texts, templates)
    )


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
    """Returns one split of the recipe's data."""
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
    changes = {**_fitting(recipe, dataset, field_types(type(card.config))), **wanted.config}
    classes = len(dataset.class_names)
    if changes.get("num_classes", classes) != classes:
        raise ValueError(
            f"model.config.num_classes is {changes['num_classes']}, and the data {dataset.name!r} has {classes}"
            " classes; leave it out, or use other data."
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
    """Returns the changes of a model's configuration that fit it to the data."""
    changes: dict[str, Any] = {"num_classes": len(dataset.class_names)}
    preprocessing = recipe.data.preprocessing
    if preprocessing is not None:
        changes["in_channels"] = preprocessing.in_channels
        height, width = preprocessing.image_size
        changes["image_size"] = height if height == width else (height, width)
    elif not _has_weights(recipe.model):
        changes["in_channels"] = dataset.in_channels
    return {key: value for key, value in changes.items() if key in fields}


def _has_weights(recipe: ModelRecipe) -> bool:
    return recipe.pretrained or recipe.checkpoint is not None


def choose_preprocessing(recipe: DataRecipe, model: nn.Module, dataset: Dataset) -> Preprocessing:
    """Returns the recipe's preprocessing, or the model's, or a plain one: values to [-1, 1] at the model's size.

    A model that does not say which size it takes gets images as they are, all as large as the first.
    """
    if recipe.preprocessing is not None:
        return recipe.preprocessing
    if not isinstance(model, NexusModule):
        return _plain(image_size(dataset[0].image), dataset.in_channels, resize="none")
    if model.preprocessing is not None:
        return model.preprocessing
    settings = model.config.to_dict() if isinstance(model.config, Config) else model.config
    channels, size = settings.get("in_channels", dataset.in_channels), settings.get("image_size")
    if model.card is not None:
        return model.card.preprocessing.fitted({"image_size": size, "in_channels": channels})
    if size is None:
        size = image_size(dataset[0].image)
    return _plain((size, size) if isinstance(size, int) else (size[0], size[1]), channels, resize="shorter")


def _plain(size: tuple[int, int], channels: int, resize: str) -> Preprocessing:
    half = (HALF[0],) * channels
    return Preprocessing.from_mapping({"image_size": size, "mean": half, "std": half, "resize": resize})


def make_transforms(recipe: Recipe, task: Task, preprocessing: Preprocessing) -> tuple[ImageTransform, ImageTransform]:
    """Returns what makes batches for training, and for measuring.

    Raises:
        ValueError: The recipe's augmentation is not for this task.
    """
    if task.name == "detection":
        return DetectionTransform(preprocessing, recipe.augment), DetectionTransform(preprocessing)
    transform, held_out = train_transform(preprocessing, recipe.augment), eval_transform(preprocessing)
    if not isinstance(task, ImageTextTask):
        return transform, held_out
    if recipe.augment.mixup or recipe.augment.cutmix:
        raise ValueError("augment sets mixup or cutmix, which mix no texts along; leave them out.")
    assert task.tokenize is not None
    words = (task.tokenize, recipe.data.templates)
    return CaptionTransform(transform, *words, training=True), CaptionTransform(held_out, *words, training=False)


def make_loaders(
    recipe: Recipe,
    world: World,
    task: Task,
    preprocessing: Preprocessing,
    train_data: Dataset,
    val_data: Dataset | None,
) -> tuple[Loader, Loader | None]:
    """Returns the loaders of this process.

    Raises:
        ValueError: The data has fewer images than a batch.
    """
    training = recipe.training
    if len(train_data) < training.batch_size:
        raise ValueError(
            f"training.batch_size is {training.batch_size}, and {train_data.name!r} has {len(train_data)} images to"
            " train on; use a batch of at most as many."
        )
    share = {
        "seed": training.seed,
        "rank": world.rank,
        "world_size": world.size,
        "num_workers": recipe.data.num_workers,
        "batch_size": training.batch_size,
    }
    transform, held_out = make_transforms(recipe, task, preprocessing)
    mix = recipe.augment.mix(len(train_data.class_names))
    train = Loader(train_data, transform, shuffle=True, drop_last=True, mix=mix, **share)
    if val_data is None:
        return train, None
    return train, Loader(val_data, held_out, shuffle=False, drop_last=False, **share)
