"""A recipe: everything that decides how a model is trained, as typed YAML.

A recipe file is one mapping with the sections of `Recipe`. What it leaves out has the default written here; an
unknown key, a wrong type and a broken rule are errors that name the key by its path, `optimizer.lr`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nexus.core.config import Config
from nexus.core.preprocessing import Preprocessing
from nexus.data import AugmentConfig
from nexus.ops.clicks import ClipPromptConfig, PromptConfig


def _at_least(config: Config, **bounds: float) -> None:
    for name, bound in bounds.items():
        value = getattr(config, name)
        if value is not None and not bound <= value < math.inf:
            raise ValueError(f"{type(config).__name__}.{name} is {value}; it must be at least {bound} and finite.")


def _above(config: Config, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{type(config).__name__}.{name} is {value}; it must be above 0 and finite.")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe(Config):
    """What is trained.

    Attributes:
        name: A registered model, `"vit_small_patch16_224"`; None where the trainer is given a model.
        pretrained: Start from the published weights.
        checkpoint: Start from these weights instead: a file, a folder of `save_pretrained`, `"hf-hub:org/repo"`.
        backbone_checkpoint: Start a detector's backbone from these weights of a classifier: a registered name such as
            `"resnet50"`, a file, a folder.
        config: Changes to the model's configuration. The number of classes and channels come from the data.
    """

    name: str | None = None
    pretrained: bool = False
    checkpoint: str | None = None
    backbone_checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.checkpoint is not None:
            raise ValueError(
                f"ModelRecipe.pretrained is true and checkpoint is {self.checkpoint!r}; weights have one source."
            )
        if self.backbone_checkpoint is not None and (self.pretrained or self.checkpoint is not None):
            raise ValueError(
                f"ModelRecipe.backbone_checkpoint is {self.backbone_checkpoint!r}, and pretrained or checkpoint fill"
                " the whole model already; leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class DataRecipe(Config):
    """What it is trained on.

    Attributes:
        source: "digits", "cifar10", "cifar100", "folder:PATH", "captions:PATH"; see `nexus.data.load_dataset`.
        root: Where archives lie or are downloaded to; None is the library's cache.
        download: Allow downloading.
        preprocessing: How images become input; None takes the model's own.
        image_size: Side of the images that go into the model, or height and width, where the rest of the model's own
            preprocessing stays; None is its own size.
        sampling: "balanced" draws each class equally often, with replacement; None takes every image once an epoch.
        num_workers: Processes that decode images; 0 decodes in the training process.
        tokenizer: Of image-text models: a folder with its files, a repository of the hub, or "words", one made of the
            words of the training texts, for a model that starts from nothing. None is the one of the model's card.
        templates: Of image-text models: sentences with a `{}` for the class, where data has classes, not captions.
    """

    source: str = "digits"
    root: str | None = None
    download: bool = False
    preprocessing: Preprocessing | None = None
    image_size: int | tuple[int, int] | None = None
    sampling: Literal["balanced"] | None = None
    num_workers: int = 0
    tokenizer: str | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, num_workers=0)
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if any(side is not None and side < 1 for side in sides):
            raise ValueError(f"DataRecipe.image_size is {self.image_size}; it must be at least 1.")
        if self.image_size is not None and self.preprocessing is not None:
            raise ValueError("DataRecipe has image_size and preprocessing, which has one of its own; leave one out.")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(f"DataRecipe.templates has {template!r}, without {{}} where the class is written.")


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe(Config):
    """How weights move.

    Attributes:
        name: "adamw", "sgd" (with momentum), "lamb" or "lion".
        lr: The learning rate at its peak.
        lr_scaling: The batch size that `lr` is meant for: it is scaled linearly to `training.batch_size`
            (Goyal et al. 2017). None leaves it as it is.
        weight_decay: For weights; norms, biases, and position and class tokens never decay.
        betas: Decay of the running averages of adamw, lamb and lion.
        eps: Added to a denominator, in adamw and lamb.
        momentum: Of sgd.
        nesterov: Of sgd.
        layer_decay: Each block below the head learns this much slower than the one above it (Bao et al. 2022).
        lr_factors: What the rate of parameters is multiplied by, by the start of their names: `{"backbone.": 0.1}`.
            Where several starts fit, the longest counts.
    """

    name: Literal["adamw", "sgd", "lamb", "lion"] = "adamw"
    lr: float = 1e-3
    lr_scaling: int | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False
    layer_decay: float | None = None
    lr_factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _above(self, "lr", "lr_scaling", "eps", "layer_decay")
        _at_least(self, weight_decay=0, momentum=0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"OptimizerRecipe.betas is {self.betas}; both must be at least 0 and below 1.")
        if self.layer_decay is not None and self.layer_decay > 1:
            raise ValueError(f"OptimizerRecipe.layer_decay is {self.layer_decay}; it must be at most 1.")
        for prefix, factor in self.lr_factors.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
                raise ValueError(
                    f"OptimizerRecipe.lr_factors[{prefix!r}] is {factor!r}; it must be a number above 0 and finite."
                )


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe(Config):
    """How the learning rate changes, as a share of its peak.

    Attributes:
        name: "cosine" to `floor`; "step" times `gamma` at every milestone; "polynomial" to `floor`; "wsd", constant and
            then linear to `floor` within the last `decay` of the run; "constant".
        warmup_epochs: Linear rise from 0, in epochs; parts of one are allowed.
        warmup_steps: The same in steps, instead.
        floor: The share of the peak that is left at the end.
        milestones: Epochs after which "step" multiplies by `gamma`.
        milestone_steps: The same in steps, instead.
        gamma: That factor.
        power: Of "polynomial".
        decay: Share of all steps in which "wsd" decays.
    """

    name: Literal["cosine", "step", "polynomial", "wsd", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    floor: float = 0.0
    milestones: tuple[float, ...] = ()
    milestone_steps: tuple[int, ...] = ()
    gamma: float = 0.1
    power: float = 1.0
    decay: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, warmup_epochs=0, warmup_steps=0, floor=0, gamma=0)
        _above(self, "power", "decay")
        if self.floor > 1 or self.decay > 1:
            raise ValueError(f"ScheduleRecipe has floor {self.floor} and decay {self.decay}; both are at most 1.")
        for epochs, steps in (("warmup_epochs", "warmup_steps"), ("milestones", "milestone_steps")):
            if getattr(self, epochs) and getattr(self, steps):
                raise ValueError(f"ScheduleRecipe has {epochs} and {steps}, which are one thing; leave one out.")
        if self.name == "step" and not (self.milestones or self.milestone_steps):
            raise ValueError("ScheduleRecipe.milestones is empty; a step schedule needs at least one epoch.")
        for milestones in (self.milestones, self.milestone_steps):
            if list(milestones) != sorted(milestones):
                raise ValueError(f"ScheduleRecipe.milestones is {list(milestones)}; epochs must rise.")


DEFAULT_EPOCHS = 10
GIVEN = "given"
"""What a run's recipe says of data that was given to the trainer, and that no name leads to."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe(Config):
    """The loop.

    Attributes:
        epochs: Passes over the data; 10 if neither these nor steps are given.
        steps: Optimizer steps, instead: a run has one length. Data without epochs (rays) needs it.
        batch_size: Images per step, over all processes and accumulated parts.
        accumulate: Parts that the batch of one process is split into, to save memory.
        clip_norm: Upper bound of the gradient's norm; None does not clip.
        precision: "fp32", or the type of autocast; "fp16" scales the loss.
        ema: Decay of an average of the weights that is evaluated and saved instead of them; None has none.
        label_smoothing: Share of a label spread over all classes.
        class_weights: "balanced" weighs the loss of an image by how rare its class is, so that all classes count alike.
        patience: Stop after so many validations in a row without a new best; None trains to the end.
        keep: What `model/` holds in the end: the weights that were "best" on held-out data, or the "last".
        linear_probe: Train the head alone; all else is frozen and in evaluation mode.
        freeze: Starts of the names of parameters that stay as they are, such as "image_encoder."; modules whose names
            start so are in evaluation mode.
        seed: Of the weights, the order of the data and the augmentation.
        compile: Use `torch.compile`.
        channels_last: Keep images and convolutions in the NHWC layout.
        gradient_checkpointing: Recompute activations to save memory.
        sharding: "none" is DDP where there are several processes, "fsdp" shards weights and optimizer (FSDP2).
        sync_batchnorm: Batch norm over all processes (CUDA only).
        num_threads: Threads of the CPU; None leaves torch's choice. Very small models are fastest on one.
        device: "auto" is CUDA if there is any, else the CPU; "cpu", "cuda", "mps".
        checkpoint_every: Steps between checkpoints; None is every epoch. The end and a new best always get one.
        keep_checkpoints: How many of the newest stay; the best stays too.
        validate_every: Epochs between validations, or steps where the run counts steps; the end always has one. None
            is every epoch, or, of data without epochs, the end alone.
        log_every: Steps between lines of `metrics.jsonl`; a line has the mean over them.
        loggers: Where the figures go beside `metrics.jsonl`; see `nexus.training.loggers`.
        tensorboard: The same as "tensorboard" among the loggers.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float | None = None
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | None = None
    patience: int | None = None
    keep: Literal["best", "last"] = "best"
    linear_probe: bool = False
    freeze: tuple[str, ...] = ()
    seed: int = 0
    compile: bool = False
    channels_last: bool = False
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    sync_batchnorm: bool = False
    num_threads: int | None = None
    device: str = "auto"
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    validate_every: int | None = None
    log_every: int = 10
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    tensorboard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"TrainingRecipe.epochs is {self.epochs} and steps is {self.steps}; a run has one length: set one of"
                " them to null."
            )
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", DEFAULT_EPOCHS)
        one = dict.fromkeys(
            ("epochs", "steps", "batch_size", "accumulate", "checkpoint_every", "num_threads", "patience"), 1
        )
        _at_least(self, **one, keep_checkpoints=1, validate_every=1, log_every=1, seed=0)
        _above(self, "clip_norm")
        if self.linear_probe and self.freeze:
            raise ValueError(
                f"TrainingRecipe.freeze is {list(self.freeze)} and linear_probe is true, which freezes the rest too;"
                " leave one out."
            )
        if self.seed >= 2**63:
            raise ValueError(f"TrainingRecipe.seed is {self.seed}; it must be below 2**63.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"TrainingRecipe.ema is {self.ema}; it must be above 0 and below 1, such as 0.9999.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"TrainingRecipe.label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1."
            )

    @property
    def all_loggers(self) -> tuple[str, ...]:
        """Names of the loggers, TensorBoard among them whichever key asked for it."""
        return tuple(dict.fromkeys((*self.loggers, *(("tensorboard",) if self.tensorboard else ()))))


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """Everything that decides a run; `load_recipe` reads one.

    Attributes:
        prompts: How a promptable segmenter is asked in training; None is as in its paper. Other kinds have no such key.
        clips: How one that follows objects through clips is asked; likewise.
    """

    model: ModelRecipe = ModelRecipe()
    data: DataRecipe = DataRecipe()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    training: TrainingRecipe = TrainingRecipe()
    prompts: PromptConfig | None = None
    clips: ClipPromptConfig | None = None


KIND_KEYS = ("training.label_smoothing", "training.class_weights", "data.sampling", "prompts", "clips")
"""Keys that some kinds of model follow, as their tasks say in `settings`; the others refuse them."""


def kind_settings(recipe: Recipe) -> dict[str, Any]:
    """Returns those of `KIND_KEYS` that are set, with their values."""
    tree = recipe.to_dict()
    values = {**tree, **leaves(tree)}
    return {key: values[key] for key in KIND_KEYS if values.get(key)}


# Keys that a resumed run may change: they say where and how it runs, not what it computes.
EXECUTION_KEYS = frozenset(
    [
        "data.root",
        "data.download",
        "data.num_workers",
        "training.device",
        "training.tensorboard",
        "training.loggers",
        "training.checkpoint_every",
        "training.keep_checkpoints",
    ]
)


def differing_keys(old: Recipe, new: Recipe) -> list[str]:
    """Returns the paths of the keys that decide a run's numbers and differ between two recipes."""
    before, after = leaves(old.to_dict()), leaves(new.to_dict())
    paths = sorted(before.keys() | after.keys())
    missing = object()
    return [p for p in paths if p not in EXECUTION_KEYS and before.get(p, missing) != after.get(p, missing)]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, its keys paths such as `optimizer.lr`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
