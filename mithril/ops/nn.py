"""Layers as single operators: convolution, pooling, normalization, attention.

They stay whole in the graph, so that each framework runs its own fused call.

Dims: n batch, i input channels, o output channels, c channels, q k positions of queries and keys, d width,
v values' width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mithril.errors import ShapeError
from mithril.ops.rules import called, floating, floats_like, row, spread, steps_of
from mithril.ops.table import MASK, REQUIRED, Call, Code
from mithril.types import Dimension, Shape, maximum, minimum

AXES = "dhw"
Pairs = tuple[tuple[Any, Any], ...]
Padding = int | str | Sequence[int | Sequence[int]]
"""A number for all spatial axes, one for each, pairs of before and after, or a word."""


# Convolution


def conv_settings(
    shapes: Mapping[str, Any],
    rank: int,
    *,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    **others: object,
) -> tuple[tuple[int, ...], Pairs, tuple[int, ...]]:
    """Per spatial axis: stride, padding before and after, dilation. Padding may be given as "same" or "valid"."""
    strides, dilations = steps_of(stride, rank, "stride"), steps_of(dilation, rank, "dilation")
    if padding == "same":
        if strides != (1,) * rank:
            raise ShapeError(f"conv{rank}d: padding 'same' needs stride 1, not {stride}.")
        reach = [d * (k - 1) for k, d in zip(shapes["weight"][2:], dilations)]
        return strides, tuple((r // 2, r - r // 2) for r in reach), dilations
    counts: tuple[Any, ...] = spread(0 if padding == "valid" else padding, rank, "padding")
    return strides, tuple((count, count) if isinstance(count, int) else tuple(count) for count in counts), dilations


def window_size(
    name: str, size: Dimension, kernel: Dimension, stride: int, padded: Dimension, dilation: int
) -> Dimension:
    """How many windows fit along an axis."""
    room, reach = size + padded - dilation * (kernel - 1) - 1, dilation * (kernel - 1) + 1
    if isinstance(room, int) and room < 0:
        raise ShapeError(f"{name}: the kernel reaches over {reach} places, the padded input has {size + padded}.")
    return room // stride + 1


def conv_shape(input: Shape, weight: Shape, bias: Shape | None = None, *, groups: int, **attributes: Any) -> Shape:
    rank = len(input) - 2
    if isinstance(weight[0], int) and weight[0] % groups:
        raise ShapeError(f"conv{rank}d: {weight[0]} output channels are not a multiple of groups {groups}.")
    axes = zip(input[2:], weight[2:], *conv_settings({"weight": weight}, rank, **attributes))
    sizes = (window_size(f"conv{rank}d", size, k, s, sum(p), d) for size, k, s, p, d in axes)
    return (input[0], weight[0], *sizes)


def conv_transpose_shape(
    input: Shape,
    weight: Shape,
    bias: Shape | None = None,
    *,
    output_padding: int | Sequence[int],
    groups: int,
    **attributes: Any,
) -> Shape:
    extra = spread(output_padding, len(input) - 2, "output_padding")
    axes = zip(input[2:], weight[2:], extra, *conv_settings({"weight": weight}, len(input) - 2, **attributes))
    sizes = ((size - 1) * s - sum(p) + d * (k - 1) + e + 1 for size, k, e, s, p, d in axes)
    return (input[0], weight[1] * groups, *sizes)


def conv_any(call: Call) -> str:
    """Convolution by what each array library has, which wants a number per axis; its layout is ours but on MLX."""
    rank, transposed, groups = rank_of(call), "transpose" in call.op.name, call.attributes["groups"]
    stride, padding, dilation = conv_settings(call.shapes, rank, **call.attributes)
    operands, bias, stretch = [call["input"], call["weight"]], call.inputs["bias"], (1,) * rank
    if transposed and call.xp != "np":  # a convolution of the stretched input with the turned kernel
        operands[1] = f"turned({call['weight']}, {groups})"
        reach = [d * (k - 1) for d, k in zip(dilation, call.shapes["weight"][2:])]
        extra = spread(call.attributes["output_padding"], rank, "output_padding")
        padding = tuple((r - a, r - b + e) for r, (a, b), e in zip(reach, padding, extra))
        stride, stretch = stretch, stride
    if call.xp == "mx":
        cuts = [(max(-a, 0), max(-b, 0)) for a, b in padding]  # MLX widens only
        padding = tuple((max(a, 0), max(b, 0)) for a, b in padding)
        settings = {"stride": stride, "padding": tuple(zip(*padding)), "kernel_dilation": dilation}
        texts = [*options(call, **settings, input_dilation=stretch, groups=groups), *["flip=True"] * transposed]
        text = f"convolution({', '.join([*operands, *([bias] if bias else []), *texts])})"
        inside = ", ".join(f"{a or ''}:{-b if b else ''}" for a, b in cuts)
        return f"{text}[..., {inside}]" if any(map(any, cuts)) else text
    if call.xp == "jnp":
        operands[1] = f"jnp.flip({operands[1]}, {tuple(range(2, rank + 2))})" if transposed else operands[1]
        operands += [str(stride), '"VALID"' if padding in PLAIN else call.source(padding)]
        settings = {"lhs_dilation": stretch, "rhs_dilation": dilation, "feature_group_count": groups}
        text = f"lax.conv_general_dilated({', '.join([*operands, *options(call, **settings)])})"
    elif transposed:
        text = conv_adjoint(call, "input", call.shapes["output"])
    else:
        text = conv_numpy(call, "input")
    return f"{text} + {bias}[{', '.join([':'] + ['None'] * rank)}]" if bias else text


def conv_torch(call: Call) -> str:
    """F.conv2d; margins that differ on both sides of an axis are padded before, which torch's own cannot say."""
    defaults = TRANSPOSED if "transpose" in call.op.name else CONVOLUTION
    padding = call.attributes["padding"]
    if isinstance(padding, str | int) or all(isinstance(count, int) for count in padding):
        return f"F.{call.op.name}({call.arguments('input', 'weight', 'bias', **defaults)})"
    if "transpose" in call.op.name:
        raise ShapeError(f"{call.op.name}: padding {padding} must be one number per axis.")
    _, pairs, _ = conv_settings(call.shapes, rank_of(call), **call.attributes)
    flat = tuple(count for pair in reversed(pairs) for count in pair)
    inputs = {**call.inputs, "input": f"F.pad({call['input']}, {call.source(flat)})"}
    return conv_torch(replace(call, inputs=inputs, attributes={**call.attributes, "padding": 0}))


