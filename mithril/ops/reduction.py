"""Reductions over one axis, several, or all; sorting and cumulative operators."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import along, always, axes_of, axis_of, called, counted, first, floating, recut, reduced, row
from mithril.ops.table import REQUIRED, Call, Code
from mithril.types import DType, Shape

INT64 = always(DType.int64)
BOOL = always(DType.bool)


def written(function: str, **attributes: Any) -> dict[str, Callable[[Call], str]]:
    """`torch.sum(x, dim=1, keepdim=True)`, and `jnp.sum(x, axis=1, keepdims=True)` elsewhere."""
    return {
        "torch": called(f"torch.{function}", "input", axis=("dim", None), keepdims=("keepdim", False), **attributes),
        "any": called(f"{{xp}}.{function}", "input", axis=None, keepdims=False, **attributes),
    }


def reduction(
    name: str, code: Mapping[str, Code], dtype: Callable[..., DType | type], gradient: str | None = None, **more: Any
) -> None:
    """A row with the attributes `axis` (None is all of them) and `keepdims`."""
    rule = None if gradient is None else {"input": gradient}
    shape = partial(reduced_over, name)
    takes = name in ("argmax", "argmin")
    row(name, "input", code, {"axis": None, "keepdims": False, **more}, shape=shape, dtype=dtype, gradient=rule,
        numbers=takes)  # fmt: skip


def reduced_over(
    name: str, shape: Shape, *, axis: int | Sequence[int] | None = None, keepdims: bool = False, **attributes: object
) -> Shape:
    """The shape after a reduction. No axes at all mean every axis to torch and none to NumPy: they are refused."""
    if axis is not None and not isinstance(axis, int) and not len(axis):
        raise ShapeError(f"{name}: axis () names no axis; leave axis out to reduce over all.")
    return reduced(shape, axis=axis, keepdims=keepdims)


def over_all(function: str) -> Code:
    """torch keeps the axes only where it is given some; None stands for all."""
    write = written(function)["torch"]

    def text(call: Call) -> str:
        if call.attributes["axis"] is None and call.attributes["keepdims"]:
            return f"torch.{function}({call['input']}, dim=None, keepdim=True)"
        return write(call)

    return text


def torch_extremum(function: str) -> dict[str, Callable[[Call], str]]:
    """torch.max and torch.min over axes are amax and amin."""
    return written(function) | {"torch": written("a" + function)["torch"]}


def prod_torch(call: Call) -> str:
    """torch.prod takes one axis or none; several are taken one after the other, the last first."""
    axis, shape = call.attributes["axis"], call.shapes.get("input")
    if axis is None and call.attributes["keepdims"]:
        return f"{call['input']}.prod().reshape((1,) * {call['input']}.ndim)"
    if not isinstance(axis, tuple):
        return written("prod")["torch"](call)
    if shape is None:
        raise ShapeError(f"prod: on torch, the rank must be known to reduce the axes {axis}.")
    keep = ", keepdim=True" if call.attributes["keepdims"] else ""
    return call["input"] + "".join(f".prod({a}{keep})" for a in sorted(axes_of(axis, len(shape)), reverse=True))


def widened(call: Call) -> str:
    """NumPy and torch sum integers in int64, MLX keeps their width."""
    dtype = call.dtypes.get("input")
    return ".astype(mx.int64)" if isinstance(dtype, DType) and not dtype.is_floating else ""


def numpy_sum(function: str) -> dict[str, Code]:
    other = written(function)["any"]
    return {"torch": over_all(function), "any": other, "mlx": lambda call: other(call) + widened(call)}


def variance(function: str) -> dict[str, Code]:
    """`correction` is what is subtracted from the count: 1 is torch's default, 0 the other frameworks'."""
    return {
        "torch": written(function, correction=("correction", 1))["torch"],
        "any": written(function, correction=("ddof", 0))["any"],
    }


def index_of(function: str) -> dict[str, Code]:
    """MLX gives uint32, which would make negative numbers wrap."""
    other = written(function)["any"]
    return {**written(function), "mlx": lambda call: f"{other(call)}.astype(mx.int64)"}


def logsumexp_torch(call: Call) -> str:
    """torch.logsumexp wants its axes named, also where they are all."""
    axis = f"tuple(range({call['input']}.ndim))" if call.attributes["axis"] is None else call["axis"]
    return f"torch.logsumexp({call['input']}, dim={axis}{', keepdim=True' if call.attributes['keepdims'] else ''})"


GRAD = "beside({grad}, {input}, {axis}, {keepdims})"
OUTPUT = "beside({output}, {input}, {axis}, {keepdims})"
CENTER = "({input} - {input}.mean({axis}, keepdims=True))"
COUNT = "({input}.size / {output}.size)"
LARGEST = f"{GRAD} * shares({{input}} == {OUTPUT}, {{axis}}, {{grad}}.dtype)"

reduction("sum", numpy_sum("sum"), counted, GRAD)
reduction("mean", written("mean") | {"torch": over_all("mean")}, floating, f"{GRAD} / {COUNT}")
reduction("prod", {**written("prod"), "torch": prod_torch, "mlx": numpy_sum("prod")["mlx"]}, counted,
          f"{GRAD} * product_of_others({{input}}, {{axis}})")  # fmt: skip
reduction("max", torch_extremum("max"), first, LARGEST)
reduction("min", torch_extremum("min"), first, LARGEST)
reduction("any", written("any"), BOOL)
reduction("all", written("all"), BOOL)
reduction("argmax", index_of("argmax"), INT64)
reduction("argmin", index_of("argmin"), INT64)
reduction("variance", variance("var"), floating, f"{GRAD} * {CENTER} * (2 / ({COUNT} - {{correction}}))", correction=0)
STD = {"torch": variance("std")["torch"], "numpy": variance("std")["any"]}
"""A kernel on JAX and MLX: equal values have no gradient, as in torch."""
reduction("std", STD, floating,
    f"{GRAD} / np.where({OUTPUT} == 0, 1, {OUTPUT}) * {CENTER} / ({COUNT} - {{correction}})", correction=0)  # fmt: skip
LOGSUMEXP = {xp: called(f"{name}.logsumexp", "input", axis=None, keepdims=False)
             for xp, name in (("jax", "jax.nn"), ("mlx", "mx"))}  # fmt: skip
reduction("logsumexp", {"torch": logsumexp_torch, **LOGSUMEXP}, floating, f"{GRAD} * np.exp({{input}} - {OUTPUT})")
NORM = {
    "torch": written("linalg.vector_norm", ord=2)["torch"],
    "any": called("vector_norm", "input", axis=None, keepdims=False, ord=2),
}
reduction("norm", NORM, floating,
    f"{GRAD} * norm_slope({{input}}, {OUTPUT}, {{axis}}, {{ord}})", ord=2)  # fmt: skip


# Cumulative and sorting


def cumulative(function: str) -> dict[str, Code]:
    return {
        "torch": f"torch.{function}({{input}}, dim={{axis}})",
        "any": f"{{xp}}.{function}({{input}}, axis={{axis}})",
        "mlx": lambda call: f"mx.{function}({call['input']}{widened(call)}, axis={call['axis']})",
    }


def running(torch: str, numpy: str, jax: str, mlx: str) -> dict[str, str]:
    """Templates of a cumulative operator, which each framework calls by another name."""
    return {
        "torch": f"torch.{torch}({{input}}, dim={{axis}}){'' if torch == 'logcumsumexp' else '.values'}",
        "numpy": f"np.{numpy}.accumulate({{input}}, axis={{axis}})",
        "jax": jax,
        "mlx": f"mx.{mlx}({{input}}, axis={{axis}})",
    }


EXTREMUM = "added(np.zeros_like({input}), last_equal({input}, {output}, {axis}), {grad})"


def topk_shape(shape: Shape, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Shape, Shape]:
    size = shape[axis_of(axis, len(shape))]
    if isinstance(size, int) and k > size:
        raise ShapeError(f"topk: k {k} is larger than the {size} values along axis {axis % len(shape)}.")
    return (recut(shape, axis, k),) * 2


def sort_any(call: Call) -> str:
    text = f"{call.xp}.sort({call['input']}, axis={call['axis']})"
    if not call.attributes["descending"]:
        return text
    return f"np.flip({text}, {call['axis']})" if call.xp == "np" else f"-mx.sort(-{call['input']}, axis={call['axis']})"


def sort_jax(call: Call) -> str:
    """Equal values stay in the order they came, which says where their gradients go."""
    x, axis = call["input"], call["axis"]
    if not call.attributes["descending"]:
        return f"jnp.sort({x}, axis={axis})"
    return f"jnp.take_along_axis({x}, jnp.argsort({x}, axis={axis}, descending=True, stable=True), axis={axis})"


ORDER = {"axis": -1, "descending": False}
SORT = {
    "torch": lambda call: f"torch.sort({call.arguments('input', axis=('dim', -1), descending=False)}).values",
    "jax": sort_jax,
    "any": sort_any,
}
ARGSORT = {
    "torch": called("torch.argsort", "input", axis=("dim", -1), descending=False, end=", stable=True"),
    "jax": "jnp.argsort({input}, axis={axis}, descending={descending}, stable=True)",
}
TOPK = {"k": REQUIRED, "axis": -1, "largest": True}

for _name, _code, _dtype, _gradient in (
    ("cumsum", cumulative("cumsum"), counted, "np.flip(np.cumsum(np.flip({grad}, {axis}), {axis}), {axis})"),
    ("cumprod", cumulative("cumprod"), counted, "cumprod_gradient({grad}, {input}, {output}, {axis})"),
    ("cummax", running("cummax", "maximum", "running({input}, lax.cummax, {axis})", "cummax"), first, EXTREMUM),
    ("cummin", running("cummin", "minimum", "running({input}, lax.cummin, {axis})", "cummin"), first, EXTREMUM),
    ("logcumsumexp", running("logcumsumexp", "logaddexp",
     "lax.cumlogsumexp({input}, axis={axis} % {input}.ndim)", "logcumsumexp"), floating,
     "logcumsumexp_gradient({grad}, {input}, {output}, {axis})"),
):  # fmt: skip
    row(_name, "input", _code, {"axis": REQUIRED}, shape=along, dtype=_dtype, gradient={"input": _gradient},
        numbers=_name in ("cummax", "cummin"))  # fmt: skip
row("sort", "input", SORT, ORDER, shape=along, gradient={
    "input": "added(np.zeros_like({input}), placed(argsort({input}, {axis}, {descending}), {axis}), {grad})"
    })  # fmt: skip
row("argsort", "input", ARGSORT, ORDER, shape=along, dtype=INT64)
TOPK_TORCH = called("torch.topk", "input", "k", axis=("dim", -1), largest=True)
row("topk", "input", {"torch": TOPK_TORCH}, TOPK, outputs=("values", "indices"), shape=topk_shape, numbers=True,
    dtype=lambda input, **attributes: (input, DType.int64),
    gradient={"input": "added(np.zeros_like({input}), placed({indices}, {axis}), {grad_values})"})  # fmt: skip
