"""Shape and dtype rules that several rows share.

A shape rule takes the inputs' shapes and the attributes and returns the output's shape, or raises `ShapeError` with
one sentence. Sizes are integers or symbolic; two symbolic sizes that cannot be told apart or equal are let pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mithril.errors import ShapeError
from mithril.ops.table import Call, Code, Op, define
from mithril.types import Dimension, DType, Shape, as_dtype, product, promote

T = TypeVar("T")


def axis_of(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ShapeError(f"axis is {axis!r}; it must be a whole number from {-rank} to {rank - 1}.")
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is out of range for an input of {rank} dimensions.")
    return axis % rank


def axes_of(axis: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front; None means all of them."""
    if axis is None:
        return tuple(range(rank))
    return tuple(axis_of(a, rank) for a in ((axis,) if isinstance(axis, int) else axis))


def spread(value: T | Sequence[T], rank: int, name: str = "value") -> tuple[T, ...]:
    """One value per spatial axis."""
    if isinstance(value, tuple | list):
        if len(value) != rank:
            raise ShapeError(f"{name} {tuple(value)} needs {rank} values, one per spatial axis.")
        return tuple(value)
    one: Any = value
    return (one,) * rank


def steps_of(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """One whole number of at least 1 per spatial axis: kernel, stride, dilation."""
    steps = spread(value, rank, name)
    if not all(isinstance(step, int) and step >= 1 for step in steps):
        raise ShapeError(f"{name} is {value!r}; it must be whole numbers of at least 1.")
    return steps


def differ(left: Dimension, right: Dimension) -> bool:
    """Whether two sizes are known to be different."""
    return isinstance(left, int) and isinstance(right, int) and left != right


def merge(left: Dimension, right: Dimension) -> Dimension:
    """The better known of two sizes that must be equal."""
    return left if isinstance(left, int) else right


def broadcast(*shapes: Shape) -> Shape:
    """The shape that operands of these shapes have together."""
    rank = max(map(len, shapes), default=0)
    sizes: list[Dimension] = [1] * rank
    for shape in shapes:
        for place, size in enumerate(shape, rank - len(shape)):
            if differ(sizes[place], size) and 1 not in (sizes[place], size):
                together = " and ".join(str(s) for s in shapes)
                raise ShapeError(f"{together} do not broadcast: sizes {sizes[place]} and {size} must be equal or 1.")
            if size != 1:
                sizes[place] = size if sizes[place] == 1 else merge(sizes[place], size)
    return tuple(sizes)


def same(shape: Shape, *others: object, **attributes: object) -> Shape:
    """The first input's shape."""
    return shape


def reduced(
    shape: Shape, *, axis: int | Sequence[int] | None = None, keepdims: bool = False, **attributes: object
) -> Shape:
    """The shape after a reduction over `axis`."""
    axes = axes_of(axis, len(shape))
    if keepdims:
        return tuple(1 if a in axes else size for a, size in enumerate(shape))
    return tuple(size for a, size in enumerate(shape) if a not in axes)


def along(shape: Shape, *others: object, axis: int | Sequence[int] = -1, **attributes: object) -> Shape:
    """The input's shape, after a check that `axis`, or each of several, is one of its axes."""
    several: Any = axis if isinstance(axis, tuple | list) else (axis,)
    for one in several:
        axis_of(one, len(shape))
    return shape


def recut(shape: Shape, axis: int, *sizes: Dimension) -> Shape:
    """`shape` with these sizes in place of the one at `axis`."""
    axis = axis_of(axis, len(shape))
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


def resolve(shape: Iterable[Dimension], total: Dimension) -> Shape:
    """`shape` with its -1 replaced by what is left of `total` elements."""
    shape = tuple(shape)
    if shape.count(-1) > 1:
        raise ShapeError(f"shape {shape} has more than one -1.")
    known = product(size for size in shape if size != -1)
    if -1 in shape:
        if isinstance(total, int) and isinstance(known, int) and (known == 0 or total % known):
            raise ShapeError(f"{total} elements cannot be reshaped to {shape}.")
        return tuple(total // known if size == -1 else size for size in shape)
    if differ(total, known):
        raise ShapeError(f"{total} elements cannot be reshaped to {shape}, which has {known}.")
    return shape


def floating(*dtypes: DType | type | None, **attributes: object) -> DType:
    """Promotion, where integers become float32."""
    dtype = promote(*dtypes)
    if isinstance(dtype, DType):
        return dtype if dtype.is_floating else DType.float32
    return DType.float32


def floats_like(dtype: DType | type, *others: DType | type | None, **attributes: object) -> DType | type:
    """The first input's dtype; where that is no float, the promotion of all, in which integers become float32."""
    return dtype if dtype is float or (isinstance(dtype, DType) and dtype.is_floating) else floating(dtype, *others)


def always(dtype: DType) -> Callable[..., DType]:
    """A rule that gives the same dtype for any input."""
    return lambda *dtypes, **attributes: dtype


def first(dtype: DType | type, *others: object, **attributes: object) -> DType | type:
    """The first input's dtype."""
    return dtype


def counted(dtype: DType | type, *others: object, **attributes: object) -> DType:
    """The dtype of a sum: integers and bool are summed in int64."""
    return dtype if isinstance(dtype, DType) and dtype.is_floating else DType.int64


def promote_list(dtypes: tuple[DType | type | None, ...], **attributes: object) -> DType | type:
    """Promotion of the members of one list."""
    return promote(*dtypes)


def given(*dtypes: DType | type | None, dtype: object, **attributes: object) -> DType:
    """The attribute `dtype`."""
    return as_dtype(dtype)


def called(function: str, *names: str, end: str = "", **defaults: Any) -> Callable[[Call], str]:
    """Code that calls a function (`{xp}.sum`) with what `Call.arguments` writes for these names and defaults."""
    return lambda call: f"{function.format(xp=call.xp)}({call.arguments(*names, **defaults)}{end})"


def row(
    name: str, inputs: str, code: Code | Mapping[str, Code], attributes: Mapping[str, Any] | None = None, **facts: Any
) -> None:
    """A row in one or two lines: `inputs` is one text ("input weight bias?"), `code` a template for any backend, or a
    mapping; `facts` are the other fields of `Op`. The dtype rule is the first input's unless another is given."""
    facts.setdefault("dtype", first)
    facts.setdefault("floats", facts["dtype"] in (floating, floats_like))
    code = code if isinstance(code, Mapping) else {"any": code}
    define(Op(name=name, inputs=tuple(inputs.split()), attributes=attributes or {}, code=code, **facts))