PLAIN = (1, *(plain for n in (1, 2, 3) for plain in ((1,) * n, ((0, 0),) * n, ((0,) * n,) * 2)))
"""Settings that are the frameworks' defaults: steps of 1, no padding."""


def options(call: Call, **settings: Any) -> list[str]:
    """Keyword arguments for settings that are not plain."""
    return [f"{name}={call.source(value)}" for name, value in settings.items() if value not in PLAIN]


def rank_of(call: Call) -> int:
    """The number of spatial axes, which ends the operator's name."""
    return int(call.op.name[-2])


def conv_numpy(call: Call, input: str) -> str:
    stride, padding, dilation = conv_settings(call.shapes, rank_of(call), **call.attributes)
    settings = options(call, stride=stride, padding=padding, dilation=dilation, groups=call.attributes["groups"])
    return f"convolution({', '.join([call[input], call['weight'], *settings])})"


def conv_adjoint(call: Call, input: str, output: Shape) -> str:
    settings = (output[2:], *conv_settings(call.shapes, rank_of(call), **call.attributes), call.attributes["groups"])
    return f"convolution_adjoint({call[input]}, {call['weight']}, {', '.join(map(call.source, settings))})"


def conv_gradient(call: Call) -> str:
    """Convolution and its adjoint are the gradients of each other."""
    if "transpose" not in call.op.name:
        return conv_adjoint(call, "grad", call.shapes["input"])
    sizes = call.source(call.shapes["input"][2:])
    return conv_numpy(call, "grad") + (f"[(..., *map(slice, {sizes}))]" if call.attributes["output_padding"] else "")


