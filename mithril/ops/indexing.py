"""Operators that pick and place values by index, and those that make arrays of constants."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mithril.errors import DtypeError, ShapeError
from mithril.ops.rules import axis_of, broadcast, differ, given, recut, row, same
from mithril.ops.table import REQUIRED, Call
from mithril.types import Dimension, DType, Shape, maximum, minimum


def sliced(size: Dimension, key: slice) -> Dimension:
    """How many values `key` takes from an axis of `size`."""
    if isinstance(size, int) and all(isinstance(k, int | None) for k in (key.start, key.stop, key.step)):
        return len(range(*key.indices(size)))
    step = 1 if key.step is None else key.step
    if step < 0:
        raise ShapeError(f"index: a negative step needs a known size, not {size}.")
    start, stop = (bound(k, size, d) for k, d in ((key.start, 0), (key.stop, size)))
    return (
        (maximum(stop - start, 0) if start != 0 else stop) // step if step == 1 else (stop - start + step - 1) // step
    )


def bound(place: Dimension | None, size: Dimension, default: Dimension) -> Dimension:
    """A slice's start or stop counted from the front and cut off at the size; an unknown size is taken to be larger."""
    if place is None:
        return default
    if isinstance(place, int) and place < 0:
        return size + place
    return minimum(place, size) if isinstance(size, int) and isinstance(place, int) else place


def full_key(key: Any, rank: int) -> list[Any]:
    """`key` with its Ellipsis and missing axes written out; None stays."""
    items = list(key) if isinstance(key, tuple) else [key]
    named = sum(item is not None and item is not Ellipsis for item in items)
    if named > rank:
        raise ShapeError(f"index: {named} indices for an input of {rank} dimensions.")
    rest = [slice(None)] * (rank - named)
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return [*items[:at], *rest, *items[at + 1 :]]


def index_shape(shape: Shape, indices: tuple[Shape, ...] | None = (), *, key: Any) -> Shape:
    """Sizes after `input[key]`; tensor indices broadcast together and stand where the first of them stood, or in
    front when they are apart, as in NumPy."""
    sizes: list[Dimension] = []
    axis = 0
    places: list[int] = []
    items = full_key(key, len(shape))
    for number, item in enumerate(items):
        if item is None:
            sizes.append(1)
            continue
        size = shape[axis]
        axis += 1
        if isinstance(item, slice):
            sizes.append(sliced(size, item))
        elif item == "tensor" or (isinstance(item, int) and indices):
            places.append(number)
        elif isinstance(item, int) and isinstance(size, int) and not -size <= item < size:
            raise ShapeError(f"index: {item} is out of range for axis {axis - 1} of size {size}.")
    if not indices:
        return tuple(sizes)
    together = places == list(range(places[0], places[-1] + 1))
    front = sum(not isinstance(item, int) for item in items[: places[0]]) if together else 0
    return (*sizes[:front], *broadcast(*indices), *sizes[front:])


def key_texts(call: Call, text: Callable[[object, Call], str]) -> str:
    """Items of a key, tensors by name."""
    key, tensors = call.attributes["key"], iter(call.inputs.get("indices") or ())
    items = key if isinstance(key, tuple) else (key,)
    return ", ".join(next(tensors) if item == "tensor" else text(item, call) for item in items)


def index_text(call: Call) -> str:
    """`x[:, None, 1:3, i]`."""
    return f"{call['input']}[{key_texts(call, item_text) or '()'}]"


def index_dtype(input: DType | type, indices: tuple[DType | type, ...] | None = (), *, key: object) -> DType | type:
    if DType.bool in (indices or ()):
        raise DtypeError(
            "index: a mask that is computed gives a shape that depends on the data; choose with `where`, or give the"
            " mask as a constant array."
        )
    return input


def index_torch(call: Call) -> str:
    """torch has no negative steps: such axes are flipped first. It selects by a number, which NumPy takes for one of
    the tensor indices: where these stand apart, it is written as one."""
    shape, ranks = call.shapes.get("input"), [len(s) for s in call.shapes.get("indices") or ()]
    if shape is None:
        return index_text(call)
    items = full_key(call.attributes["key"], len(shape))
    picks = [place for place, item in enumerate(items) if item == "tensor" or isinstance(item, int)]
    apart = any(ranks) and picks != list(range(picks[0], picks[-1] + 1))
    sizes, flipped = iter(shape), []
    for place, item in enumerate(items):
        size = None if item is None else next(sizes)
        if isinstance(item, slice) and isinstance(item.step, int) and item.step < 0:
            flipped.append(place - items[:place].count(None))
            items[place] = from_the_end(item, size)
        elif apart and isinstance(item, int):
            items[place] = [item]
    if not flipped and not apart:
        return index_text(call)
    x = f"{call['input']}.flip({', '.join(map(str, flipped))})" if flipped else call["input"]
    tensors = call.inputs.get("indices") or ()
    tensors = tuple(f"{t}[None]" if apart and not rank else t for t, rank in zip(tensors, ranks))
    inputs, attributes = {**call.inputs, "input": x, "indices": tensors}, {**call.attributes, "key": tuple(items)}
    return index_text(replace(call, inputs=inputs, attributes=attributes))


