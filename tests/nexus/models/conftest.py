"""Comparing a model with an independent implementation that holds the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule


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
        ours, theirs = ours.to(dtype).eval(), theirs.to(dtype).eval()
        state, found = to_our_names(theirs.state_dict(), ours.formats)
        assert found == spelling
        ours.load_state_dict(ours.fit_state(state))
        batch = images.to(dtype)
        logits, wanted = read(ours(batch)), run(theirs, batch)
        assert_near(logits, wanted, tolerance, "logits")
        direction = torch.randn_like(wanted)
        for model, output in ((ours, logits), (theirs, wanted)):
            model.zero_grad()
            (output * direction).sum().backward()
        reference = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
        gradients, _ = to_our_names(reference, ours.formats)
        for name, parameter in ours.named_parameters():
            if not parameter.requires_grad and name not in gradients:
                continue
            assert_near(parameter.grad, gradients[name], tolerance, f"gradient of {name}")


def assert_near(ours: Tensor | None, theirs: Tensor, tolerance: float, what: str) -> None:
    assert ours is not None, what
    difference = (ours - theirs).abs().max().item()
    assert difference <= tolerance * max(1.0, theirs.abs().max().item()), f"{what} differs by {difference:.1e}"


def randomize(model: nn.Module) -> None:
    """Draws every parameter and running statistic, so that none is a zero or a one that hides a mistake."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.normal_(1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.2)