def kernel_gradient(call: Call) -> str:
    ends = [call["grad"], call["input"]][:: -1 if "transpose" in call.op.name else 1]
    settings = (*conv_settings(call.shapes, rank_of(call), **call.attributes), call.attributes["groups"])
    return f"kernel_gradient({', '.join(ends)}, {call['weight']}.shape, {', '.join(map(call.source, settings))})"


CONVOLUTION: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
TRANSPOSED: dict[str, Any] = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}

for _rank in (1, 2, 3):
    _space = " ".join(AXES[-_rank:])
    _kernel = " ".join("k" + axis for axis in AXES[-_rank:])
    _bias = f"{{grad}}.sum(axis={(0, *range(2, _rank + 2))})"
    for _name, _weight, _attributes, _shape in (
        (f"conv{_rank}d", f"o i/groups {_kernel}", CONVOLUTION, conv_shape),
        (f"conv_transpose{_rank}d", f"i o/groups {_kernel}", TRANSPOSED, conv_transpose_shape),
    ):
        row(_name, "input weight bias?",
            {"torch": conv_torch, "any": conv_any}, _attributes,
            signature=f"n i {_space}, {_weight}, o", shape=_shape, dtype=floating,
            choices={"padding": ("same", "valid")},
            gradient={"input": conv_gradient, "weight": kernel_gradient, "bias": _bias})  # fmt: skip


# Pooling


def pool_shape(name: str) -> Callable[..., Shape]:
    def shape(input: Shape, **attributes: Any) -> Shape:
        axes = zip(input[2:], *window_settings(len(input) - 2, **attributes))
        return (*input[:2], *(pooled(name, *axis, ceil_mode=attributes["ceil_mode"]) for axis in axes))

    return shape


