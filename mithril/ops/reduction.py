"""Reductions over one axis, several, or all; sorting and cumulative operators."""

from __future__ import annotations

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import along, always, axes_of, axis_of, counted, first, floating, reduced, row
from mithril.ops.table import REQUIRED, Call
from mithril.types import DType, Shape

INT64 = always(DType.int64)
BOOL = always(DType.bool)


def written(function: str, **attributes: Any) -> dict[str, Any]:
    """`torch.sum(x, dim=1, keepdim=True)`, and `jnp.sum(x, axis=1, keepdims=True)` elsewhere."""

    def torch(call: Call) -> str:
        arguments = call.arguments("input", axis=("dim", None), keepdims=("keepdim", False), **attributes)
        return f"torch.{function}({arguments})"

    def other(call: Call) -> str:
        return f"{call.xp}.{function}({call.arguments('input', axis=None, keepdims=False, **attributes)})"

    return {"torch": torch, "any": other}


def reduction(name: str, code: dict[str, Any], dtype: Any = first, **more: Any) -> None:
    """A row with the attributes `axis` (None is all of them) and `keepdims`."""
    row(name, "input", code, {"axis": None, "keepdims": False, **more}, shape=reduced, dtype=dtype)


def torch_extremum(function: str) -> Any:
    """torch.max and torch.min over axes are amax and amin."""
    return written(function) | {"torch": written("a" + function)["torch"]}


def prod_torch(call: Call) -> str:
    """torch.prod takes one axis or none; several are taken one after the other, the last first."""
    axis, shape = call.attributes["axis"], call.shapes.get("input")
    if not isinstance(axis, tuple):
        return written("prod")["torch"](call)
    if shape is None:
        raise ShapeError(f"prod: on torch, the rank must be known to reduce the axes {axis}.")
    keep = ", keepdim=True" if call.attributes["keepdims"] else ""
    return call["input"] + "".join(f".prod({a}{keep})" for a in sorted(axes_of(axis, len(shape)), reverse=True))


def numpy_sum(function: str) -> Any:
    """NumPy and torch sum integers in int64, MLX and JAX keep the width."""

    def mlx(call: Call) -> str:
        text = written(function)["any"](call)
        dtype = call.dtypes.get("input")
        whole = isinstance(dtype, DType) and not dtype.is_floating
        return f"{text}.astype(mx.int64)" if whole else text

    return written(function) | {"mlx": mlx}


def variance(function: str, torch_function: str) -> dict[str, Any]:
    """`correction` is what is subtracted from the count: 1 is torch's default, 0 the other frameworks'."""

    def torch(call: Call) -> str:
        arguments = call.arguments(
            "input", axis=("dim", None), keepdims=("keepdim", False), correction=("correction", 1)
        )
        return f"torch.{torch_function}({arguments})"

    def other(call: Call) -> str:
        arguments = call.arguments("input", axis=None, keepdims=False, correction=("ddof", 0))
        return f"{call.xp}.{function}({arguments})"

    return {"torch": torch, "any": other}


def norm(call: Call) -> str:
    """`torch.linalg.vector_norm(x, dim=-1)`; the array libraries' `linalg.norm` with an axis is the same."""
    return (
        f"torch.linalg.vector_norm({call.arguments('input', ord=2, axis=('dim', None), keepdims=('keepdim', False))})"
    )


def index_of(function: str) -> dict[str, Any]:
    """MLX gives uint32, which would make negative numbers wrap."""
    other = written(function)["any"]
    return written(function) | {"mlx": lambda call: f"{other(call)}.astype(mx.int64)"}


def logsumexp(call: Call) -> str:
    arguments = call.arguments("input", axis=None, keepdims=False)
    if call.xp == "torch":
        every = "tuple(range({}.ndim))".format(call["input"])
        axis = every if call.attributes["axis"] is None else call["axis"]
        return f"torch.logsumexp({call['input']}, dim={axis}{', keepdim=True' if call.attributes['keepdims'] else ''})"
    return f"{'jax.nn' if call.xp == 'jnp' else 'mx'}.logsumexp({arguments})"


