"""Comparing a model with an independent implementation that holds the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.proofs import compare, randomize


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def assert_parity() -> Callable[..., None]:
    """A function that asserts equal logits and equal gradients of every parameter, in float64 and in float32."""
    return _assert_parity


def _assert_parity(
    ours: NexusModule,
    theirs: nn.Module,
    images: Tensor,
    *,
    spelling: str,
    run: Callable[[Any, Tensor], Tensor] = lambda model, images: model(images),
    read: Callable[[dict[str, Any]], Tensor] = lambda outputs: outputs["logits"],
    float64: float = 1e-10,
    float32: float = 1e-5,
) -> None:
    """Gives the reference random weights, ours the same through `formats`, and compares.

    Gradients go through the same renames as weights do: renaming, joining and transposing are linear.

    Args:
        ours: The model of the zoo.
        theirs: The reference, built with the same sizes.
        images: Input of both.
        spelling: Name of the format that must recognise the reference's keys.
        run: Calls the reference and returns what is compared.
        read: Takes the same from our outputs.
        float64: Largest difference allowed in that precision, relative to the largest value if that is above 1.
        float32: Likewise.
    """
    randomize(theirs)
    for dtype, tolerance in ((torch.float64, float64), (torch.float32, float32)):
        found = compare(ours, theirs, images, run=run, read=lambda model, x: read(model(x)), dtype=dtype)
        assert found.spelling == spelling
        assert found.values <= tolerance, f"outputs differ by {found.values:.1e}"
        apart = {name: f"{difference:.1e}" for name, difference in found.gradients.items() if difference > tolerance}
        assert not apart, f"gradients differ: {apart}"