def window_settings(
    rank: int,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int] = 1,
    **others: object,
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation per spatial axis."""
    stride = kernel_size if stride is None else stride
    paddings: tuple[Any, ...] = spread(padding, rank, "padding")
    if not all(isinstance(count, int) and count >= 0 for count in paddings):
        raise ShapeError(f"padding of pooling is {padding!r}; it must be whole numbers, 0 for none.")
    steps = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    kernel, step, gap = (steps_of(value, rank, name) for name, value in steps.items())
    return kernel, step, paddings, gap


def pooled(
    name: str, size: Dimension, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool
) -> Dimension:
    """Windows along one axis; with `ceil_mode` one more may hang over the end, if it starts inside."""
    if 2 * padding > kernel:
        raise ShapeError(f"{name}: padding {padding} must be at most half of the kernel size {kernel}.")
    extra = stride - 1 if ceil_mode else 0
    out = window_size(name, size, kernel, stride, 2 * padding + extra, dilation)
    return minimum(out, (size + padding + extra) // stride) if ceil_mode else out


def pool_settings(call: Call) -> tuple[tuple[Any, ...], ...]:
    """Kernel, stride, padding (pairs, with what hangs over the end) and dilation per spatial axis."""
    kernel, stride, padding, dilation = window_settings(rank_of(call), **call.attributes)
    if not call.attributes["ceil_mode"]:
        return kernel, stride, tuple((p, p) for p in padding), dilation
    axes = zip(call.shapes["input"][2:], call.shapes["output"][2:], kernel, stride, padding, dilation)
    after = [maximum(p, (count - 1) * s + d * (k - 1) + 1 - size - p) for size, count, k, s, p, d in axes]
    return kernel, stride, tuple(zip(padding, after)), dilation


def pool_any(reduce: str) -> Code:
    """Largest or mean value of windows, by what each array library has; NumPy has nothing but their stack."""

    def write(call: Call) -> str:
        kernel, stride, padding, dilation = pool_settings(call)
        x, rank = call["input"], len(kernel)
        texts = ", ".join(map(str, (kernel, stride, dilation)))
        simple = set(dilation) == {1} and (reduce == "max" or counts_all(call))
        if call.xp == "mx" and simple and not call.attributes["ceil_mode"]:
            layer = f"nn.{reduce.capitalize()}Pool{rank}d({kernel}, {stride}, {tuple(p for p, _ in padding)})"
            return f"mx.moveaxis({layer}(mx.moveaxis({x}, 1, -1)), -1, 1)"
        if call.xp == "jnp" and set(dilation) == {1}:  # lax cannot differentiate dilated windows
            start, function = ("-jnp.inf", "lax.max") if reduce == "max" else ("0.0", "lax.add")
            ends = call.source(((0, 0), (0, 0), *padding))
            text = f"lax.reduce_window({x}, {start}, {function}, {(1, 1, *kernel)}, {(1, 1, *stride)}, {ends})"
        elif reduce == "max":
            x = padded(call, x, padding, "-math.inf" if call.xp == "mx" else f"-{call.xp}.inf")
            stack = f"windows({x}, {texts})"
            return f"{stack}.max(axis=2)" if call.xp == "np" else f"first_largest({stack}, 2)"
        else:
            text = f"windows({padded(call, x, padding)}, {texts}).sum(axis=2)"
        return text if reduce == "max" else f"{text} / {members(call)}"

    return write


def padded(call: Call, x: str, padding: Pairs, value: str = "0") -> str:
    """`x` with a margin around its spatial axes, where there is one."""
    if not any(sum(padding, ())):
        return x
    return f"{call.xp}.pad({x}, {call.source(((0, 0), (0, 0), *padding))}, constant_values={value})"


def counts_all(call: Call) -> bool:
    """Whether every window of a mean has all its places counted."""
    none = not any(spread(call.attributes["padding"], rank_of(call)))
    return not call.attributes["ceil_mode"] and (none or call.attributes["count_include_pad"])


def members(call: Call) -> str:
    """How many places of each window are counted: padding where it is meant to be, but never what hangs over."""
    kernel, stride, padding, dilation = pool_settings(call)
    if counts_all(call):
        return str(math.prod(kernel))
    ones = f"{call.xp}.ones_like({call['input']})"
    if call.attributes["count_include_pad"]:
        own = spread(call.attributes["padding"], len(kernel))
        ones = padded(call, ones, tuple((p, p) for p in own), "1")
        padding = tuple((0, after - p) for (_, after), p in zip(padding, own))
    return f"windows({padded(call, ones, padding)}, {kernel}, {stride}, {dilation}).sum(axis=2)"


def max_pool_gradient(call: Call) -> str:
    return f"max_pool_gradient({call['grad']}, {call['input']}, {', '.join(map(call.source, pool_settings(call)))})"


def avg_pool_gradient(call: Call) -> str:
    kernel, *others = pool_settings(call)
    parts = f"np.repeat(np.expand_dims({call['grad']} / {members(call)}, 2), {math.prod(kernel)}, axis=2)"
    return f"fold({parts}, {', '.join(map(call.source, (kernel, call.shapes['input'][2:], *others)))})"


def adaptive_shape(input: Shape, *, output_size: int | Sequence[int]) -> Shape:
    wanted = spread(output_size, len(input) - 2, "output_size")
    return (*input[:2], *(size if want is None else want for size, want in zip(input[2:], wanted)))


def adaptive_any(reduce: str) -> Code:
    """Over whole axes where each has one bin, else bin by bin."""

    def write(call: Call) -> str:
        rank, first = rank_of(call), reduce == "max" and call.xp != "np"
        if spread(call.attributes["output_size"], rank) == (1,) * rank and not first:
            return f"{call.xp}.{reduce}({call['input']}, axis={tuple(range(2, rank + 2))}, keepdims=True)"
        head = "adaptive_max(" if first else f"adaptive_pool({call.xp}.{reduce}, "
        return f"{head}{call['input']}, {call.source(call.shapes['output'][2:])})"

    return write


MAX_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
AVG_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
ADAPTIVE = {"output_size": REQUIRED}


def pool(
    name: str, rank: int, attributes: dict[str, Any], shape: Callable[..., Shape], other: Code, gradient: Code
) -> None:
    word, *rest = attributes
    defaults = {k: attributes[k] for k in rest}
    code = {"torch": lambda call: pool_text(call, name, word, defaults), "any": other}
    signature = f"n c {' '.join(AXES[-rank:])}"
    row(name, "input", code, attributes, signature=signature, shape=shape, dtype=floating, gradient={"input": gradient})


def pool_text(call: Call, function: str, word: str, defaults: dict[str, Any]) -> str:
    """`F.max_pool2d(x, 3, stride=2, padding=1)`; a stride equal to the kernel is torch's default."""
    if call.attributes.get("stride") == call.attributes[word]:
        defaults = {k: v for k, v in defaults.items() if k != "stride"}
    return f"F.{function}({call.arguments('input', word, **defaults)})"


