"""Example inputs and attributes of every row of the operator table."""

import math

import numpy as np

from mithril.types import DType

F32 = DType.float32
RNG = np.random.default_rng(0)


def f(*shape, low=-2.0, high=2.0):
    """Distinct floats, so that no maximum is tied and no kink is hit."""
    return RNG.permutation(np.linspace(low, high, math.prod(shape) + 2)[1:-1]).reshape(shape)


def g(*shape):
    return f(*shape, low=-1.7, high=2.3)


def p(*shape):
    return f(*shape, low=0.3, high=3.0)


def u(*shape):
    return f(*shape, low=-0.9, high=0.9)


def n(*shape):
    return RNG.standard_normal(shape)


def i(high, *shape, low=0):
    return RNG.integers(low, high, shape)


def b(*shape):
    return RNG.random(shape) < 0.6


def spd(*shape):
    """Symmetric positive definite matrices."""
    half = n(*shape, shape[-1])
    return half @ half.swapaxes(-1, -2) + 2 * np.eye(shape[-1])


KEY = np.array([17, 42], np.int32)
UNARY = {
    **dict.fromkeys(
        [
            "relu",
            "relu6",
            "leaky_relu",
            "sigmoid",
            "silu",
            "softplus",
            "log_sigmoid",
            "softsign",
            "elu",
            "celu",
            "selu",
            "mish",
        ],
        f,
    ),
    **dict.fromkeys(
        [
            "hard_sigmoid",
            "hard_swish",
            "hard_tanh",
            "gelu",
            "negative",
            "absolute",
            "sign",
            "square",
            "exp",
            "expm1",
            "sin",
        ],
        f,
    ),
    **dict.fromkeys(
        [
            "cos",
            "sinh",
            "cosh",
            "tanh",
            "arcsinh",
            "arctan",
            "erf",
            "floor",
            "ceil",
            "trunc",
            "round",
            "isnan",
            "isinf",
            "isfinite",
        ],
        f,
    ),
    **dict.fromkeys(["reciprocal", "sqrt", "rsqrt", "log", "log1p", "log2", "log10", "tan"], p),
    **dict.fromkeys(["arcsin", "arccos", "arctanh"], u),
    "arccosh": lambda *shape: 1 + p(*shape),
    **dict.fromkeys(["buffer", "detach", "zeros_like", "ones_like"], f),
}
BINARY = {
    **dict.fromkeys(["add", "subtract", "multiply", "maximum", "minimum"], (f, g)),
    **dict.fromkeys(["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"], (f, g)),
    **dict.fromkeys(["divide", "floor_divide", "remainder", "fmod"], (f, p)),
    "power": (p, f),
}
EXAMPLES = {
    **{name: [([make(2, 3)], {}), ([make(4, 1, 3, 2)], {})] for name, make in UNARY.items()},
    **{
        name: [([left(2, 3), right(2, 3)], {}), ([left(4, 1, 3), right(2, 1)], {}), ([left(3, 2), 2.0], {})]
        for name, (left, right) in BINARY.items()
    },
    **{name: [([f(2, 3), f(2, 3)], {}), ([f(4, 1, 3), f(2, 1)], {})] for name in ("logaddexp", "arctan2")},
    **{name: [([b(2, 3), b(3)], {})] for name in ("logical_and", "logical_or", "logical_xor")},
    **{name: [([b(2, 3), b(3)], {}), ([i(9, 2, 3), i(9, 3)], {})] for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "logical_not": [([b(2, 3)], {})],
    "bitwise_not": [([b(2, 3)], {}), ([i(5, 2, 3)], {})],
    "where": [([b(2, 3), f(2, 3), f(3)], {}), ([b(3), f(2, 3), 0.0], {})],
    "clip": [([f(3, 4)], {"min": -0.7, "max": 1.1}), ([f(3, 4)], {"min": 0.1}), ([f(5)], {"max": 0.5})],
    "cast": [([f(2, 3)], {"dtype": F32}), ([f(2, 3)], {"dtype": DType.int64}), ([i(5, 3)], {"dtype": DType.bool})],
    "prelu": [([f(2, 3, 4), p(3)], {}), ([f(2, 3), p(3)], {})],
    **{name: [([f(3, 4)], {}), ([f(2, 3, 4)], {"axis": 1})] for name in ("softmax", "log_softmax")},
    **{
        name: [([f(2, 3, 4)], {}), ([f(2, 3, 4)], {"axis": 1}), ([f(2, 3, 4)], {"axis": -1, "keepdims": True})]
        + [([f(2, 3, 4)], {"axis": axes}) for axes in ((0, -1), (1, 2)) if name[:3] != "arg"]
        for name in ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "variance", "std", "logsumexp", "norm")
    },
    **{name: [([b(2, 3, 4)], {"axis": 1}), ([b(3)], {})] for name in ("any", "all")},
    **{name: [([p(3, 4)], {"axis": 1}), ([p(3, 4)], {"axis": 0})] for name in ("cumsum", "cumprod")},
    **{
        name: [([f(3, 4)], {"axis": 1}), ([f(3, 2, 4)], {"axis": -3})] for name in ("cummax", "cummin", "logcumsumexp")
    },
    **{name: [([f(3, 4)], {}), ([f(3, 4)], {"axis": 0, "descending": True})] for name in ("sort", "argsort")},
    "topk": [([f(3, 5)], {"k": 2}), ([f(5, 3)], {"k": 2, "axis": 0, "largest": False})],
    "matmul": [
        ([f(2, 3), f(3, 4)], {}), ([f(2, 1, 3, 4), f(5, 4, 2)], {}), ([f(3), f(3)], {}),
        ([f(2, 4, 3), f(3)], {}), ([f(3), f(2, 3, 4)], {}),
    ],
    "linear": [([f(2, 3), f(4, 3), f(4)], {}), ([f(2, 5, 3), f(4, 3), None], {})],
    "einsum": [
        ([[f(2, 3), f(3, 4)]], {"equation": "ij,jk->ik"}), ([[f(2, 3, 4)]], {"equation": "b i j -> b j"}),
        ([[f(2, 3), f(2, 3), f(2)]], {"equation": "bi,bi,b->b"}), ([[f(2, 3, 4), f(4, 5)]], {"equation": "...ij,jk->...ik"}),
        ([[f(2, 1, 3), f(4, 3)]], {"equation": "...i,...i->..."}), ([[f(2, 3), f(3, 4)]], {"equation": "zb,bA"}),
        ([[f(2, 3, 3), f(3)]], {"equation": "...ii,i"}), ([[f(3, 3)]], {"equation": "ii"}),
    ],
    "outer": [([f(3), f(4)], {})],
    "inverse": [([spd(2, 3)], {})],
    "solve": [([spd(2, 3), f(2, 3, 4)], {}), ([spd(3), f(3, 1)], {})],
    "cholesky": [([spd(2, 3)], {}), ([spd(4)], {})],
    "index": [
        ([f(4, 5), None], {"key": (slice(1, None), 2)}), ([f(4, 5, 3), None], {"key": (..., None, slice(None, None, 2))}),
        ([f(4, 5), [i(4, 3)]], {"key": ("tensor",)}), ([f(4, 5), None], {"key": (slice(None, None, -2), slice(3, 0, -1))}),
        ([f(4, 5, 6), [i(6, 3)]], {"key": (1, slice(None, None, -1), "tensor")}),
        ([f(4, 5, 2), [i(4, 3, 1), i(5, 2)]], {"key": ("tensor", "tensor")}),
        ([f(4, 5, 2), [i(5, 3)]], {"key": (slice(None), "tensor", slice(1, None))}), ([f(6), None], {"key": -1}),
    ],
    "take": [([f(4, 3), i(4, 2, 2)], {}), ([f(4, 3), i(3, 5)], {"axis": 1})],
    "take_along_axis": [([f(4, 3), i(4, 2, 3)], {}), ([f(4, 3), i(3, 4, 5)], {"axis": 1})],
    "scatter_add": [([f(4, 3), i(4, 6, 3), f(6, 3)], {}), ([f(4, 3), i(3, 4, 2), f(4, 2)], {"axis": 1})],
    "scatter": [([f(4, 3), np.array([[0, 1, 2], [3, 2, 0]]), f(2, 3)], {})],
    "slice_scatter": [([f(4, 3), f(2, 3)], {"key": (slice(1, 3),)}), ([f(4, 3), f(4)], {"key": (slice(None), 1)})],
    "embedding": [([i(7, 2, 3), f(7, 4)], {})],
    "one_hot": [([i(4, 2, 3)], {"num_classes": 4})],
    "full": [([], {"shape": (2, 3), "value": 0.5}), ([], {"shape": (2,), "value": 0}), ([], {"shape": (), "value": True, "dtype": DType.bool})],
    "arange": [([], {"stop": 5}), ([], {"start": 1, "stop": 8, "step": 3}), ([], {"stop": 3, "dtype": F32})],
    "full_like": [([f(2, 3)], {"value": 1.5})],
    "reshape": [([f(2, 6)], {"shape": (3, -1)}), ([f(2, 6)], {"shape": (2, 3, 2)})],
    "flatten": [([f(2, 3, 4)], {"start_dim": 1}), ([f(2, 3, 4)], {}), ([f(2, 3, 4)], {"end_dim": 1})],
    "transpose": [([f(2, 3, 4)], {}), ([f(2, 3, 4)], {"axes": (1, 2, 0)}), ([f(2, 3, 4)], {"axes": (0, -1, 1)})],
    "swapaxes": [([f(2, 3, 4)], {"axis1": 0, "axis2": -1})],
    "expand_dims": [([f(2, 3)], {"axis": 1}), ([f(2, 3)], {"axis": (0, -1)})],
    "squeeze": [([f(2, 1, 3, 1)], {}), ([f(2, 1, 3, 1)], {"axis": 1}), ([f(2, 3)], {"axis": 0})],
    "broadcast_to": [([f(3, 1)], {"shape": (2, 3, 4)}), ([f(3, 1)], {"shape": (-1, 4)}), ([f()], {"shape": (3,)})],
    "tile": [([f(2, 3)], {"repeats": (2, 1)}), ([f(3)], {"repeats": (2, 3)})],
    "repeat": [([f(2, 3)], {"repeats": 3, "axis": 0}), ([f(2, 3)], {"repeats": 2, "axis": -1})],
    "roll": [([f(4, 5)], {"shift": (1, -2), "axis": (0, 1)}), ([f(4, 5)], {"shift": 2, "axis": 1})],
    "flip": [([f(4, 5)], {"axis": 1}), ([f(4, 5)], {"axis": (0, 1)})],
    "pad": [
        ([f(3, 4)], {"padding": ((1, 2),)}), ([f(3, 4)], {"padding": ((1, 0), (0, 2)), "value": 1.5}),
        ([f(1, 2, 4, 5)], {"padding": ((1, 2), (2, 1)), "mode": "reflect"}),
        ([f(1, 2, 4, 5)], {"padding": ((1, 0), (3, 1)), "mode": "replicate"}),
        ([f(2, 2, 5)], {"padding": ((1, 2),), "mode": "circular"}),
    ],
    "concat": [([[f(2, 3), f(1, 3)]], {}), ([[f(2, 3), f(2, 1), f(2, 2)]], {"axis": -1})],
    "stack": [([[f(2, 3), f(2, 3)]], {}), ([[f(2, 3), f(2, 3)]], {"axis": -1})],
    "split": [([f(6, 2)], {"split_size": 3}), ([f(2, 7)], {"split_size": (4, 3), "axis": 1}), ([f(2, 5)], {"split_size": 2, "axis": -1})],
    "unbind": [([f(3, 2)], {}), ([f(3, 2)], {"axis": 1})],
    "meshgrid": [([[f(3), f(4)]], {}), ([[f(3), f(4)]], {"indexing": "xy"})],
    **{name: [([f(4, 4)], {}), ([f(2, 3, 4)], {"diagonal": 1})] for name in ("tril", "triu")},
    "conv1d": [([n(2, 4, 9), n(6, 4, 3), n(6)], {}), ([n(2, 4, 9), n(6, 2, 3), None], {"stride": 2, "padding": 2, "groups": 2})],
    "conv2d": [
        ([n(2, 3, 6, 7), n(4, 3, 3, 3), n(4)], {"padding": 1}), ([n(1, 4, 7, 8), n(4, 1, 3, 2), None], {"groups": 4, "stride": 2}),
        ([n(2, 4, 8, 9), n(6, 2, 3, 2), n(6)], {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
        ([n(1, 2, 5, 6), n(3, 2, 3, 2), n(3)], {"padding": "same"}), ([n(1, 2, 5, 6), n(3, 2, 1, 1), n(3)], {}),
    ],
    "conv3d": [([n(1, 2, 4, 5, 3), n(3, 2, 2, 3, 2), n(3)], {"padding": 1, "stride": 2})],
    "conv_transpose1d": [([n(2, 4, 5), n(4, 3, 3), n(3)], {"stride": 2, "padding": 1, "output_padding": 1})],
    "conv_transpose2d": [
        ([n(2, 4, 3, 4), n(4, 3, 2, 2), n(3)], {"stride": 2}), ([n(1, 4, 3, 4), n(4, 2, 3, 2), None], {"groups": 2, "dilation": 2}),
        ([n(1, 2, 3, 4), n(2, 3, 3, 3), n(3)], {"stride": (2, 1), "padding": (1, 0)}),
    ],
    "conv_transpose3d": [([n(1, 2, 3, 2, 2), n(2, 2, 2, 2, 2), n(2)], {"stride": 2})],
    "max_pool1d": [([f(2, 3, 9)], {"kernel_size": 2}), ([f(2, 3, 9)], {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}), ([f(1, 2, 5)], {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True})],
    "max_pool2d": [
        ([f(2, 3, 6, 7)], {"kernel_size": 3, "stride": 2, "padding": 1}), ([f(1, 2, 7, 8)], {"kernel_size": (2, 3), "dilation": (2, 1)}),
        ([f(1, 2, 7, 8)], {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ],
    "max_pool3d": [([f(1, 2, 4, 5, 4)], {"kernel_size": 2})],
    "avg_pool1d": [([f(2, 3, 9)], {"kernel_size": 3, "stride": 2, "padding": 1})],
    "avg_pool2d": [
        ([f(2, 3, 6, 7)], {"kernel_size": 2}), ([f(1, 2, 6, 7)], {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ([f(1, 2, 6, 7)], {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ],
    "avg_pool3d": [([f(1, 2, 4, 5, 4)], {"kernel_size": 2})],
    "adaptive_avg_pool1d": [([f(2, 3, 7)], {"output_size": 3})],
    "adaptive_avg_pool2d": [([f(2, 3, 6, 7)], {"output_size": 1}), ([f(1, 2, 6, 7)], {"output_size": (3, 4)}), ([f(1, 2, 6, 7)], {"output_size": (None, 9)})],
    "adaptive_avg_pool3d": [([f(1, 2, 4, 5, 3)], {"output_size": 2})],
    "adaptive_max_pool1d": [([f(2, 3, 7)], {"output_size": 3})],
    "adaptive_max_pool2d": [([f(2, 3, 6, 7)], {"output_size": 1}), ([f(1, 2, 6, 7)], {"output_size": (3, 4)})],
    "adaptive_max_pool3d": [([f(1, 2, 4, 5, 3)], {"output_size": 2})],
    "layer_norm": [([f(2, 3, 4), f(4), f(4)], {}), ([f(2, 3, 4), f(3, 4), None], {"dims": 2, "eps": 1e-3}), ([f(2, 4), None, None], {})],
    "rms_norm": [([f(2, 3, 4), f(4)], {}), ([f(3, 4), None], {"eps": 1e-5})],
    "group_norm": [([f(2, 6, 3, 2), f(6), f(6)], {"num_groups": 3}), ([f(2, 4, 3), None, None], {"num_groups": 1})],
    "batch_norm": [([f(2, 3, 4, 2), f(3), p(3), f(3), f(3)], {}), ([f(4, 3), f(3), p(3), None, None], {"eps": 1e-3})],
    "batch_norm_training": [([f(2, 3, 4, 2), f(3), p(3), f(3), f(3)], {}), ([f(4, 3), f(3), p(3), None, None], {"momentum": 0.3})],
    "scaled_dot_product_attention": [
        ([f(2, 2, 3, 4), f(2, 2, 5, 4), f(2, 2, 5, 4), None], {}), ([f(2, 2, 4, 4), f(2, 2, 4, 4), f(2, 2, 4, 4), None], {"is_causal": True}),
        ([f(1, 2, 3, 4), f(1, 2, 5, 4), f(1, 2, 5, 4), f(3, 5)], {"scale": 0.3}),
        ([f(2, 3, 4), f(2, 5, 4), f(2, 5, 4), np.arange(15).reshape(3, 5) % 3 < 2], {}),
        ([f(1, 2, 2, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), np.array([[True, False, True], [False] * 3])], {}),
    ],
    "interpolate": [
        ([f(1, 2, 3, 4)], {"size": (6, 7)}), ([f(1, 2, 3)], {"scale_factor": 2.0, "mode": "linear"}),
        ([f(1, 2, 5, 4)], {"size": (3, 7), "mode": "bilinear"}), ([f(1, 2, 3, 4)], {"size": (5, 8), "mode": "bilinear", "align_corners": True}),
        ([f(1, 2, 3, 4)], {"size": (7, 5), "mode": "bicubic"}), ([f(1, 2, 4, 4)], {"scale_factor": (1.6, 2.0), "mode": "bilinear"}),
        ([f(1, 1, 2, 3, 2)], {"scale_factor": 2, "mode": "trilinear"}), ([f(1, 2, 4, 4)], {"scale_factor": 0.5}),
        ([f(1, 2, 3, 4)], {"size": (7, 3), "mode": "nearest-exact"}), ([f(1, 2, 3, 4)], {"size": (7, 9), "mode": "bicubic", "align_corners": True}),
    ],
    "grid_sample": [
        ([f(2, 3, 4, 5), f(2, 3, 2, 2, low=-1.2, high=1.2)], {}), ([f(1, 2, 4, 5), u(1, 3, 2, 2)], {"align_corners": True}),
        ([f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.4, high=1.4)], {"padding_mode": "border"}),
        ([f(1, 2, 4, 5), f(1, 3, 3, 2, low=-1.9, high=1.9)], {"padding_mode": "reflection"}),
        ([f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.2, high=1.2)], {"mode": "nearest"}),
        *[([f(1, 2, 4, 5), f(1, 3, 3, 2, low=-1.83, high=1.95)], {"mode": "bicubic", "padding_mode": padding, "align_corners": aligned})
          for padding in ("zeros", "border", "reflection") for aligned in (False, True)],
        ([f(1, 2, 4, 5), f(1, 3, 3, 2, low=-1.83, high=1.95)], {"padding_mode": "reflection", "align_corners": True}),
        ([f(1, 2, 1, 5), u(1, 3, 2, 2)], {"padding_mode": "reflection", "align_corners": True, "mode": "bicubic"}),
    ],
    "pixel_shuffle": [([f(2, 12, 3, 2)], {"factor": 2})],
    "cross_entropy": [([f(4, 3), i(3, 4)], {}), ([f(2, 3, 4), np.array([[0, 1, -100, 2], [2, 1, 0, 0]])], {"label_smoothing": 0.1}), ([f(2, 3, 4), np.array([[0, 1, -100, 2], [2, 1, 0, 0]])], {"label_smoothing": 0.1, "weight": (0.5, 2.0, 1.5)}), ([f(4, 3), i(3, 4)], {"weight": (0.5, 2.0, 1.5)})],
    **{name: [([i(9, 2, 3), i(4, 3)], {})] for name in ("left_shift", "right_shift")},
    "nan_to_num": [([f(2, 3)], {}), ([np.array([np.nan, 1.0, np.inf, -np.inf])], {"nan": 2.0, "posinf": 5.0, "neginf": -5.0})],
    "eye": [([], {"rows": 3}), ([], {"rows": 2, "columns": 4, "dtype": DType.int64})],
    "fold_key": [([KEY], {"index": 3})],
    "rand": [([KEY], {"shape": (3, 4)})],
    "randn": [([KEY], {"shape": (3, 4)})],
    "dropout": [([f(3, 4), KEY], {"rate": 0.4})],
}  # fmt: skip
EXAMPLES["gelu"].append(([f(3, 4)], {"approximate": "tanh"}))
EXAMPLES["leaky_relu"].append(([f(3, 4)], {"negative_slope": 0.2}))
EXAMPLES["variance"].append(([f(3, 4)], {"axis": (0, 1), "correction": 1}))
EXAMPLES["norm"].append(([f(3, 4)], {"axis": 1, "ord": 3}))
EXAMPLES["sum"].append(([i(5, 3, 4)], {"axis": (0, 1)}))
EXAMPLES["divide"].append(([i(5, 3), i(5, 3, low=1)], {}))
