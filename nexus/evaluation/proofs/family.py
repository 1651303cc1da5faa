"""What a family of variants is proven with: what makes it small, and who says what is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.evaluation.proofs.parity import randomize


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
        library: The package that it comes from.
        build: Called with that package and our configuration, returns the same model with any weights.
        spelling: Name of the format that must recognise its weights.
        run: Calls it on images and returns what is compared.
        read: Calls our model and returns the same.
        other_size: Whether it takes other image sizes as we do.
        tolerance: Largest relative difference allowed in float64.
        other_tolerance: Likewise at the other size; larger where the reference resamples positions in float32.
        randomize: Draws its weights.
        gradients: Whether its gradients are compared.
    """

    library: str
    build: Callable[[ModuleType, Any], nn.Module]
    spelling: str
    run: Callable[[Any, Tensor], Tensor] = logits
    read: Callable[[Any, Tensor], Tensor] = our_logits
    other_size: bool = True
    tolerance: float = 1e-10
    other_tolerance: float = 1e-10
    randomize: Callable[[nn.Module], None] = randomize
    gradients: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """Variants that are proven together.

    Attributes:
        variants: Shell patterns of their names.
        tiny: Changes of a variant's configuration that make it small and leave its kind as it is.
        oracles: Those whose outputs are compared; empty where no independent implementation can be installed.
        image_size: (height, width) in pixels of the small model's images.
        other_size: Another size that it takes; None where the paper fixes the size.
        read: Calls a model and returns one tensor, for compiling and exporting.
        dynamic: Whether the outputs' shapes depend on the values, so that there is no one graph.
    """

    variants: tuple[str, ...]
    tiny: Mapping[str, Any] = field(default_factory=dict)
    oracles: tuple[Oracle, ...] = ()
    image_size: tuple[int, int] = (32, 32)
    other_size: tuple[int, int] | None = None
    read: Callable[[Any, Tensor], Tensor] = our_logits
    dynamic: bool = False