def index_mlx(call: Call) -> str:
    """MLX reads whatever memory an index leads to, so that each is held to its axis."""
    key, tensors, places, axis = call.attributes["key"], iter(call.inputs.get("indices") or ()), [], 0
    items = key if isinstance(key, tuple) else (key,)
    rank = sum(item is not None and item is not Ellipsis for item in items)
    for item in items:
        if item == "tensor":
            places.append(f"held({next(tensors)}, {call['input']}.shape[{axis}])")
        if item is Ellipsis:
            axis -= rank
        elif item is not None:
            axis += 1
    return index_text(replace(call, inputs={**call.inputs, "indices": tuple(places)}))


def from_the_end(item: slice, size: Any) -> slice:
    """What takes from a flipped axis the values that `item`, of a negative step, takes from the axis."""
    start, stop, step = item.indices(size)
    return slice(size - 1 - start or None, None if stop < 0 else size - 1 - stop, None if step == -1 else -step)


def item_text(item: object, call: Call) -> str:
    """Source of one item of a key: `1:`, `...`, `None`, `0`."""
    if isinstance(item, slice):
        start, stop, step = ("" if k is None else call.source(k) for k in (item.start, item.stop, item.step))
        return f"{start}:{stop}{':' + step if step else ''}"
    return "..." if item is Ellipsis else call.source(item)


def index_gradient(call: Call) -> str:
    """Places that were read twice add up."""
    place = key_texts(call, lambda item, call: call.source(item))
    return f"added(np.zeros_like({call['input']}), ({place},), {call['grad']})"


def gather_shape(input: Shape, index: Shape, *, axis: int = 0) -> Shape:
    axis_of(axis, len(input))
    if len(input) != len(index):
        raise ShapeError(f"take_along_axis: index {index} needs {len(input)} dimensions like the input {input}.")
    return index


def axis_from_front(call: Call) -> int:
    axis = call.attributes["axis"]
    return axis if axis >= 0 else axis_of(axis, len(call.shapes["input"]))


def take_gradient(call: Call) -> str:
    place = f"({'slice(None), ' * axis_from_front(call)}{call['index']},)"
    return f"added(np.zeros_like({call['input']}), {place}, {call['grad']})"


def slice_scatter_shape(input: Shape, source: Shape, *, key: Any) -> Shape:
    """The input's shape; `source` must broadcast to the part that `key` names."""
    part = index_shape(input, key=key)
    lead = len(part) - len(source)
    if lead < 0 or any(size != 1 and differ(size, have) for size, have in zip(source, part[lead:])):
        raise ShapeError(f"slice_scatter: source {source} does not fit the part {part} of {input}.")
    return input


INDEX = {"index": int}
GATHER = {
    "torch": "torch.gather({input}, {axis}, {index})",
    "any": "{input}[placed({index}, {axis})]",
    "mlx": "{input}[placed(held({index}, {input}.shape[{axis}]), {axis})]",
}
SCATTER_ADD = {
    "torch": "torch.scatter_add({input}, {axis}, {index}, {updates})",
    "any": "{input}.at[placed({index}, {axis})].add(leading({updates}, {index}))",
    "numpy": "added({input}, placed({index}, {axis}), leading({updates}, {index}))",
}
SCATTER = {
    "torch": "torch.scatter({input}, {axis}, {index}, {updates})",
    "any": "slice_scatter({input}, leading({updates}, {index}), placed({index}, {axis}))",
    "jax": "{input}.at[placed({index}, {axis})].set(leading({updates}, {index}))",
}
GRAD_OF_UPDATES = "at_front({grad}[placed({index}, {axis})], {updates})"
EMBEDDING = {
    "torch": "F.embedding({input}, {weight})",
    "any": "{weight}[{input}]",
    "mlx": "{weight}[held({input}, {weight}.shape[0])]",
}
ONE_HOT = {
    "torch": "F.one_hot({input}, {num_classes}).to({dtype})",
    "any": "({input}[..., None] == {xp}.arange({num_classes})).astype({dtype})",
}
AXIS = {"axis": 0}
TAKE = {
    "numpy": "np.take({input}, {index}, axis={axis})",
    "mlx": "mx.take({input}, held({index}, {input}.shape[{axis}]), axis={axis})",
    "any": lambda call: f"{call['input']}[{':, ' * axis_from_front(call)}{call['index']}]",
}

