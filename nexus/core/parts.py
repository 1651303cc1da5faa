"""The stages of a model that run on their own: each takes tensors of fixed size and gives tensors by name."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class PartSpec(NamedTuple):
    """How a model describes one of its parts.

    Attributes:
        run: Called with the model and the inputs, returns tensors by name.
        inputs: Names of what it takes: of what the model is given, or of what an earlier part gives.
        keep: Names of the children and parameters that it needs.
        graph: Whether it is one graph whatever the values, so that it can be exported.
    """

    run: Callable[..., Mapping[str, Tensor]]
    inputs: tuple[str, ...]
    keep: tuple[str, ...]
    graph: bool = True


class Part(nn.Module):
    """One stage of a model as a module. It shares the model's weights, and holds none that it does not need.

    Attributes:
        example_inputs: Tensors that it can be called with, in order: `part(*part.example_inputs)`.
        input_names: Their names.
        output_names: Names of what it returns.
    """

    def __init__(self, model: nn.Module, spec: PartSpec, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = _only(model, spec.keep)
        self.run = spec.run
        self.input_names = spec.inputs
        self.example_inputs = tuple(given[name] for name in spec.inputs)
        with torch.no_grad():
            self.example_outputs = dict(self(*self.example_inputs))
        self.output_names = tuple(self.example_outputs)
        self.training = model.training

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return dict(self.run(self.model, *inputs))


def _only(model: nn.Module, keep: Sequence[str]) -> Any:
    """Returns a model that shares the children and parameters of these names with `model`, and lacks the others."""
    view = copy.copy(model)
    view._modules = {name: child if name in keep else nn.Identity() for name, child in model._modules.items()}
    view._parameters = {name: parameter for name, parameter in model._parameters.items() if name in keep}
    return view


def make_parts(model: nn.Module, specs: Mapping[str, PartSpec], examples: Mapping[str, Tensor]) -> dict[str, Part]:
    """Returns the parts by name, in order; each is run once, so that the next has its example inputs."""
    given, parts = dict(examples), {}
    for name, spec in specs.items():
        parts[name] = Part(model, spec, given)
        given |= parts[name].example_outputs
    return parts


def run_parts(parts: Mapping[str, Part], **inputs: Tensor) -> dict[str, Tensor]:
    """Runs parts one after another. Returns the inputs and all that the parts gave, by name.

    Args:
        parts: What `model.parts()` returned.
        **inputs: What the model is given, such as `images=`.

    Raises:
        ValueError: Something is missing that a part takes.
    """
    given = dict(inputs)
    for name, part in parts.items():
        missing = [key for key in part.input_names if key not in given]
        if missing:
            raise ValueError(
                f"The part {name!r} takes {', '.join(missing)}, which is not given; pass {missing[0]}=...."
            )
        given |= part(*(given[key] for key in part.input_names))
    return given
