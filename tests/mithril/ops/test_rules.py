"""Shape rules with symbolic sizes, the sentences of their errors, and the rows that torch.export's operators need."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mithril.backends import NumpyBackend
from mithril.errors import ShapeError
from mithril.ops.table import HELPERS, OPS
from mithril.types import Dim

B, H, T = Dim("b"), Dim("h"), Dim("t")


def shape(name, *shapes, **attributes):
    row = OPS[name]
    return row.shape(*shapes, **row.complete(attributes))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (shape("conv2d", (B, 3, H, 224), (64, 3, 7, 7), None, stride=2, padding=3), (B, 64, (H - 1) // 2 + 1, 112)),
        (shape("conv2d", (B, 4, H, H), (8, 4, 3, 3), padding="same"), (B, 8, H, H)),
        (shape("conv_transpose2d", (B, 4, H, 7), (4, 3, 2, 2), stride=2), (B, 3, 2 * H, 14)),
        (shape("max_pool2d", (B, 8, 112, 112), kernel_size=3, stride=2, padding=1), (B, 8, 56, 56)),
        (shape("adaptive_avg_pool2d", (B, 8, H, H), output_size=1), (B, 8, 1, 1)),
        (shape("matmul", (B, 1, T, 64), (12, 64, T)), (B, 12, T, T)),
        (shape("reshape", (B, T, 768), shape=(B, T, 12, -1)), (B, T, 12, 64)),
        (shape("reshape", (B, T, 768), shape=(-1, 768)), (B * T, 768)),
        (shape("flatten", (B, 8, H, 4), start_dim=1), (B, 32 * H)),
        (shape("transpose", (B, T, 4), axes=(0, 2, 1)), (B, 4, T)),
        (shape("concat", ((1, T, 4), (1, 1, 4)), axis=1), (1, T + 1, 4)),
        (shape("split", (B, 12), split_size=4, axis=1), ((B, 4),) * 3),
        (shape("index", (B, T, 4), None, key=(slice(None), 0)), (B, 4)),
        (shape("index", (B, T, 4), None, key=(..., None, slice(1, 3))), (B, T, 1, 2)),
        (shape("index", (B, T, 4), ((5,),), key=(slice(None), "tensor")), (B, 5, 4)),
        (shape("interpolate", (B, 3, H, 8), scale_factor=2), (B, 3, 2 * H, 16)),
        (shape("pad", (B, 3, H), padding=((1, 2),)), (B, 3, H + 3)),
        (shape("sum", (B, T, 4), axis=(1,), keepdims=True), (B, 1, 4)),
        (shape("einsum", ((B, T, 64), (B, H, 64)), equation="bqd,bkd->bqk"), (B, T, H)),
        (shape("topk", (B, 9), k=3), ((B, 3), (B, 3))),
        (shape("arange", stop=T), (T,)),
        (shape("squeeze", (B, H, 1), axis=1), (B, 1)),
    ],
)
def test_symbolic_sizes(made, expected):
    assert made == expected


@pytest.mark.parametrize(
    ("name", "shapes", "attributes", "message"),
    [
        ("conv2d", ((1, 3, 4, 4), (8, 3, 7, 7)), {}, "conv2d: the kernel reaches over 7 places, the padded input has 4."),
        ("conv2d", ((1, 4, 9, 9), (7, 2, 3, 3)), {"groups": 2}, "conv2d: 7 output channels are not a multiple of groups 2."),
        ("conv2d", ((1, 4, 9, 9), (7, 4, 3, 3)), {"padding": "same", "stride": 2}, "conv2d: padding 'same' needs stride 1, not 2."),
        ("conv2d", ((1, 4, 9, 9), (7, 4, 3, 3)), {"stride": (1, 2, 3)}, "stride (1, 2, 3) needs 2 values, one per spatial axis."),
        ("max_pool2d", ((1, 4, 9, 9),), {"kernel_size": 3, "padding": 2}, "padding 2 must be at most half of the kernel size 3."),
        ("matmul", ((2, 3), (4, 5)), {}, "(2, 3) @ (4, 5): the last size 3 of the left operand must equal the second last size 4"),
        ("reshape", ((2, 3),), {"shape": (4, -1)}, "6 elements cannot be reshaped to (4, -1)."),
        ("concat", (((2, 3), (3, 4)),), {}, "concat: (2, 3) and (3, 4) differ along axis 1; only axis 0 may differ."),
        ("split", ((2, 7),), {"split_size": (3, 3), "axis": 1}, "split: sizes (3, 3) add up to 6, the axis has 7."),
        ("split", ((B, 7),), {"split_size": 3}, "split: the axis's size b must be known to cut it into pieces of 3."),
        ("sum", ((2, 3),), {"axis": 2}, "axis 2 is out of range for an input of 2 dimensions."),
        ("transpose", ((2, 3, 4),), {"axes": (0, 1, 1)}, "axes (0, 1, 1) must name each of the 3 axes once."),
        ("index", ((2, 3), None), {"key": (0, 5)}, "index: 5 is out of range for axis 1 of size 3."),
        ("index", ((2, 3), None), {"key": (0, 0, 0)}, "index: 3 indices for an input of 2 dimensions."),
        ("group_norm", ((2, 6, 4),), {"num_groups": 4}, "group_norm: 6 channels are not a multiple of num_groups 4."),
        ("interpolate", ((1, 2, 4, 4),), {"size": 3, "mode": "linear"}, "mode 'linear' does not fit an input of 2 spatial axes."),
        ("interpolate", ((1, 2, 4, 4),), {}, "interpolate: give either size or scale_factor."),
        ("einsum", (((2, 3), (4, 5)),), {"equation": "ij,jk->ik"}, "einsum: axis 'j' of 'ij,jk->ik' is 3 and 4."),
        ("broadcast_to", ((2, 3),), {"shape": (2, 4)}, "(2, 3) does not broadcast to (2, 4)."),
        ("squeeze", ((B, 1),), {}, "squeeze: name the axis, the sizes of (b, 1) are not all known."),
        ("topk", ((2, 3),), {"k": 4}, "topk: k 4 is larger than the 3 values along axis 1."),
        ("pixel_shuffle", ((1, 6, 2, 2),), {"factor": 2}, "6 channels are not a multiple of factor² = 4."),
    ],
)  # fmt: skip
def test_messages(name, shapes, attributes, message):
    with pytest.raises(ShapeError) as error:
        shape(name, *shapes, **attributes)
    assert message in str(error.value)


def test_erf_has_all_digits_of_float64():
    NumpyBackend()
    x = np.concatenate([np.linspace(-7, 7, 4001), [0.0, 1e-300, 0.46875, 4.0, 30.0]])
    exact = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(HELPERS["numpy", "erf"](x), exact, rtol=5e-16)


ATEN = {
    "index": "select.int slice.Tensor index.Tensor getitem",
    "buffer": "alias.default clone.default copy.default detach.default",
    "cast": "_to_copy.default type_as.default",
    "reshape": "view.default _unsafe_view.default",
    "swapaxes": "transpose.int t.default",
    "transpose": "permute.default",
    "broadcast_to": "expand.default",
    "expand_dims": "unsqueeze.default",
    "squeeze": "squeeze.dim",
    "concat": "cat.default concat.default",
    "split": "split.Tensor split_with_sizes.default",
    "tile": "repeat.default",
    "repeat": "repeat_interleave.self_int",
    "slice_scatter": "slice_scatter.default select_scatter.default",
    "take_along_axis": "gather.default",
    "full": "full.default zeros.default ones.default new_ones.default",
    "full_like": "fill.Tensor",
    "add": "add.Tensor",
    "subtract": "sub.Tensor rsub.Scalar",
    "multiply": "mul.Tensor",
    "divide": "div.Tensor div.Tensor_mode",
    "power": "pow.Scalar pow.Tensor_Scalar",
    "negative": "neg.default",
    "bitwise_and": "__and__.Tensor",
    "clip": "clamp.default clamp_min.default",
    "equal": "eq.Scalar",
    "not_equal": "ne.Scalar",
    "less": "lt.Scalar",
    "less_equal": "le.Tensor",
    "greater": "gt.Scalar",
    "greater_equal": "ge.Scalar",
    "matmul": "bmm.default matmul.default",
    "sum": "sum.dim_IntList",
    "max": "max.dim",
    "mean": "mean.dim",
    "all": "all.dim",
    "norm": "linalg_vector_norm.default",
    "batch_norm": "_native_batch_norm_legit_no_training.default",
    "conv2d": "conv2d.default conv2d.padding",
    "conv_transpose2d": "conv_transpose2d.input",
    "grid_sample": "grid_sampler.default",
    "hard_sigmoid": "hardsigmoid.default",
    "hard_swish": "hardswish.default",
    "softmax": "softmax.int",
    "interpolate": "upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest2d.vec",
    "meshgrid": "meshgrid.indexing",
    "unbind": "unbind.int",
    "where": "where.self",
}
"""Rows whose name is not that of PyTorch's operator."""


def test_every_exported_operator_has_a_row():
    """The file lists what torch.export, made functional and not decomposed, wrote for 31 vision models."""
    known = Path(__file__).with_name("exported_operators.txt").read_text().splitlines()
    names = {name.removeprefix("aten.").replace("<built-in function getitem>", "getitem") for name in known}
    renamed = {word for words in ATEN.values() for word in words.split()}
    plain = {name for name in names if name.removesuffix(".default") in OPS}
    assert set(ATEN) <= set(OPS)
    assert names - renamed - plain == {"_assert_tensor_metadata.default"}


@pytest.mark.parametrize("name", ["max_pool1d", "avg_pool1d"])
def test_sizes_of_pooling_equal_torchs(name):
    """With `ceil_mode` a window that would start in the padding after the end is left out."""
    pool = getattr(torch.nn.functional, name)
    grid = itertools.product(range(4, 10), range(1, 5), range(1, 6), range(3), (False, True))
    for size, kernel, stride, padding, ceil_mode in grid:
        if 2 * padding > kernel:
            continue
        settings = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        expected = pool(torch.zeros(1, 1, size), **settings).shape
        assert tuple(shape(name, (1, 1, size), **settings)) == tuple(expected), (size, settings)
