"""What in a torch module says where gradients go: kept as `detach`, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import Function
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from mithril.errors import ConversionError

NO_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
"""How torch.export writes a region under `torch.no_grad()`: a call of a graph of its own."""


@contextmanager
def own_gradients_refused(module: nn.Module) -> Iterator[None]:
    """While a module is traced: refuses gradients that are written by hand, which tracing forward would lose.

    Under `torch.no_grad()`, where nobody asks for gradients, an `autograd.Function` is traced and has none.

    Raises:
        ConversionError: hooks on gradients, of a module or a tensor; an `autograd.Function`.
    """
    for path, part in module.named_modules():
        if part._backward_hooks or part._backward_pre_hooks:
            raise ConversionError(f"{path or 'The module itself'} has a backward hook, which no other framework runs.")
    before, hook = Function.__dict__["apply"], torch.Tensor.register_hook
    try:
        Function.apply = classmethod(_applied(before))  # type: ignore[method-assign]
        torch.Tensor.register_hook = _refuse_hook  # type: ignore[method-assign]
        yield
    finally:
        Function.apply = before  # type: ignore[method-assign]
        torch.Tensor.register_hook = hook  # type: ignore[method-assign]


def _applied(method: classmethod) -> Callable[..., Any]:
    """`Function.apply`, a class method, for torch's own functions and where gradients are off."""

    def checked(cls: type, *args: object, **kwargs: object) -> Any:
        apply = method.__get__(None, cls)
        if cls.__module__.split(".")[0] == "torch":
            return apply(*args, **kwargs)
        if torch.is_grad_enabled():
            raise ConversionError(
                f"The module calls the autograd.Function '{cls.__name__}', whose backward no other framework can run.",
                [
                    "Write it with operators that torch differentiates: x + (f(x) - x).detach() has the gradient of x."
                    " For values alone, call from_torch under torch.no_grad()."
                ],
            )
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, apply(*args, **kwargs))

    return checked


def _refuse_hook(tensor: torch.Tensor, hook: object) -> Any:
    raise ConversionError(
        f"The module puts the hook '{getattr(hook, '__name__', hook)}' on a gradient, which no other framework runs."
    )


def detach_no_grad(program: ExportedProgram) -> None:
    """Let what comes out of regions under `torch.no_grad()` be detached."""
    for part in list(program.graph_module.modules()):
        if isinstance(part, GraphModule):
            _detach_results(part)


def _detach_results(part: GraphModule) -> None:
    for call in part.graph.find_nodes(op="call_function", target=NO_GRAD):
        if call.args[0] is False:
            for picked in list(call.users):
                _detach_result(picked)
    part.recompile()


def _detach_result(picked: Node) -> None:
    """Let the users of one result of a region read it through `detach`."""
    value = picked.meta["val"]
    if not value.is_floating_point():
        return
    with picked.graph.inserting_after(picked):
        fixed = picked.graph.call_function(torch.ops.aten.detach.default, (picked,))
    fixed.meta = dict(picked.meta)
    picked.replace_all_uses_with(fixed, delete_user_cb=lambda user: user is not fixed)
