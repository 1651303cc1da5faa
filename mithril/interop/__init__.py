"""Models from torch modules, and torch modules from compiled models."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from mithril.interop.building import build_model
from mithril.interop.exporting import as_arguments, export_module
from mithril.interop.weights import params_of, save_safetensors, state_dict_of
from mithril.logical.model import Model

__all__ = ["from_torch", "save_safetensors", "state_dict_of"]


def from_torch(
    module: nn.Module, example_inputs: object, dynamic_shapes: object = None
) -> tuple[Model, dict[str, np.ndarray]]:
    """A torch module as a model, and its weights.

    The module is exported with `torch.export` as it is: in evaluation mode where `module.eval()` was called. Its
    submodules become submodels of the same names, so that a block that occurs twelve times is one function of the
    generated source. Inputs bear the names of `forward`'s parameters. Outputs bear the keys of a dict that `forward`
    returns (`features_0` for an element of a list in it), `output_0`, `output_1` of a tuple, `output` of a tensor.

    Args:
        module: floating parameters and inputs take the dtype of the backend that the model is compiled for.
        example_inputs: a tensor, a tuple of the arguments of `forward`, or a mapping of them by name.
        dynamic_shapes: sizes that stay open, as torch.export takes them; a size may simply be named:
            `{"images": {0: "batch"}}`. The example then needs a batch of at least 2. Other sizes are fixed.

    Returns:
        The model, and NumPy arrays of the parameters and buffers that `forward` reads, under their names in the state
        dict with dots replaced by underscores. Of tied tensors there is the first one.

    Raises:
        ConversionError: control flow that depends on the data, an operator without a mapping, a module that changes
            its inputs or buffers. The message names the submodule and the line of its source.
    """
    args, kwargs = as_arguments(example_inputs)
    exported = export_module(module, args, dynamic_shapes, kwargs)
    model = build_model(exported, type(module).__name__)
    read = {name for node, name in exported.tensors.items() if node.users}
    return model, params_of({name: value for name, value in exported.values.items() if name in read})
