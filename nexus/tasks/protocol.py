"""What the trainer, the evaluator, the predictor and the command line ask of a kind of model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data.facets import class_names_of
from nexus.data.loader import ImageTransform
from nexus.data.transforms import AugmentConfig, eval_transform, train_transform
from nexus.tasks.question import Method, Question
from nexus.tasks.report import Report
from nexus.tasks.session import Session, Stateless
from nexus.tasks.tiles import Window
from nexus.tasks.views import Batch, ImageInfo, Outputs

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from nexus.data import Dataset


Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits and labels to a scalar, as PyTorch's losses are called."""


class Metrics(Protocol):
    """Figures over a data set, gathered batch by batch on every process.

    `update` sees what this process saw, `synchronize` merges the processes, `compute` and `report` give the figures.
    """

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Adds one batch. `outputs` come from `Session.outputs` or `Task.losses`."""
        ...

    def synchronize(self) -> None:
        """Merges what all processes saw. A collective call, once, after the last `update`; alone it does nothing."""
        ...

    def compute(self) -> dict[str, float]:
        """Returns the figures by name. Before any `update` there is nothing to say, which raises ValueError."""
        ...

    def report(self, dataset: "Dataset") -> Report:
        """Returns the figures with everything that stands behind them."""
        ...


class Result(Protocol):
    """What a model says about one image.

    Attributes:
        formats: Files that this kind is written to beside .json and .csv: by the ending of their names, "" for a
            folder, a function from all results and the path.
    """

    formats: ClassVar[Mapping[str, Callable[[Sequence[Any], Path], None]]]

    @property
    def path(self) -> str: ...

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Returns plain values that JSON can hold, with at most `count` guesses per image or object."""
        ...

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the lines of a table (CSV): one per guess for a classifier, one per object for a detector."""
        ...

    def draw(self) -> "Image":
        """Returns a picture of it."""
        ...


@runtime_checkable
class Scored(Protocol):
    """A result of many finds, each with a score from 0 to 1."""

    def __len__(self) -> int: ...

    def above(self, score: float) -> Self:
        """Returns only the finds of at least this score."""
        ...


@runtime_checkable
class Averaged(Protocol):
    """A task whose answers to several views of an image have a mean."""

    def mean_answer(self, outputs: Sequence[Outputs]) -> Outputs:
        """Returns the mean of what the model gave for the same batch, seen several times."""
        ...


@runtime_checkable
class Tiled(Protocol):
    """A task that can put together what was found in the tiles of an image."""

    def merge_tiles(self, parts: Sequence[Any], info: ImageInfo, windows: Sequence[Window], match: float) -> Any:
        """Returns the result of an image, of those of its windows."""
        ...


@runtime_checkable
class Explained(Protocol):
    """A task whose models can be asked what they looked at."""

    def explanations(self) -> Mapping[str, Method]:
        """Returns the methods by name."""
        ...

    def answer(self, question: Question) -> str:
        """Returns in a sentence what the model says to the image in question."""
        ...


class Task(Protocol):
    """A kind of model: how data fits it, how it is trained, measured, asked and shown.

    A subclass is a frozen dataclass with the field `class_names`; it says what is its own, the rest is as here.

    Attributes:
        name: "classification", ... as the models' `task`.
        takes_images: Whether images go into the model; if not, it is asked by prompts alone.
        settings: Keys of a recipe that only some kinds follow, as far as this one does.
        class_names: Names of the classes, in the order of the model's outputs; empty where there are none.
    """

    name: ClassVar[str]
    takes_images: ClassVar[bool] = True
    settings: ClassVar[tuple[str, ...]] = ()

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def headline(self) -> str:
        """The metric that ranks checkpoints; higher is better."""
        ...

    # How data and settings fit it.

    @classmethod
    def takes(cls, shown: Any) -> bool:
        """Returns whether a model that is for several kinds is this one here.

        Args:
            shown: What the model meets: a data set, images as a user names them, prompts, or the texts of prompts.
        """
        return False

    @classmethod
    def for_model(
        cls, model: nn.Module, class_names: Sequence[str] = (), *, tokenizer: str | Path | None = None
    ) -> Self:
        """Returns the task that asks `model`.

        Args:
            model: Whose settings are taken.
            class_names: Instead of the model's own.
            tokenizer: Of models that read texts; see `nexus.tasks.image_text.tokenizers`.

        Raises:
            ValueError: There is a tokenizer, and these models read no texts.
        """
        if tokenizer is not None:
            raise ValueError(
                f"tokenizer is {str(tokenizer)!r}, and a {type(model).__name__} reads no texts; leave it out."
            )
        return cls(class_names=tuple(class_names) or _own_names(model))  # pyrefly: ignore[unexpected-keyword]

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures `model` on a data set.

        Raises:
            ValueError: Their classes do not fit.
        """
        return cls.for_model(model, class_names_of(dataset), tokenizer=tokenizer)

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task that trains `model` on a data set.

        Args:
            model: May be given what is saved with it, such as a tokenizer.
            dataset: To train on.
            recipe: A `nexus.training.Recipe`.

        Raises:
            ValueError: The recipe sets something that this kind does not have.
        """
        return cls.for_model(model, class_names_of(dataset))

    @classmethod
    def changes(cls, dataset: "Dataset", fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a model's configuration that the data decides: the number of its classes."""
        return {"num_classes": len(class_names_of(dataset))} if "num_classes" in fields else {}

    def item_weights(self, dataset: "Dataset", recipe: Any) -> "np.ndarray | None":
        """Returns how often each item is drawn in training, relative to the others; None is each once an epoch."""
        return None

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError where a data set cannot be used with these classes, before any step is taken."""
        ...

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[ImageTransform, ImageTransform]:
        """Returns what makes batches for training, and for measuring.

        Args:
            preprocessing: Of the images; None where no image goes in.
            augment: What is random in training.

        Raises:
            ValueError: The augmentation is not for this kind.
        """
        if preprocessing is None:
            raise ValueError(f"A model for {self.name} needs images, and nothing says how they become its input.")
        return train_transform(preprocessing, augment or AugmentConfig()), eval_transform(preprocessing)

    # Training and measuring.

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Outputs, dict[str, Tensor]]:
        """Runs the model on a batch with its targets. Returns its outputs and scalars; the trainer sums them."""
        ...

    def with_loss(self, loss: Loss) -> Self:
        """Returns the task with another loss than its own.

        Raises:
            ValueError: Models of this kind make their losses themselves.
        """
        raise ValueError(f"A loss is given, and models for {self.name} make their own; leave it out.")

    def predict(self, model: nn.Module, batch: Batch) -> Outputs:
        """Runs the model without targets. Returns outputs for `Metrics.update` and `results`."""
        ...

    def metrics(self) -> Metrics:
        """Returns fresh metrics."""
        ...

    def feature_model(self, model: nn.Module) -> nn.Module:
        """Returns the model whose `embeddings` a probe learns from: the whole model, or the part that is kept."""
        return model

    # Asking and showing.

    def session(self, model: nn.Module, prompts: Any = None) -> Session:
        """Returns the model ready to be shown images.

        Args:
            model: In evaluation mode.
            prompts: What it is asked: words, points, a question, a camera, whatever the kind takes; for all images,
                or one for each.

        Raises:
            ValueError: This kind takes no prompts, or not these.
        """
        if prompts is not None:
            raise ValueError(f"prompts are given, and a model for {self.name} takes none; leave them out.")
        return Stateless(self, model)

    def read_prompts(self, texts: Sequence[str]) -> Any:
        """Returns the prompts that a command line writes as texts."""
        return list(texts)

    def results(self, outputs: Outputs, infos: Sequence[ImageInfo]) -> Sequence[Any]:
        """Returns what the model says about each image of a batch, in units of the image as given: a `Result` each."""
        ...

    def draw(self, image: "Image", result: Any) -> "Image":
        """Returns a copy of the image with the result drawn on it."""
        ...


def _own_names(model: nn.Module) -> tuple[str, ...]:
    return tuple(model.class_names) if isinstance(model, NexusModule) else ()