reduction("sum", numpy_sum("sum"), counted)
reduction("mean", written("mean"), floating)
reduction("prod", {**written("prod"), "torch": prod_torch, "mlx": numpy_sum("prod")["mlx"]}, counted)
reduction("max", torch_extremum("max"))
reduction("min", torch_extremum("min"))
reduction("any", written("any"), BOOL)
reduction("all", written("all"), BOOL)
reduction("argmax", index_of("argmax"), INT64)
reduction("argmin", index_of("argmin"), INT64)
reduction("variance", variance("var", "var"), floating, correction=0)
reduction("std", variance("std", "std"), floating, correction=0)
reduction("logsumexp", {"torch": logsumexp, "jax": logsumexp, "mlx": logsumexp}, floating)
reduction("norm", {"torch": norm}, floating, ord=2)


# Cumulative and sorting


def cumulative(function: str) -> dict[str, Any]:
    return {
        "torch": f"torch.{function}({{input}}, dim={{axis}})",
        "any": f"{{xp}}.{function}({{input}}, axis={{axis}})",
        "mlx": lambda call: numpy_cumulative(call, function),
    }


def numpy_cumulative(call: Call, function: str) -> str:
    dtype = call.dtypes.get("input")
    whole = isinstance(dtype, DType) and not dtype.is_floating
    return f"mx.{function}({call['input']}{'.astype(mx.int64)' if whole else ''}, axis={call['axis']})"


def running(torch: str, numpy: str, jax: str, mlx: str) -> dict[str, str]:
    """Templates of a cumulative operator, which each framework calls by another name."""
    return {
        "torch": f"torch.{torch}({{input}}, dim={{axis}}){'' if torch == 'logcumsumexp' else '.values'}",
        "numpy": f"np.{numpy}.accumulate({{input}}, axis={{axis}})",
        "jax": f"lax.{jax}({{input}}, axis={{axis}})",
        "mlx": f"mx.{mlx}({{input}}, axis={{axis}})",
    }


def topk_shape(shape: Shape, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Shape, Shape]:
    axis = axis_of(axis, len(shape))
    size = shape[axis]
    if isinstance(size, int) and k > size:
        raise ShapeError(f"topk: k {k} is larger than the {size} values along axis {axis}.")
    output = (*shape[:axis], k, *shape[axis + 1 :])
    return output, output


def torch_sort(call: Call) -> str:
    return f"torch.sort({call.arguments('input', axis=('dim', -1), descending=False)}).values"


def torch_argsort(call: Call) -> str:
    return f"torch.argsort({call.arguments('input', axis=('dim', -1), descending=False)}, stable=True)"


def torch_topk(call: Call) -> str:
    return f"torch.topk({call.arguments('input', 'k', axis=('dim', -1), largest=True)})"


SORT = {"axis": -1, "descending": False}
TOPK = {"k": REQUIRED, "axis": -1, "largest": True}

row("cumsum", "input", cumulative("cumsum"), {"axis": REQUIRED}, shape=along, dtype=counted)
row("cumprod", "input", cumulative("cumprod"), {"axis": REQUIRED}, shape=along, dtype=counted)
row("cummax", "input", running("cummax", "maximum", "cummax", "cummax"), {"axis": REQUIRED}, shape=along)
row("cummin", "input", running("cummin", "minimum", "cummin", "cummin"), {"axis": REQUIRED}, shape=along)
row("logcumsumexp", "input", running("logcumsumexp", "logaddexp", "cumlogsumexp", "logcumsumexp"), {"axis": REQUIRED},
    shape=along, dtype=floating)  # fmt: skip
row("sort", "input", {"torch": torch_sort}, SORT, shape=along)
row("argsort", "input", {"torch": torch_argsort}, SORT, shape=along, dtype=INT64)
row("topk", "input", {"torch": torch_topk}, TOPK, outputs=("values", "indices"), shape=topk_shape,
    dtype=lambda input, **attributes: (input, DType.int64))  # fmt: skip