for _rank in (1, 2, 3):
    for _name, _attributes, _other, _gradient in (
        (f"max_pool{_rank}d", MAX_POOL, pool_any("max"), max_pool_gradient),
        (f"avg_pool{_rank}d", AVG_POOL, pool_any("avg"), avg_pool_gradient),
    ):
        pool(_name, _rank, _attributes, pool_shape(_name), _other, _gradient)
    for _word, _reduce in (("avg", "mean"), ("max", "max")):
        _gradient = f"adaptive_pool_gradient({{grad}}, {{input}}, np.{_reduce})"
        pool(f"adaptive_{_word}_pool{_rank}d", _rank, ADAPTIVE, adaptive_shape, adaptive_any(_reduce), _gradient)


# Normalization


def trailing(call: Call, count: int) -> str:
    """The last sizes of the input, as `F.layer_norm` wants them."""
    shape = call.shapes.get("input")
    if shape is None or not all(isinstance(size, int) for size in shape[-count:]):
        return f"{call['input']}.shape[-{count}:]"
    return call.source(tuple(shape[-count:]))


def layer_norm_torch(call: Call) -> str:
    affine = call.arguments("weight", "bias", eps=1e-5)
    return f"F.layer_norm({call['input']}, {trailing(call, call.attributes['dims'])}{', ' + affine if affine else ''})"


def layer_norm_mlx(call: Call) -> str | None:
    one = call.attributes["dims"] == 1
    return f"mx.fast.layer_norm({call['input']}, {call['weight']}, {call['bias']}, {call['eps']})" if one else None


def rms_norm_torch(call: Call) -> str:
    weight = call.inputs["weight"]
    return f"F.rms_norm({call['input']}, {trailing(call, 1)}{', ' + weight if weight else ''}, eps={call['eps']})"


def norm_signature(*, dims: int = 1, **attributes: object) -> str:
    names = " ".join("zyxwvd"[-dims:])
    return f"... {names}, {names}, {names} -> ... {names}"


def group_norm_shape(input: Shape, *others: object, num_groups: int, eps: float = 1e-5) -> Shape:
    if isinstance(input[1], int) and input[1] % num_groups:
        raise ShapeError(f"group_norm: {input[1]} channels are not a multiple of num_groups {num_groups}.")
    return input


AFFINE = "input weight? bias?"
STATISTICS = "input mean var weight? bias?"
CHANNEL_NORM_GRADIENT = "channel_norm_gradient({grad}, {{input}}, {{weight}}, {{bias}}, {shape}, {axes}, {{eps}})"
NEXT = {"mean": "new_mean", "var": "new_var"}
GROUP_NORM = {"torch": called("F.group_norm", "input", "num_groups", weight=None, bias=None, eps=1e-5)}
BATCH_NORM = {"torch": called("F.batch_norm", "input", "mean", "var", "weight", "bias", eps=1e-5)}

