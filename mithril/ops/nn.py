"""Layers as single operators: convolution, pooling, normalization, attention, resampling, dropout.

They stay whole in the graph, so that each framework runs its own fused call.

Dims: n batch, i input channels, o output channels, c channels, q k positions of queries and keys, d width,
v values' width.
"""

from __future__ import annotations

from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import row, spread
from mithril.ops.table import REQUIRED, Call
from mithril.types import Dimension, Shape, promote

AXES = "dhw"


def torch_call(function: str, *names: str, **defaults: Any) -> Any:
    """`F.conv2d(x, weight, bias, stride=2)`: inputs by position, other attributes by name."""
    return lambda call: f"F.{function}({call.arguments(*names, **defaults)})"


# Convolution


def margin(padding: Any, kernel: Dimension, dilation: int, place: int, rank: int) -> Dimension:
    """Total padding of one axis."""
    if padding == "same":
        return dilation * (kernel - 1)
    if padding == "valid":
        return 0
    count = spread(padding, rank, "padding")[place]
    return 2 * count if isinstance(count, int) else sum(count)


def window_size(
    name: str, size: Dimension, kernel: Dimension, stride: int, padded: Dimension, dilation: int
) -> Dimension:
    """How many windows fit along an axis."""
    room = size + padded - dilation * (kernel - 1) - 1
    if isinstance(room, int) and room < 0:
        raise ShapeError(
            f"{name}: the kernel reaches over {dilation * (kernel - 1) + 1} places, "
            f"the padded input has {size + padded}."
        )
    return room // stride + 1


def conv_shape(name: str, rank: int) -> Any:
    def shape(
        input: Shape,
        weight: Shape,
        bias: Shape | None = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Shape:
        strides, dilations = spread(stride, rank, "stride"), spread(dilation, rank, "dilation")
        if padding == "same" and strides != (1,) * rank:
            raise ShapeError(f"{name}: padding 'same' needs stride 1, not {stride}.")
        if isinstance(weight[0], int) and weight[0] % groups:
            raise ShapeError(f"{name}: {weight[0]} output channels are not a multiple of groups {groups}.")
        sizes = (
            window_size(name, size, k, s, margin(padding, k, d, a, rank), d)
            for a, (size, k, s, d) in enumerate(zip(input[2:], weight[2:], strides, dilations))
        )
        return (input[0], weight[0], *sizes)

    return shape


def conv_transpose_shape(rank: int) -> Any:
    def shape(
        input: Shape,
        weight: Shape,
        bias: Shape | None = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Shape:
        settings = (
            spread(v, rank, n)
            for n, v in (("stride", stride), ("output_padding", output_padding), ("dilation", dilation))
        )
        sizes = (
            (size - 1) * s - margin(padding, k, d, a, rank) + d * (k - 1) + extra + 1
            for a, (size, k, s, extra, d) in enumerate(zip(input[2:], weight[2:], *settings))
        )
        return (input[0], weight[1] * groups, *sizes)

    return shape


def conv_jax(rank: int) -> Any:
    """`lax.conv_general_dilated`, whose layout is ours; it wants a number per axis, and has no bias."""

    def write(call: Call) -> str:
        stride, dilation, padding = (call.attributes[name] for name in ("stride", "dilation", "padding"))
        if not isinstance(padding, str):
            padding = [(p, p) if isinstance(p, int) else p for p in spread(padding, rank, "padding")]
        sides = repr(padding.upper() if isinstance(padding, str) else padding).replace("'", '"')
        arguments = [call["input"], call["weight"], repr(spread(stride, rank, "stride")), sides]
        if dilation not in (1, (1,) * rank):
            arguments.append(f"rhs_dilation={spread(dilation, rank, 'dilation')}")
        if call.attributes["groups"] != 1:
            arguments.append(f"feature_group_count={call['groups']}")
        text = f"lax.conv_general_dilated({', '.join(arguments)})"
        return text if call.inputs["bias"] is None else f"{text} + {call['bias']}[{', '.join([':'] + ['None'] * rank)}]"

    return write


CONVOLUTION = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}

for _rank in (1, 2, 3):
    _space = " ".join(AXES[-_rank:])
    _kernel = " ".join("k" + axis for axis in AXES[-_rank:])
    for _name, _weight, _attributes, _shape in (
        (f"conv{_rank}d", f"o i/groups {_kernel}", CONVOLUTION, conv_shape(f"conv{_rank}d", _rank)),
        (f"conv_transpose{_rank}d", f"i o/groups {_kernel}", TRANSPOSED, conv_transpose_shape(_rank)),
    ):
        _code = {"torch": torch_call(_name, "input", "weight", "bias", **_attributes)}
        if "transpose" not in _name:
            _code["jax"] = conv_jax(_rank)
        row(
            _name,
            "input weight bias?",
            _code,
            _attributes,
            signature=f"n i {_space}, {_weight}, o",
            shape=_shape,
            dtype=promote,
        )


# Pooling


def pool_shape(name: str, rank: int) -> Any:
    def shape(
        input: Shape,
        *,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        **attributes: Any,
    ) -> Shape:
        kernel = spread(kernel_size, rank, "kernel_size")
        settings = zip(
            input[-rank:],
            kernel,
            spread(kernel if stride is None else stride, rank, "stride"),
            spread(padding, rank, "padding"),
            spread(dilation, rank, "dilation"),
        )
        return (*input[:-rank], *(pooled(name, *s, ceil_mode=ceil_mode) for s in settings))

    return shape


def pooled(
    name: str, size: Dimension, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool
) -> Dimension:
    """Windows along one axis; with `ceil_mode` one more may hang over the end, if it starts inside."""
    if 2 * padding > kernel:
        raise ShapeError(f"{name}: padding {padding} must be at most half of the kernel size {kernel}.")
    extra = stride - 1 if ceil_mode else 0
    out = window_size(name, size, kernel, stride, 2 * padding + extra, dilation)
    if ceil_mode and isinstance(size, int) and isinstance(out, int) and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def adaptive_shape(rank: int) -> Any:
    def shape(input: Shape, *, output_size: Any) -> Shape:
        wanted = spread(output_size, rank, "output_size")
        sizes = (size if want is None else want for size, want in zip(input[-rank:], wanted))
        return (*input[:-rank], *sizes)

    return shape


MAX_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
AVG_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}


