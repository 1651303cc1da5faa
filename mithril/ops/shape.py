"""Operators that move values around without changing them: reshape, transpose, join, cut, repeat, pad."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import (
    along,
    axes_of,
    axis_of,
    called,
    differ,
    merge,
    promote_list,
    recut,
    reduced,
    resolve,
    row,
    same,
)
from mithril.ops.table import REQUIRED, Call, Op, define
from mithril.types import Dim, Dimension, Shape, product


def order(axes: Any, rank: int) -> tuple[int, ...]:
    """The permutation `axes`, counted from the front; None reverses the axes."""
    if axes is None:
        return tuple(reversed(range(rank)))
    order = axes_of(axes, rank)
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"transpose: axes {axes} must name each of the {rank} axes once.")
    return order


def transpose_torch(call: Call) -> str:
    shape, axes = call.shapes.get("input"), call.attributes["axes"]
    if shape is None and axes is None:
        return f"{call['input']}.permute(*reversed(range({call['input']}.ndim)))"
    turned = order(axes, len(call.shapes["input"] if axes is None else axes))
    moved = [a for a, b in enumerate(turned) if a != b]
    if len(moved) == 2:
        return f"{call['input']}.transpose({moved[0]}, {moved[1]})"
    if not turned:
        return f"{call['input']}.permute(())"
    return f"{call['input']}.permute({', '.join(map(str, turned))})"


def transpose_gradient(call: Call) -> str:
    axes, shape = call.attributes["axes"], call.shapes.get("input")
    if axes is None:
        return f"np.transpose({call['grad']})"
    turned = order(axes, len(axes) if shape is None else len(shape))
    back = tuple(turned.index(a) for a in range(len(turned)))
    return f"np.transpose({call['grad']}, {back})"


def swapaxes_shape(shape: Shape, *, axis1: int, axis2: int) -> Shape:
    sizes = list(shape)
    a, b = axis_of(axis1, len(shape)), axis_of(axis2, len(shape))
    sizes[a], sizes[b] = sizes[b], sizes[a]
    return tuple(sizes)


def flatten_shape(shape: Shape, *, start_dim: int = 0, end_dim: int = -1) -> Shape:
    if not shape:
        return (1,)
    start, end = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
    if start > end:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}.")
    return (*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :])


def flatten_any(call: Call) -> str:
    shape, output = call.shapes.get("input"), call.shapes.get("output")
    if output is None or shape is None:
        start, end = call.attributes["start_dim"], call.attributes["end_dim"]
        x = call["input"]
        tail = "" if end == -1 else f", *{x}.shape[{end + 1}:]"
        return f"{x}.reshape(*{x}.shape[:{start}], -1{tail})"
    start = axis_of(call.attributes["start_dim"], len(shape)) if shape else 0
    merged = output[start]
    known = all(isinstance(size, int) for size in (*output[:start], *output[start + 1 :]))
    sizes = [size if known or a != start or isinstance(merged, Dim) else -1 for a, size in enumerate(output)]
    if known:
        sizes[start] = -1
    return f"{call['input']}.reshape({', '.join(call.source(s) for s in sizes)})"


def expand_dims_shape(shape: Shape, *, axis: int | Sequence[int]) -> Shape:
    new = (axis,) if isinstance(axis, int) else tuple(axis)
    places = axes_of(new, len(shape) + len(new))
    sizes = iter(shape)
    return tuple(1 if a in places else next(sizes) for a in range(len(shape) + len(new)))


def squeezed_axes(shape: Shape, axis: int | Sequence[int]) -> tuple[int, ...]:
    """Axes to drop: a named axis stays if its size is known not to be 1, as in torch."""
    if axis is None and not all(isinstance(size, int) for size in shape):
        raise ShapeError(f"squeeze: name the axis, the sizes of {shape} are not all known.")
    return tuple(a for a in axes_of(axis, len(shape)) if shape[a] == 1 or isinstance(shape[a], Dim))


def squeeze_any(call: Call) -> str:
    shape, axis = call.shapes.get("input"), call.attributes["axis"]
    if shape is not None and axis is not None:
        axis = squeezed_axes(shape, axis)
    if axis == ():
        return call["input"]
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    where = "" if axis is None else f", {'dim' if call.xp == 'torch' else 'axis'}={axis}"
    return f"{call.xp}.squeeze({call['input']}{where})"


def broadcast_to_shape(own: Shape, *, shape: Any) -> Shape:
    wanted = tuple(shape)
    if len(own) > len(wanted):
        raise ShapeError(f"broadcast_to: {own} has more dimensions than {wanted}.")
    lead = len(wanted) - len(own)
    sizes = tuple(own[a - lead] if size == -1 and a >= lead else size for a, size in enumerate(wanted))
    if any(size != 1 and differ(size, target) for size, target in zip(own, sizes[lead:])):
        raise ShapeError(f"broadcast_to: {own} does not broadcast to {wanted}.")
    return sizes


def broadcast_to_any(call: Call) -> str:
    wanted = call.shapes.get("output") or call.attributes["shape"]
    sizes = ", ".join(call.source(s) for s in wanted)
    if call.xp == "torch":
        return f"{call['input']}.expand({sizes})"
    return f"{call.xp}.broadcast_to({call['input']}, ({sizes}{',' if len(wanted) == 1 else ''}))"


def tile_shape(shape: Shape, *, repeats: tuple[Dimension, ...]) -> Shape:
    if not isinstance(repeats, tuple | list):
        raise ShapeError(f"tile: repeats is {repeats!r}; give a number for each of the {len(shape)} axes.")
    if len(repeats) < len(shape):
        raise ShapeError(f"tile: repeats {repeats} needs a number for each of the {len(shape)} axes.")
    sizes = (1,) * (len(repeats) - len(shape)) + tuple(shape)
    return tuple(size * repeat for size, repeat in zip(sizes, repeats))


def pad_shape(shape: Shape, *, padding: Any, mode: str = "constant", value: Any = 0) -> Shape:
    lead = len(shape) - len(padding)
    if lead < 0:
        raise ShapeError(f"pad: padding {padding} names more axes than the input's {len(shape)}.")
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ShapeError(f"pad: mode '{mode}' must be constant, reflect, replicate or circular.")
    for size, sides in zip(shape[lead:], padding):
        room = {"reflect": -1, "circular": 0}.get(mode)
        if room is not None and isinstance(size, int) and any(isinstance(n, int) and n > size + room for n in sides):
            raise ShapeError(f"pad: mode '{mode}' can add at most {size + room} to an axis of {size}, not {sides}.")
    wide = tuple(before + size + after for size, (before, after) in zip(shape[lead:], padding))
    return (*shape[:lead], *wide)


def pad_torch(call: Call) -> str:
    padding, shape = call.attributes["padding"], call.shapes.get("input")
    if call.attributes["mode"] != "constant" and shape is not None:
        while len(padding) > 1 and tuple(padding[0]) == (0, 0):
            padding = padding[1:]
        if not 0 < len(shape) - len(padding) < 3 or len(padding) > 3:  # torch's own takes images alone
            return f"pad({call['input']}, {call.source(padding)}, {call['mode']})"
    flat = tuple(n for pair in reversed(padding) for n in pair)
    arguments = call.arguments(mode="constant", value=0)
    return f"F.pad({call['input']}, {call.source(flat)}{', ' + arguments if arguments else ''})"


def pad_any(call: Call) -> str:
    """np.pad and jnp.pad, whose pairs name every axis."""
    padding, shape = call.attributes["padding"], call.shapes.get("input")
    if shape is None:
        pairs = f"((0, 0),) * ({call['input']}.ndim - {len(padding)}) + {call['padding']}"
    else:
        pairs = call.source((*((0, 0),) * (len(shape) - len(padding)), *padding))
    words = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    mode = words[call.attributes["mode"]]
    options = "" if mode == "constant" else f', mode="{mode}"'
    if call.attributes["value"] != 0:
        options += f", constant_values={call['value']}"
    return f"{call.xp}.pad({call['input']}, {pairs}{options})"


def pad_gradient(call: Call) -> str:
    forward = replace(call, inputs={"input": "x"}, attributes={**call.attributes, "value": 0})
    return f"moved_back({call['grad']}, {call['input']}, lambda x: {pad_any(forward)})"


def unsqueeze_torch(call: Call) -> str:
    if isinstance(call.attributes["axis"], int):
        return f"{call['input']}.unsqueeze({call['axis']})"
    return f"{call['input']}.reshape({', '.join(map(call.source, call.shapes['output']))})"


def reshape_text(call: Call) -> str:
    """`x.reshape(2, -1)`; no sizes are an empty tuple."""
    return f"{call['input']}.reshape({call['*shape'] or '()'})"


def flip_mlx(call: Call) -> str:
    """`x[:, ::-1]` for axis 1."""
    axis = call.attributes["axis"]
    axes = (axis,) if isinstance(axis, int) else axis
    axes = axes if min(axes) >= 0 else axes_of(axes, len(call.shapes["input"]))
    return f"{call['input']}[{', '.join('::-1' if a in axes else ':' for a in range(max(axes) + 1))}]"


MAX_PIECES = 10_000
"""Most tensors in a list."""

BACK = {"input": "{grad}.reshape({input}.shape)"}
TRANSPOSE = {"torch": transpose_torch, "any": called("{xp}.transpose", "input", "axes")}
SWAPAXES = {"torch": "{input}.transpose({axis1}, {axis2})", "any": "{xp}.swapaxes({input}, {axis1}, {axis2})"}
EXPAND_DIMS = {"any": "{xp}.expand_dims({input}, {axis})", "torch": unsqueeze_torch}
TILE = {"torch": "{input}.repeat({*repeats})", "any": "{xp}.tile({input}, {repeats})"}
REPEAT = {
    "torch": "torch.repeat_interleave({input}, {repeats}, dim={axis})",
    "any": "{xp}.repeat({input}, {repeats}, axis={axis})",
}
FLIP = {"torch": "{input}.flip({axis})", "any": "{xp}.flip({input}, {axis})", "mlx": flip_mlx}
PAD = {"torch": pad_torch, "jax": pad_any, "numpy": pad_any}
AXES = {"axis1": REQUIRED, "axis2": REQUIRED}
RANGE = {"start_dim": 0, "end_dim": -1}

row("reshape", "input", reshape_text, {"shape": REQUIRED}, gradient=BACK,
    shape=lambda own, *, shape: resolve(shape, product(own)))  # fmt: skip
row("flatten", "input", {"any": flatten_any, "torch": called("torch.flatten", "input", **RANGE)}, RANGE,
    shape=flatten_shape, gradient=BACK)  # fmt: skip
row("transpose", "input", TRANSPOSE, {"axes": None}, gradient={"input": transpose_gradient},
    shape=lambda shape, *, axes: tuple(shape[a] for a in order(axes, len(shape))))  # fmt: skip
row("swapaxes", "input", SWAPAXES, AXES, shape=swapaxes_shape, gradient={"input": "{grad}.swapaxes({axis1}, {axis2})"})
row("expand_dims", "input", EXPAND_DIMS, {"axis": REQUIRED}, shape=expand_dims_shape, gradient=BACK)
row("squeeze", "input", squeeze_any, {"axis": None}, gradient=BACK,
    shape=lambda shape, *, axis: reduced(shape, axis=squeezed_axes(shape, axis)))  # fmt: skip
row("broadcast_to", "input", broadcast_to_any, {"shape": REQUIRED}, shape=broadcast_to_shape,
    gradient={"input": "unbroadcast({grad}, {input}.shape)"})  # fmt: skip
row("tile", "input", TILE, {"repeats": REQUIRED}, shape=tile_shape,
    gradient={"input": "moved_back({grad}, {input}, lambda x: np.tile(x, {repeats}))"})  # fmt: skip
row("repeat", "input", REPEAT, {"repeats": REQUIRED, "axis": REQUIRED},
    shape=lambda shape, *, repeats, axis: recut(shape, axis, shape[axis_of(axis, len(shape))] * repeats),
    gradient={"input": "moved_back({grad}, {input}, lambda x: np.repeat(x, {repeats}, axis={axis}))"})  # fmt: skip
row("roll", "input", "{xp}.roll({input}, {shift}, {axis})", {"shift": REQUIRED, "axis": REQUIRED}, shape=along,
    gradient={"input": "np.roll({grad}, np.negative({shift}), {axis})"})  # fmt: skip
row("flip", "input", FLIP, {"axis": REQUIRED}, shape=along, gradient={"input": "np.flip({grad}, {axis})"})
row("pad", "input", PAD, {"padding": REQUIRED, "mode": "constant", "value": 0}, shape=pad_shape,
    choices={"mode": ("constant", "reflect", "replicate", "circular")},
    gradient={"input": pad_gradient})  # fmt: skip
for _name in ("tril", "triu"):
    _torch, _any = (called(f"{{xp}}.{_name}", "input", diagonal=(word, 0)) for word in ("diagonal", "k"))
    row(_name, "input", {"torch": _torch, "any": _any}, {"diagonal": 0}, shape=same,
        gradient={"input": f"np.{_name}({{grad}}, {{diagonal}})"})  # fmt: skip
define(Op(name="shape", inputs=("input",)))  # a value of the inference, which no backend sees


# Joining and cutting


def concat_shape(shapes: tuple[Shape, ...], *, axis: int = 0) -> Shape:
    if len({len(shape) for shape in shapes}) > 1:
        raise ShapeError(f"concat: inputs {', '.join(map(str, shapes))} must have the same number of dimensions.")
    axis = axis_of(axis, len(shapes[0]))
    sizes = list(shapes[0])
    for shape in shapes[1:]:
        for a, size in enumerate(shape):
            if a == axis:
                sizes[a] = sizes[a] + size
            elif differ(sizes[a], size):
                raise ShapeError(f"concat: {shapes[0]} and {shape} differ along axis {a}; only axis {axis} may differ.")
            else:
                sizes[a] = merge(sizes[a], size)
    return tuple(sizes)


def stack_shape(shapes: tuple[Shape, ...], *, axis: int = 0) -> Shape:
    for shape in shapes[1:]:
        if len(shape) != len(shapes[0]) or any(map(differ, shape, shapes[0])):
            raise ShapeError(f"stack: {shapes[0]} and {shape} must be equal.")
    axis = axis_of(axis, len(shapes[0]) + 1)
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


def split_sizes(size: Dimension, split_size: Any) -> tuple[Dimension, ...]:
    """Sizes of the pieces: an integer cuts pieces of that size and leaves the rest for the last."""
    if not isinstance(split_size, int):
        if not isinstance(split_size, Dim):
            if differ(sum(split_size), size):
                raise ShapeError(f"split: sizes {tuple(split_size)} add up to {sum(split_size)}, the axis has {size}.")
            return tuple(split_size)
        raise ShapeError(f"split: split_size {split_size} must be known.")
    if not isinstance(size, int):
        raise ShapeError(f"split: the axis's size {size} must be known to cut it into pieces of {split_size}.")
    if split_size < 1:
        raise ShapeError(f"split: split_size {split_size} must be positive.")
    pieces, rest = divmod(size, split_size)
    check_count("split", pieces)
    return (split_size,) * pieces + ((rest,) if rest else ())


def check_count(name: str, pieces: int) -> None:
    if pieces > MAX_PIECES:
        raise ShapeError(f"{name}: {pieces} pieces are too many; a list may have {MAX_PIECES} tensors.")


def split_shape(shape: Shape, *, split_size: Any, axis: int = 0) -> tuple[Shape, ...]:
    return tuple(recut(shape, axis, s) for s in split_sizes(shape[axis_of(axis, len(shape))], split_size))


def split_any(call: Call) -> str:
    """The array libraries cut into a number of equal pieces, or at places."""
    axis = call.attributes["axis"]
    sizes = [shape[axis] for shape in call.shapes["output"]]
    equal = all(size == sizes[0] for size in sizes)
    text = str(len(sizes)) if equal else call.source([sum(sizes[:i]) for i in range(1, len(sizes))])
    return f"{call.xp}.split({call['input']}, {text}, axis={axis})"


def unbind_shape(shape: Shape, *, axis: int = 0) -> tuple[Shape, ...]:
    axis = axis_of(axis, len(shape))
    size = shape[axis]
    if not isinstance(size, int):
        raise ShapeError(f"unbind: the size {size} of axis {axis} must be known.")
    check_count("unbind", size)
    return (recut(shape, axis),) * size


def meshgrid_shape(shapes: tuple[Shape, ...], *, indexing: str = "ij") -> tuple[Shape, ...]:
    sizes = [shape[0] if shape else 1 for shape in shapes]
    return (tuple(sizes if indexing == "ij" else [*reversed(sizes[:2]), *sizes[2:]]),) * len(shapes)


def joined(torch: str, other: str) -> dict[str, Any]:
    return {
        "torch": called(f"torch.{torch}", "input", axis=("dim", 0)),
        "any": called(f"{{xp}}.{other}", "input", axis=0),
    }


LIST = ("*output",)
SPLIT = {"torch": called("torch.split", "input", "split_size", axis=("dim", 0)), "any": split_any}
UNBIND = {"torch": "torch.unbind({input}, {axis})", "any": "tuple({xp}.moveaxis({input}, {axis}, 0))"}

ENDS = "np.cumsum([part.shape[{axis}] for part in {input}])[:-1]"

row("concat", "*input", joined("cat", "concatenate"), {"axis": 0}, shape=concat_shape, dtype=promote_list,
    gradient={"input": f"np.split({{grad}}, {ENDS}, axis={{axis}})"})  # fmt: skip
row("stack", "*input", joined("stack", "stack"), {"axis": 0}, shape=stack_shape, dtype=promote_list,
    gradient={"input": "list(np.moveaxis({grad}, {axis}, 0))"})  # fmt: skip
row("split", "input", SPLIT, {"split_size": REQUIRED, "axis": 0}, outputs=LIST, shape=split_shape,
    gradient={"input": "np.concatenate({grad}, axis={axis})"})  # fmt: skip
row("unbind", "input", UNBIND, {"axis": 0}, outputs=LIST, shape=unbind_shape,
    gradient={"input": "np.stack({grad}, axis={axis})"})  # fmt: skip
row("meshgrid", "*input", "{xp}.meshgrid({*input}, indexing={indexing})", {"indexing": "ij"}, outputs=LIST,
    shape=meshgrid_shape, dtype=lambda dtypes, **attributes: tuple(dtypes),
    gradient={"input": "meshgrid_gradient({grad}, {indexing})"})  # fmt: skip