LAYER_NORM = {"torch": layer_norm_torch, "mlx": layer_norm_mlx}
RMS_NORM = {"torch": rms_norm_torch, "mlx": "mx.fast.rms_norm({input}, {weight}, {eps})"}

row("layer_norm", AFFINE, LAYER_NORM, {"dims": 1, "eps": 1e-5}, signature=norm_signature, dtype=floats_like, gradient={
    "input weight bias": "layer_norm_gradient({grad}, {input}, {weight}, {bias}, {dims}, {eps})"})  # fmt: skip
row("rms_norm", "input weight?", RMS_NORM, {"eps": 1e-6}, signature="... d, d -> ... d", dtype=floats_like, gradient={
    "input weight": "layer_norm_gradient({grad}, {input}, {weight}, eps={eps}, centered=False)[:2]"})  # fmt: skip
row("group_norm", AFFINE, GROUP_NORM, {"num_groups": REQUIRED, "eps": 1e-5}, signature="n c ..., c, c",
    shape=group_norm_shape, dtype=floats_like, gradient={"input weight bias": CHANNEL_NORM_GRADIENT.format(
        grad="{grad}", shape="(len({input}), {num_groups}, -1)", axes="(-1,)")})  # fmt: skip
row("batch_norm", STATISTICS, BATCH_NORM, {"eps": 1e-5}, signature="n c ..., c, c, c, c -> n c ...",
    dtype=floats_like, gradient={
    "input mean var weight bias": "batch_norm_gradient({grad}, {input}, {mean}, {var}, {weight}, {bias}, {eps})"
    })  # fmt: skip
row("batch_norm_training", STATISTICS, {}, {"momentum": 0.1, "eps": 1e-5}, outputs=("output", "new_mean", "new_var"),
    signature="n c ..., c, c, c, c -> n c ..., c, c", floats=True, state=NEXT,
    dtype=lambda *dtypes, **attributes: (floats_like(*dtypes), *dtypes[1:3]),
    gradient={"input weight bias": CHANNEL_NORM_GRADIENT.format(
        grad="{grad_output}", shape="{input}.shape", axes="(0, *range(2, {input}.ndim))")})  # fmt: skip


# Attention


ATTENTION = {"is_causal": False, "scale": None}


def attention_short(call: Call) -> str | None:
    """The whole of attention without a mask in one expression; with one, the kernel has more to care for."""
    width, scale = (call.shapes["query"] or (None,))[-1], call.attributes["scale"]
    maps = [call.shapes[name] for name in ("query", "key", "value")]
    plain = call.inputs["mask"] is None and not call.attributes["is_causal"] and isinstance(width, int)
    if not plain or not (call.xp != "mx" or all(shape and len(shape) == 4 for shape in maps)):
        return None
    query, key, value = (call[name] for name in ("query", "key", "value"))
    scale = repr(width**-0.5 if scale is None else scale)
    if call.xp == "mx":
        return f"mx.fast.scaled_dot_product_attention({query}, {key}, {value}, scale={scale})"
    softmax = "jax.nn.softmax" if call.xp == "jnp" else "softmax"
    return f"{softmax}({scale} * {query} @ {call.xp}.swapaxes({key}, -1, -2)) @ {value}"


ATTENTION_TORCH = called("F.scaled_dot_product_attention", "query", "key", "value", mask=("attn_mask", None),
                         is_causal=False, scale=None)  # fmt: skip
ATTENTION_CODE = {"torch": ATTENTION_TORCH, "jax": attention_short, "mlx": attention_short, "numpy": attention_short}

row("scaled_dot_product_attention", "query key value mask?", ATTENTION_CODE, ATTENTION,
    signature="... q d, ... k d, ... k v, _ -> ... q v", soft_kinds={"mask": MASK},
    dtype=lambda *dtypes, **attributes: floating(*dtypes[:3]), floats=True,
    gradient={"query key value mask":
              "attention_gradient({grad}, {query}, {key}, {value}, {mask}, {is_causal}, {scale})"})  # fmt: skip