def pool(name: str, rank: int, attributes: dict[str, Any], shape: Any) -> None:
    word, *rest = attributes
    defaults = {k: attributes[k] for k in rest}
    code = {"torch": lambda call: pool_text(call, f"{name}{rank}d", word, defaults)}
    row(f"{name}{rank}d", "input", code, attributes, signature=f"n c {' '.join(AXES[-rank:])}", shape=shape)


def pool_text(call: Call, function: str, word: str, defaults: dict[str, Any]) -> str:
    """`F.max_pool2d(x, 3, stride=2, padding=1)`; a stride equal to the kernel is torch's default."""
    if call.attributes.get("stride") == call.attributes[word]:
        defaults = {k: v for k, v in defaults.items() if k != "stride"}
    return f"F.{function}({call.arguments('input', word, **defaults)})"


for _rank in (1, 2, 3):
    pool("max_pool", _rank, MAX_POOL, pool_shape(f"max_pool{_rank}d", _rank))
    pool("avg_pool", _rank, AVG_POOL, pool_shape(f"avg_pool{_rank}d", _rank))
    pool("adaptive_avg_pool", _rank, {"output_size": REQUIRED}, adaptive_shape(_rank))
    pool("adaptive_max_pool", _rank, {"output_size": REQUIRED}, adaptive_shape(_rank))


# Normalization


def trailing(call: Call, count: int) -> str:
    """The last sizes of the input, as `F.layer_norm` wants them."""
    shape = call.shapes.get("input")
    if shape is None or not all(isinstance(size, int) for size in shape[-count:]):
        return f"{call['input']}.shape[-{count}:]"
    return call.source(tuple(shape[-count:]))


def layer_norm_torch(call: Call) -> str:
    arguments = [call["input"], trailing(call, call.attributes["dims"])]
    affine = call.arguments("weight", "bias", eps=1e-5)
    return f"F.layer_norm({', '.join(arguments + ([affine] if affine else []))})"


def rms_norm_torch(call: Call) -> str:
    affine = call.arguments("weight")
    return (
        f"F.rms_norm({', '.join([call['input'], trailing(call, 1), *([affine] if affine else [])])}, eps={call['eps']})"
    )


def norm_signature(*, dims: int = 1, **attributes: Any) -> str:
    names = " ".join("zyxwvd"[-dims:])
    return f"... {names}, {names}, {names} -> ... {names}"


def group_norm_shape(input: Shape, *others: Any, num_groups: int, eps: float = 1e-5) -> Shape:
    if isinstance(input[1], int) and input[1] % num_groups:
        raise ShapeError(f"group_norm: {input[1]} channels are not a multiple of num_groups {num_groups}.")
    return input


def three(input: Any, mean: Any, var: Any, *others: Any, **attributes: Any) -> tuple[Any, ...]:
    """Dtypes of the output and of the running statistics."""
    return input, mean, var


AFFINE = "input weight? bias?"
STATISTICS = "input mean var weight? bias?"
NEXT = {"mean": "new_mean", "var": "new_var"}
GROUP_NORM = {"torch": torch_call("group_norm", "input", "num_groups", weight=None, bias=None, eps=1e-5)}
BATCH_NORM = {"torch": torch_call("batch_norm", "input", "mean", "var", "weight", "bias", eps=1e-5)}

row("layer_norm", AFFINE, {"torch": layer_norm_torch}, {"dims": 1, "eps": 1e-5}, signature=norm_signature)
row("rms_norm", "input weight?", {"torch": rms_norm_torch}, {"eps": 1e-6}, signature="... d, d -> ... d")
row(
    "group_norm",
    AFFINE,
    GROUP_NORM,
    {"num_groups": REQUIRED, "eps": 1e-5},
    signature="n c ..., c, c",
    shape=group_norm_shape,
)
row("batch_norm", STATISTICS, BATCH_NORM, {"eps": 1e-5}, signature="n c ..., c, c, c, c -> n c ...")
row("batch_norm_training", STATISTICS, {}, {"momentum": 0.1, "eps": 1e-5}, outputs=("output", "new_mean", "new_var"),
    signature="n c ..., c, c, c, c -> n c ..., c, c", dtype=three, state=NEXT)  # fmt: skip


