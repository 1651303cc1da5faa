"""Models without numbers: for their names and shapes, or because a file's weights come next."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = {
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
}


class Undrawn(TorchFunctionMode):
    """Models that are built inside leave their parameters as they were allocated: what is replaced is not drawn.

    Buffers are filled as always. On `meta`, drawing a normal would import torch's compiler (1.8 s) to fill nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs any function but the draw of a parameter, which stays as it is."""
        kwargs = kwargs or {}
        drawn = args[0] if args else kwargs.get("tensor")
        if func in _DRAWS and isinstance(drawn, nn.Parameter):
            return drawn
        return func(*args, **kwargs)


@contextmanager
def outlined() -> Iterator[None]:
    """Models that are built inside stand on `meta`: names and shapes, no numbers, no time."""
    with torch.device("meta"), Undrawn():
        yield
