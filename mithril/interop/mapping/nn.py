"""Layers: convolution, pooling, normalization, attention, dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from mithril.errors import ConversionError
from mithril.interop.mapping.registry import (
    MAPPINGS,
    Mapping,
    Setting,
    Sizes,
    dtype_of,
    maps,
    one_or_tuple,
    rank_of,
    shape_of,
    size_of,
    sizes_of,
)
from mithril.interop.mapping.shape import windows
from mithril.logical.connection import Expression, IOKey, Operand, record
from mithril.types import DType

Layer = Callable[[Operand], Operand]


def _given(**inputs: Operand | None) -> dict[str, Operand]:
    """Optional inputs that are there."""
    return {name: value for name, value in inputs.items() if value is not None}


# Convolution


def _convolution(rank: int) -> Mapping:
    def convolution(
        node: Node,
        input: Expression,
        weight: Operand,
        bias: Operand | None = None,
        stride: Setting = 1,
        padding: Setting = 0,
        dilation: Setting = 1,
        groups: int = 1,
    ) -> Operand:
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        options = {k: v if isinstance(v, str) else one_or_tuple(v) for k, v in options.items()}
        wires = {"weight": weight, **_given(bias=bias), **options, "groups": groups}
        return _of_batches(rank, node, input, lambda x: record(f"conv{rank}d", input=x, **wires))

    return convolution


def _transposed(rank: int) -> Mapping:
    def convolution(
        node: Node,
        input: Expression,
        weight: Operand,
        bias: Operand | None = None,
        stride: Setting = 1,
        padding: Setting = 0,
        output_padding: Setting = 0,
        groups: int = 1,
        dilation: Setting = 1,
    ) -> Operand:
        options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        options = {k: one_or_tuple(v) for k, v in options.items()}
        wires = {"weight": weight, **_given(bias=bias), **options, "groups": groups}
        return _of_batches(rank, node, input, lambda x: record(f"conv_transpose{rank}d", input=x, **wires))

    return convolution


MAPPINGS.update({f"conv{rank}d": _convolution(rank) for rank in (1, 2, 3)})
MAPPINGS.update({f"conv_transpose{rank}d": _transposed(rank) for rank in (1, 2, 3)})


@maps("convolution")
def convolution(
    node: Node,
    input: Expression,
    weight: Operand,
    bias: Operand | None,
    stride: Setting,
    padding: Setting,
    dilation: Setting,
    transposed: bool,
    output_padding: Setting,
    groups: int,
) -> Operand:
    rank = rank_of(node) - 2
    if transposed:
        return _transposed(rank)(node, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolution(rank)(node, input, weight, bias, stride, padding, dilation, groups)


# Pooling


def _max_pool(rank: int) -> Mapping:
    def pool(
        node: Node,
        input: Expression,
        kernel_size: Setting,
        stride: Setting = (),
        padding: Setting = 0,
        dilation: Setting = 1,
        ceil_mode: bool = False,
    ) -> Operand:
        options = {"stride": stride or None, "padding": padding, "dilation": dilation}
        options = {k: one_or_tuple(v) for k, v in options.items()}
        name, kernel = f"max_pool{rank}d", one_or_tuple(kernel_size)
        return _batched(
            node, input, lambda x: record(name, input=x, kernel_size=kernel, **options, ceil_mode=ceil_mode)
        )

    return pool


def _avg_pool(rank: int) -> Mapping:
    def pool(
        node: Node,
        input: Expression,
        kernel_size: Setting,
        stride: Setting = (),
        padding: Setting = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Operand:
        if divisor_override is not None:
            raise ConversionError(f"divisor_override={divisor_override} of the average pooling has no counterpart.")
        options = {"stride": one_or_tuple(stride or None), "padding": one_or_tuple(padding), "ceil_mode": ceil_mode}
        options |= {"kernel_size": one_or_tuple(kernel_size), "count_include_pad": count_include_pad}
        return _batched(node, input, lambda x: record(f"avg_pool{rank}d", input=x, **options))

    return pool


def _adaptive(name: str) -> Mapping:
    def pool(node: Node, input: Expression, output_size: Setting) -> Operand:
        return _batched(node, input, lambda x: record(name, input=x, output_size=one_or_tuple(output_size)))

    return pool


def _batched(node: Node, input: Expression, pool: Layer) -> Operand:
    """Pooling of an image without a batch axis gets one for the time."""
    name = str(node.target)
    return _of_batches(int(name[name.index("d.") - 1]) if "d." in name else 2, node, input, pool)


def _of_batches(rank: int, node: Node, input: Expression, layer: Layer) -> Operand:
    """A layer over `rank` axes; an input without a batch axis gets one for the time."""
    lacks = rank_of(node.args[0]) == rank + 1
    return record("squeeze", input=layer(input.expand_dims(0)), axis=0) if lacks else layer(input)


for _rank in (1, 2, 3):
    MAPPINGS[f"max_pool{_rank}d"] = _max_pool(_rank)
    MAPPINGS[f"avg_pool{_rank}d"] = _avg_pool(_rank)
    MAPPINGS[f"adaptive_avg_pool{_rank}d"] = _adaptive(f"adaptive_avg_pool{_rank}d")


@maps("max_pool2d_with_indices")
def max_pool_with_indices(
    node: Node,
    input: Expression,
    kernel_size: Setting,
    stride: Setting = (),
    padding: Setting = 0,
    dilation: Setting = 1,
    ceil_mode: bool = False,
) -> tuple[Operand, ...]:
    if all(user.args[1] == 0 for user in node.users):
        return (_max_pool(2)(node, input, kernel_size, stride, padding, dilation, ceil_mode),)
    if ceil_mode or rank_of(node.args[0]) != 4:
        raise ConversionError(
            "The places of the maxima of a pooling have a counterpart for batches of images without ceil_mode only."
        )
    kernel, step, margin, gaps = (_pair(v) for v in (kernel_size, stride or kernel_size, padding, dilation))
    least = float("-inf") if node.args[0].meta["val"].is_floating_point() else -(2**31)  # type: ignore[union-attr]
    pieces = windows(node, input, kernel, step, margin, gaps, fill=least)
    best = record("argmax", input=pieces, axis=2)
    height, width = shape_of(node.args[0])[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ConversionError("The places of the maxima of a pooling need images of a fixed size.")
    rows, columns = (np.arange(n) * s - m for n, s, m in zip(node.meta["val"][0].shape[2:], step, margin))
    inside = np.add.outer(np.arange(kernel[0]) * gaps[0] * width, np.arange(kernel[1]) * gaps[1]).reshape(-1)
    corners = IOKey(value=np.add.outer(rows * width, columns), type=DType.int64)
    place = record("take", input=IOKey(value=inside, type=DType.int64), index=best, axis=0) + corners
    return record("max", input=pieces, axis=2), place


@maps("max_unpool2d")
def max_unpool(node: Node, input: Expression, indices: Expression, output_size: Sequence[int]) -> Operand:
    b, c = (size_of(input, node.args[0], axis) for axis in range(2))
    canvas = record(
        "full", shape=(b, c, output_size[0] * output_size[1]), value=0, dtype=dtype_of(node.meta["val"].dtype)
    )
    values, places = input.reshape(b, c, -1), indices.reshape(b, c, -1)
    filled = record("scatter", input=canvas, index=places, updates=values, axis=2)
    return filled.reshape(b, c, output_size[0], output_size[1])


def _pair(value: Setting) -> tuple[int, int]:
    """Sizes along both axes."""
    if isinstance(value, int):
        return value, value
    assert isinstance(value, list | tuple)
    return value[0], value[-1]


def _adaptive_max(name: str) -> Mapping:
    def mapped(node: Node, *args: Any) -> Any:
        if any(user.args[1] == 1 for user in node.users):
            raise ConversionError(
                "The places of the maxima of an adaptive pooling have no counterpart.",
                ["Pool with max_pool2d(return_indices=True), or leave the places out."],
            )
        return (_adaptive(name)(node, *args),)

    return mapped


MAPPINGS |= {f"adaptive_max_pool{rank}d": _adaptive_max(f"adaptive_max_pool{rank}d") for rank in (1, 2, 3)}


# Normalization


@maps("layer_norm", "native_layer_norm")
def layer_norm(
    node: Node,
    input: Expression,
    shape: Sizes,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Operand | tuple[Operand, ...]:
    value = record("layer_norm", input=input, **_given(weight=weight, bias=bias), dims=len(shape), eps=eps)
    if "native" not in str(node.target):
        return value
    over = {"axis": tuple(range(-len(shape), 0)), "keepdims": True}
    spread = record("rsqrt", input=input.var(**over) + eps)
    return value, input.mean(**over), spread


@maps("rms_norm")
def rms_norm(
    node: Node, input: Expression, shape: Sizes, weight: Operand | None = None, eps: float | None = None
) -> Operand:
    import torch

    if eps is None:  # that of the type torch computes in, which is float32 for half precision
        eps = torch.finfo(torch.promote_types(node.meta["val"].dtype, torch.float32)).eps
    if len(shape) == 1:
        return record("rms_norm", input=input, **_given(weight=weight), eps=eps)
    sizes = sizes_of(input, node)
    flat = record("reshape", input=input, shape=(*sizes[: -len(shape)], math.prod(shape)))
    weight = None if weight is None else record("reshape", input=weight, shape=(-1,))
    return record("reshape", input=record("rms_norm", input=flat, **_given(weight=weight), eps=eps), shape=sizes)


@maps("group_norm")
def group_norm(
    node: Node,
    input: Expression,
    groups: int,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Operand:
    return record("group_norm", input=input, **_given(weight=weight, bias=bias), num_groups=groups, eps=eps)


@maps("instance_norm")
def instance_norm(
    node: Node,
    input: Expression,
    weight: Operand | None,
    bias: Operand | None,
    mean: Operand | None,
    var: Operand | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Operand:
    if not use_input_stats:
        return _batch_norm(input, weight, bias, mean, var, eps)
    if mean is not None:
        raise _changes_statistics("instance-norm")
    return group_norm(node, input, shape_of(node)[1], weight, bias, eps)


@maps("batch_norm")
def batch_norm(
    node: Node,
    input: Expression,
    weight: Expression | None,
    bias: Expression | None,
    mean: Operand | None,
    var: Operand | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Operand:
    if training and mean is None:
        return _own_batch_norm(node, input, weight, bias, eps)
    if training:
        raise _changes_statistics("batch-norm")
    return _batch_norm(input, weight, bias, mean, var, eps)


def _changes_statistics(kind: str) -> ConversionError:
    return ConversionError(
        f"The module changes its {kind} statistics while it runs.",
        ["Call module.eval() before from_torch, so that statistics are only read."],
    )


def _own_batch_norm(
    node: Node, input: Expression, weight: Expression | None, bias: Expression | None, eps: float
) -> Operand:
    """Without running statistics, those of the batch count; of one image they are those of each of its channels."""
    batch, channels = shape_of(node.args[0])[:2]
    if batch == 1:
        return group_norm(node, input, channels, weight, bias, eps)
    axes = (0, *range(2, rank_of(node)))
    mean, var = input.mean(axis=axes, keepdims=True), input.var(axis=axes, keepdims=True)
    value = (input - mean) * record("rsqrt", input=var + eps)
    shape = (-1, *(1,) * (rank_of(node) - 2))
    value = value if weight is None else value * weight.reshape(*shape)
    return value if bias is None else value + bias.reshape(*shape)


@maps("_native_batch_norm_legit_no_training")
def batch_norm_inference(
    node: Node,
    input: Operand,
    weight: Operand,
    bias: Operand | None,
    mean: Operand,
    var: Operand,
    momentum: float,
    eps: float,
) -> tuple[Operand, ...]:
    return (_batch_norm(input, weight, bias, mean, var, eps),)


def _batch_norm(
    input: Operand, weight: Operand | None, bias: Operand | None, mean: Operand | None, var: Operand | None, eps: float
) -> Operand:
    return record("batch_norm", input=input, mean=mean, var=var, **_given(weight=weight, bias=bias), eps=eps)


# Attention and dropout


@maps("scaled_dot_product_attention")
def attention(
    node: Node,
    query: Expression,
    key: Expression,
    value: Expression,
    mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Operand:
    if enable_gqa:
        groups = shape_of(node.args[0])[-3] // shape_of(node.args[1])[-3]
        key, value = (record("repeat", input=v, repeats=groups, axis=-3) for v in (key, value))
    if dropout_p:
        return _attention_with_dropout(node, query, key, value, mask, dropout_p, is_causal, scale)
    options = {"is_causal": is_causal, "scale": scale}
    return record("scaled_dot_product_attention", query=query, key=key, value=value, **_given(mask=mask), **options)


def _attention_with_dropout(
    node: Node,
    query: Expression,
    key: Expression,
    value: Expression,
    mask: Operand | None,
    rate: float,
    is_causal: bool,
    scale: float | None,
) -> Operand:
    """Step by step, with dropout of the weights in training."""
    source: Any = node.args[0]
    scale = source.meta["val"].shape[-1] ** -0.5 if scale is None else scale
    scores = query @ record("swapaxes", input=key, axis1=-2, axis2=-1) * scale
    if is_causal:
        lengths = [size_of(v, n, -2) for v, n in ((query, node.args[0]), (key, node.args[1]))]
        seen = record("tril", input=record("full", shape=tuple(lengths), value=1, dtype=DType.int32)) > 0
        scores = record("where", condition=seen, input=scores, other=float("-inf"))
    if mask is not None:
        added: Any = node.args[3] if len(node.args) > 3 else node.kwargs["attn_mask"]
        adds = added.meta["val"].is_floating_point()
        scores = scores + mask if adds else record("where", condition=mask, input=scores, other=float("-inf"))
    return record("dropout", input=record("softmax", input=scores, axis=-1), rate=rate) @ value


@maps("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(node: Node, input: Operand, rate: float, train: bool) -> Operand:
    if not train or rate == 0:
        return input
    if "feature" in str(node.target) or "alpha" in str(node.target):
        raise ConversionError(f"{node.target} in training mode has no counterpart; call module.eval().")
    return record("dropout", input=input, rate=rate)