# Attention


def attention_dtype(query: Any, key: Any, value: Any, mask: Any = None, **attributes: Any) -> Any:
    """The mask takes no part."""
    return promote(query, key, value)


def attention_torch(call: Call) -> str:
    arguments = call.arguments("query", "key", "value", mask=("attn_mask", None), is_causal=False, scale=None)
    return f"F.scaled_dot_product_attention({arguments})"


ATTENTION = {"is_causal": False, "scale": None}


def attention_short(jax: bool) -> Any:
    """The whole of attention without a mask in one expression; with one, the kernel has more to care for."""

    def write(call: Call) -> str | None:
        width, scale = (call.shapes["query"] or (None,))[-1], call.attributes["scale"]
        maps = [call.shapes[name] for name in ("query", "key", "value")]
        plain = call.inputs["mask"] is None and not call.attributes["is_causal"] and isinstance(width, int)
        if not plain or not (jax or all(shape and len(shape) == 4 for shape in maps)):
            return None
        query, key, value = (call[name] for name in ("query", "key", "value"))
        scale = repr(width**-0.5 if scale is None else scale)
        if jax:
            return f"jax.nn.softmax({scale} * {query} @ jnp.swapaxes({key}, -1, -2)) @ {value}"
        return f"mx.fast.scaled_dot_product_attention({query}, {key}, {value}, scale={scale})"

    return write


ATTENTION_CODE = {"torch": attention_torch, "jax": attention_short(True), "mlx": attention_short(False)}

row("scaled_dot_product_attention", "query key value mask?", ATTENTION_CODE, ATTENTION,
    signature="... q d, ... k d, ... k v, _ -> ... q v", dtype=attention_dtype)  # fmt: skip


# Resampling


def interpolate_shape(
    input: Shape, *, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool = False
) -> Shape:
    rank = len(input) - 2
    ranks = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if ranks.get(mode, rank) != rank or mode not in (*ranks, "nearest", "nearest-exact"):
        raise ShapeError(f"interpolate: mode '{mode}' does not fit an input of {rank} spatial axes.")
    if (size is None) == (scale_factor is None):
        raise ShapeError("interpolate: give either size or scale_factor.")
    if size is not None:
        return (*input[:2], *spread(size, rank, "size"))
    factors = spread(scale_factor, rank, "scale_factor")
    return (*input[:2], *(scaled(have, factor) for have, factor in zip(input[2:], factors)))


def scaled(size: Dimension, factor: float) -> Dimension:
    """A size times a factor, rounded down."""
    if isinstance(size, int) or factor == int(factor):
        return int(size * factor) if isinstance(size, int) else size * int(factor)
    over = round(1 / factor)
    if abs(over * factor - 1) < 1e-9:
        return size // over
    raise ShapeError(f"interpolate: scale_factor {factor} needs a known size, not {size}.")


INTERPOLATE = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": False}
GRID_SAMPLE = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": False}


def grid_sample_torch(call: Call) -> str:
    """`align_corners` is always written: torch warns where it is left out."""
    arguments = call.arguments("input", "grid", mode="bilinear", padding_mode="zeros", align_corners=None)
    return f"F.grid_sample({arguments})"


def pixel_shuffle_shape(shape: Shape, *, factor: int) -> Shape:
    *lead, c, h, w = shape
    if isinstance(c, int) and c % factor**2:
        raise ShapeError(f"pixel_shuffle: {c} channels are not a multiple of factor² = {factor**2}.")
    return (*lead, c // factor**2, h * factor, w * factor)


def cross_entropy_torch(call: Call) -> str:
    arguments = call.arguments("input", "target", label_smoothing=0.0, ignore_index=-100)
    return f'F.cross_entropy({arguments}, reduction="none")'


CROSS_ENTROPY = {"label_smoothing": 0.0, "ignore_index": -100}

row(
    "interpolate",
    "input",
    {"torch": torch_call("interpolate", "input", **INTERPOLATE)},
    INTERPOLATE,
    signature="n c ...",
    shape=interpolate_shape,
)
row("grid_sample", "input grid", {"torch": grid_sample_torch}, GRID_SAMPLE, signature="n c h w, n y x 2 -> n c y x")
row(
    "pixel_shuffle",
    "input",
    {"torch": "F.pixel_shuffle({input}, {factor})"},
    {"factor": REQUIRED},
    signature="n c h w",
    shape=pixel_shuffle_shape,
)
row("cross_entropy", "input target", {"torch": cross_entropy_torch}, CROSS_ENTROPY, signature="n c ..., n ... -> n ...",
    kinds={"target": int})  # fmt: skip
