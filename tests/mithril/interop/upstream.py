"""torch's own samples of every operator (`op_db`) run through `from_torch`, against torch in values and gradients."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import mithril as ml


@dataclass
class Case:
    """One call of a function; gradients are compared for tensors that require them."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


class Call(nn.Module):
    """A case as a module whose inputs are the tensors among its arguments."""

    def __init__(self, case: Case):
        super().__init__()
        self.function = case.function
        self.leaves, self.spec = pytree.tree_flatten((case.args, case.kwargs))

    def tensors(self) -> list[torch.Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    def forward(self, *x: torch.Tensor) -> Any:
        given = iter(x)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        made = pytree.tree_leaves(self.function(*args, **kwargs))
        return tuple(leaf for leaf in made if isinstance(leaf, torch.Tensor))


@functools.cache
def infos() -> dict[str, Any]:
    """`op_db` by name; `softmax.with_dtype` is a variant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    found: dict[str, Any] = {}
    for info in op_db:
        found.setdefault(f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name, info)
    return found


def samples(name: str, most: int, dtype: torch.dtype = torch.float64) -> Iterator[Case]:
    """The first samples of an operator, in the nearest dtype that it takes."""
    info = infos()[name]
    if dtype not in info.dtypes:
        dtype = torch.int64 if torch.int64 in info.dtypes else torch.bool
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        wanted = info.supports_autograd and dtype.is_floating_point
        for number, sample in enumerate(islice(info.sample_inputs("cpu", dtype, requires_grad=wanted), most)):
            args = (sample.input, *sample.args)
            yield Case(f"{name}-{number}", functools.partial(_call, info.op), args, dict(sample.kwargs))


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def compare(case: Case, *backends: Any) -> None:
    """Values and gradients of a case on these backends equal torch's.

    Raises:
        MithrilError: `from_torch` refuses it.
        AssertionError: they differ.
    """
    module = Call(case)
    given = [leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in module.tensors()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, params = ml.from_torch(module, tuple(leaf.detach() for leaf in given))
        outputs = module(*given)
    seeds = [torch.randn_like(o) if o.requires_grad else None for o in outputs]
    grads = gradients(given, outputs, seeds)
    for backend in backends:
        run(case, backend, model, params, given, outputs, seeds, grads)


def gradients(given: list[torch.Tensor], outputs: tuple[torch.Tensor, ...], seeds: list[Any]) -> dict[str, Any]:
    """torch's gradients by the keys of the model."""
    wanted = {f"x_{i}": leaf for i, leaf in enumerate(given) if leaf.requires_grad}
    ends = [(o, s) for o, s in zip(outputs, seeds) if s is not None]
    if not wanted or not ends:
        return {}
    tops, weights = map(list, zip(*ends))
    found = torch.autograd.grad(tops, list(wanted.values()), weights, allow_unused=True)
    return {key: torch.zeros_like(leaf) if g is None else g for (key, leaf), g in zip(wanted.items(), found)}


def run(case: Case, backend: Any, model: Any, params: Any, given: Any, outputs: Any, seeds: Any, grads: Any) -> None:
    """One backend against torch."""
    near = {"rtol": 1e-6, "atol": 1e-8} if backend.dtype is ml.float64 else {"rtol": 1e-3, "atol": 1e-4}
    keys = [key for key in grads if key in model.input_keys]
    compiled = ml.compile(model, backend, jit=False, **({"trainable_keys": keys} if keys else {}))
    arrays = {f"x_{i}": leaf.detach().numpy(force=True) for i, leaf in enumerate(given)}
    values = {**params, **{key: arrays[key] for key in keys}}
    data = {key: arrays[key] for key in compiled.data_keys}
    ends = {key: backend.array(s.numpy()) for key, s in zip(compiled.output_keys, seeds) if s is not None}
    with np.errstate(all="ignore"):
        found, ours = compiled.evaluate_all(values, data, ends)[:2] if keys and ends else (None, {})
        found = compiled.evaluate(values, data) if found is None else found
    for key, theirs in zip(compiled.output_keys, outputs, strict=True):
        got, want = backend.to_numpy(found[key]), theirs.detach().numpy(force=True)
        assert got.shape == want.shape, f"{case.name} on {backend.name}: {got.shape}, not {want.shape}"
        wide = backend.name == "numpy" and want.dtype != np.float32
        assert not wide or got.dtype == want.dtype, f"{case.name}: {got.dtype}, not {want.dtype}"
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), err_msg=f"{case.name} on {backend.name}", **near
        )
    for key, grad in ours.items():
        got = backend.to_numpy(grad).astype(np.float64)
        message = f"{case.name} on {backend.name}, gradient of {key}"
        np.testing.assert_allclose(got, grads[key].numpy(force=True), err_msg=message, **near)