row("index", "input *indices?", {"any": index_text, "torch": index_torch, "mlx": index_mlx}, {"key": REQUIRED},
    shape=index_shape, dtype=index_dtype, soft_kinds={"indices": int}, gradient={"input": index_gradient})  # fmt: skip
row("take", "input index", TAKE, AXIS,
    kinds=INDEX, shape=lambda input, index, *, axis: recut(input, axis, *index),
    gradient={"input": take_gradient})  # fmt: skip
row("take_along_axis", "input index", GATHER, AXIS, shape=gather_shape, kinds=INDEX,
    gradient={"input": "added(np.zeros_like({input}), placed({index}, {axis}), {grad})"})  # fmt: skip
row("scatter_add", "input index updates", SCATTER_ADD, AXIS, shape=same, kinds=INDEX, numbers=True,
    gradient={"input": "{grad}", "updates": GRAD_OF_UPDATES})  # fmt: skip
row("scatter", "input index updates", SCATTER, AXIS, shape=same, kinds=INDEX,
    gradient={"input": "slice_scatter({grad}, 0, placed({index}, {axis}))", "updates": GRAD_OF_UPDATES})  # fmt: skip
row("slice_scatter", "input source",
    {"jax": lambda call: f"{call['input']}.at[{key_texts(call, item_text)}].set({call['source']})"}, {"key": REQUIRED},
    shape=slice_scatter_shape,
    gradient={"input": "slice_scatter({grad}, 0, {key})", "source": "unbroadcast({grad}[{key}], {source}.shape)"}
    )  # fmt: skip
row("embedding", "input weight", EMBEDDING, signature="..., v d -> ... d", dtype=lambda input, weight: weight,
    kinds={"input": int}, gradient={"weight": "added(np.zeros_like({weight}), {input}, {grad})"})  # fmt: skip
row("one_hot", "input", ONE_HOT, {"num_classes": REQUIRED, "dtype": DType.float32}, kinds={"input": int}, dtype=given,
    shape=lambda shape, *, num_classes, dtype: (*shape, num_classes))  # fmt: skip

# Constants


def steps(start: Any, stop: Any, step: Any) -> Dimension:
    """How many values `arange` makes."""
    if all(isinstance(v, int) for v in (start, stop, step)):
        return len(range(start, stop, step))
    if any(isinstance(v, float) for v in (start, stop, step)):
        return max(0, -int(-(stop - start) // step))
    return (stop - start + step - 1) // step


def arange_text(call: Call) -> str:
    start, step = call.attributes["start"], call.attributes["step"]
    texts = [call["start"], call["stop"]] if start != 0 or step != 1 else [call["stop"]]
    texts += [call["step"]] if step != 1 else []
    return f"{call.xp}.arange({', '.join(texts)}, dtype={call['dtype']})"


def full_text(call: Call) -> str:
    plain = {0: "zeros", 1: "ones"}.get(call.attributes["value"]) if call.attributes["dtype"] != DType.bool else None
    if plain:
        return f"{call.xp}.{plain}({call['shape']}, dtype={call['dtype']})"
    return f"{call.xp}.full({call['shape']}, {call['value']}, dtype={call['dtype']})"


def eye_text(call: Call) -> str:
    columns = "" if call.attributes["columns"] is None else f", {call['columns']}"
    return f"{call.xp}.eye({call['rows']}{columns}, dtype={call['dtype']})"


FULL = {"shape": REQUIRED, "value": REQUIRED, "dtype": DType.float32}
ARANGE = {"start": 0, "stop": REQUIRED, "step": 1, "dtype": DType.int64}
FULL_LIKE = {"any": "{xp}.full_like({input}, {value})", "mlx": "mx.full({input}.shape, {value}).astype({input}.dtype)"}

row("full", "", full_text, FULL, shape=lambda *, shape, **others: tuple(shape), dtype=given)
row("arange", "", arange_text, ARANGE, shape=lambda *, start, stop, step, dtype: (steps(start, stop, step),),
    dtype=given)  # fmt: skip
row("eye", "", eye_text, {"rows": REQUIRED, "columns": None, "dtype": DType.float32}, dtype=given,
    shape=lambda *, rows, columns, dtype: (rows, rows if columns is None else columns))  # fmt: skip
row("zeros_like", "input", "{xp}.zeros_like({input})", shape=same, gradient={})
row("ones_like", "input", "{xp}.ones_like({input})", shape=same, gradient={})
row("full_like", "input", FULL_LIKE, {"value": REQUIRED}, shape=same, gradient={})
