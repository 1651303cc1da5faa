"""What a family of variants is proven with: what makes it small, and who says what is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.proofs.parity import randomize

PAPER = "the paper"  # in the place of a library: its equations, written once more and in other ways than the model


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """Returns what a reference that gives logits gives."""
    return model(images)


def our_logits(model: NexusModule, images: Tensor) -> Tensor:
    """Returns the logits of a model of the zoo."""
    return model(images)["logits"]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """An independent implementation.

    Attributes:
        library: The package that it comes from, or `PAPER`.
        build: Called with that package and our configuration, returns the same model with any weights.
        spelling: Name of the format that must recognise its weights.
        publish: Writes its weights under the names of published files, where those differ from its own. Gradients
            go the same way, so it may rename, join, cut and turn tensors, and nothing else.
        run: Calls it on images and returns what is compared.
        read: Calls our model and returns the same.
        other_size: Whether it takes other image sizes as we do.
        tolerance: Largest relative difference allowed in float64.
        other_tolerance: Likewise at the other size; larger where the reference resamples positions in float32.
        float32_tolerance: Likewise in float32; None where a rounding changes which boxes are kept.
        randomize: Draws its weights.
        gradients: Whether its gradients are compared.
    """

    library: str
    build: Callable[[ModuleType, Any], nn.Module]
    spelling: str
    publish: Callable[[State], State] = dict
    run: Callable[[Any, Tensor], Tensor] = logits
    read: Callable[[Any, Tensor], Tensor] = our_logits
    other_size: bool = True
    tolerance: float = 1e-10
    other_tolerance: float = 1e-10
    float32_tolerance: float | None = 1e-5
    randomize: Callable[[nn.Module], None] = randomize
    gradients: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """Variants that are proven together.

    Attributes:
        variants: Shell patterns of their names.
        tiny: Changes of a variant's configuration that make it small and leave its kind as it is; or a function that
            returns them for a configuration.
        oracles: Those whose outputs are compared; empty where no independent implementation can be installed.
        image_size: (height, width) in pixels of the small model's images.
        other_size: Another size that it takes; None where the paper fixes the size.
        read: Calls a model and returns one tensor, for compiling and exporting.
        dynamic: Whether the outputs' shapes depend on the values, so that there is no one graph.
        elsewhere: Where the repository compares it, if a user's machine cannot.
    """

    variants: tuple[str, ...]
    tiny: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = field(default_factory=dict)
    oracles: tuple[Oracle, ...] = ()
    image_size: tuple[int, int] = (32, 32)
    other_size: tuple[int, int] | None = None
    read: Callable[[Any, Tensor], Tensor] = our_logits
    dynamic: bool = False
    elsewhere: str = ""

    def small(self, config: Config) -> Config:
        """Returns the configuration of the small model that stands for a variant."""
        changes = self.tiny(config) if callable(self.tiny) else self.tiny
        return config.replace(**changes)
