"""Comparing a model with an independent implementation that holds the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.formats import State, to_our_names
from nexus.core.module import NexusModule


@dataclass(frozen=True)
class Differences:
    """How far a model is from its reference, relative to the reference's largest value where that is above 1.

    Attributes:
        spelling: Name of the format that recognised the reference's weights; "nexus" where its names are ours.
        values: Of what both return.
        gradients: Of each parameter, by our name; infinite where one of both has none, left out where both have none.
            Empty if not asked for.
    """

    spelling: str
    values: float
    gradients: dict[str, float]

    @property
    def largest_gradient(self) -> float:
        """The largest of `gradients`."""
        return max(self.gradients.values(), default=0.0)


def compare(
    ours: NexusModule,
    theirs: nn.Module,
    images: Tensor,
    *,
    run: Callable[[Any, Tensor], Tensor],
    read: Callable[[Any, Tensor], Tensor],
    publish: Callable[[State], State] = dict,
    dtype: torch.dtype = torch.float64,
    gradients: bool = True,
) -> Differences:
    """Gives our model the reference's weights through `formats`, and returns how far both are apart.

    Both are left in evaluation mode and in `dtype`. Gradients go through the same renames as weights do: renaming,
    joining and transposing are linear.

    Args:
        ours: The model of the zoo.
        theirs: The reference, with its weights.
        images: Input of both.
        run: Calls the reference and returns what is compared.
        read: Calls our model and returns the same.
        publish: Writes the reference's weights, and their gradients, under the names of published files.
        dtype: The precision.
        gradients: Whether to compare the gradients of a random direction of the values too.
    """
    ours, theirs, images = ours.to(dtype).eval(), theirs.to(dtype).eval(), images.to(dtype)
    state, spelling = to_our_names(publish(theirs.state_dict()), ours.formats)
    ours.load_state_dict(ours.fit_state(state))
    if not gradients:
        with torch.no_grad():
            return Differences(spelling, relative_difference(read(ours, images), run(theirs, images)), {})
    found, wanted = read(ours, images), run(theirs, images)
    direction = torch.randn_like(wanted)
    for model, output in ((ours, found), (theirs, wanted)):
        model.zero_grad()
        (output * direction).sum().backward()
    reference = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    renamed, _ = to_our_names(publish(reference), ours.formats)
    apart = {
        name: relative_difference(parameter.grad, renamed.get(name))
        for name, parameter in ours.named_parameters()
        if parameter.grad is not None or name in renamed
    }
    return Differences(spelling, relative_difference(found, wanted), apart)


def relative_difference(found: Tensor | None, wanted: Tensor | None) -> float:
    """Returns the largest difference, divided by the largest wanted value where that is above 1.

    It is infinite where one of both is missing, where shapes differ, and where a value is not a number.
    """
    if found is None or wanted is None or found.shape != wanted.shape:
        return float("inf")
    difference = (found - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
    return difference if difference == difference else float("inf")


def randomize(model: nn.Module) -> None:
    """Draws every parameter and running statistic, so that none is a zero or a one that hides a mistake."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.normal_(1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.2)
