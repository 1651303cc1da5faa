"""What is known of a model variant: what it is, how it was trained, where its weights are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.core.config import Config, nearest
from nexus.core.notebook import html_table
from nexus.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from nexus.core.module import NexusModule


BY_HAND = "by-hand:"
"""Before the address of a weight file that only a person with a browser can fetch."""
LONG_NAMES = {"image-classification": "classification", "object-detection": "detection"}
"""What model hubs call two of the tasks."""


def task_called(name: str) -> str:
    """Returns the task that is meant by `name`: "object-detection" and "detection" are one."""
    return LONG_NAMES.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A published result: `Metric(name="imagenet-1k top-1", value=76.13, source="torchvision metadata")`."""

    name: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published weight file of a variant.

    Attributes:
        tag: Tells several files of one variant apart: `resnet50.tv2_in1k`.
        url: Where the file is, `https://...` or `hf-hub:org/repo` (with `#file` for a file that is not the default), or
            `package:name/file` inside an installed Python package, or `by-hand:https://...` for a browser alone.
        sha256: The digest, or its first digits where only those are published; empty if none is.
        licence: Of the weights, as their authors state it.
        preprocessing: The preprocessing that the weights were evaluated with.
        changes: Fields in which the configuration differs from the card's, such as `num_classes`.
        metrics: Published results of this file.
        class_names: Names of the outputs in order; empty where they are not told.
    """

    tag: str
    url: str
    sha256: str = ""
    licence: str = "unknown"
    preprocessing: Preprocessing = Preprocessing()
    changes: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    class_names: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelCard:
    """What is known of a variant.

    Attributes:
        name: The registered name.
        model_class: The class that builds it.
        config: Its configuration: a `Config`, or of a model of your own also a plain mapping.
        num_parameters: The published number of parameters.
        weights: Published files; the first is the default.
        paper: Address of the paper.
        good_for: Keys of the selection matrices that it answers, such as "classification", with the suffix
            ":alternative" where it is the second choice (see `nexus.models.selection`).
    """

    name: str
    model_class: "type[NexusModule]"
    config: Config | Mapping[str, Any]
    num_parameters: int | None = None
    weights: tuple[Weights, ...] = ()
    paper: str = ""
    good_for: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """What the variant is for: its class's `task`."""
        return self.model_class.task

    @property
    def preprocessing(self) -> Preprocessing:
        """The default weights' preprocessing, or the library's default at the configuration's size."""
        if self.weights:
            return self.weights[0].preprocessing
        size = self.settings.get("image_size", 224)
        return Preprocessing(image_size=(size, size) if isinstance(size, int) else tuple(size))

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return self.config.to_dict() if isinstance(self.config, Config) else dict(self.config)

    def changed(self, changes: Mapping[str, Any]) -> Config | Mapping[str, Any]:
        """Returns the configuration with some fields changed; a `Config` names the nearest to an unknown one."""
        if not changes:
            return self.config
        return self.config.replace(**changes) if isinstance(self.config, Config) else {**self.config, **changes}

    def __repr__(self) -> str:
        count = "" if self.num_parameters is None else f", {self.num_parameters:,} parameters"
        tags = ", ".join(one.tag for one in self.weights)
        return f"ModelCard({self.name}: {self.model_class.__name__} for {self.task}{count}, weights: {tags or 'none'})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the card, and its weights."""
        about = {"model": self.model_class.__name__, "task": self.task, "parameters": self.num_parameters}
        rows = [{"": key, self.name: value} for key, value in (about | {"paper": self.paper}).items()]
        files = [
            {
                "weights": one.tag,
                "licence": one.licence,
                "published": "; ".join(f"{m.name} {m.value}" for m in one.metrics),
            }
            for one in self.weights
        ]
        return html_table(rows) + (html_table(files) if files else "")

    def find_weights(self, tag: str | None = None) -> Weights:
        """Returns the weights with this tag, or the default ones.

        Raises:
            ValueError: The variant has no weights, or none with this tag.
        """
        if not self.weights:
            raise ValueError(f"{self.name} has no published weights; train it, or load a file of your own.")
        for weights in self.weights:
            if tag in (None, weights.tag):
                return weights
        tags = [weights.tag for weights in self.weights]
        raise ValueError(f"{self.name} has no weights {tag!r}. {nearest(str(tag), tags)}")
