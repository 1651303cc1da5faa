"""Every row of the operator table: values on four backends, gradients, and the shape and dtype rules.

NumPy in float64 is the referee, and PyTorch's autograd in float64 referees NumPy.
"""

import math
from functools import cache

import numpy as np
import pytest

import mithril as ml
from mithril import backends
from mithril.codegen.kernels import paste
from mithril.codegen.text import Names, Texts
from mithril.ops.rules import broadcast
from mithril.ops.table import HELPERS, OPS, Call, implementation, is_kernel
from mithril.types import DType, as_dtype

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
    **dict.fromkeys(["divide", "floor_divide", "remainder"], (f, p)),
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
    "cross_entropy": [([f(4, 3), i(3, 4)], {}), ([f(2, 3, 4), np.array([[0, 1, -100, 2], [2, 1, 0, 0]])], {"label_smoothing": 0.1})],
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

RANDOM = {"fold_key", "rand", "randn", "dropout"}
SHAPE_ONLY = {"shape"}
"""Evaluated while shapes are inferred; they never reach a backend."""
CASES = [(name, at) for name in OPS for at in range(len(EXAMPLES.get(name, ())))]
FRAMEWORKS = {"numpy": "NumpyBackend", "torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}


@pytest.fixture(scope="module")
def tools(needed, may_skip):
    """Backends by label, NumPy and PyTorch in float64 too. Where missing ones may be skipped, they are left out."""
    found = {}
    for label in (*FRAMEWORKS, "numpy64", "torch64"):
        name = label.removesuffix("64")
        try:
            needed(name)
        except ImportError:
            if may_skip:
                continue
            raise
        found[label] = getattr(backends, FRAMEWORKS[name])(dtype="float64" if label.endswith("64") else "float32")
    if "jax" not in found:
        yield found
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes the time here
    yield found
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def names_of(name):
    """The names that generated source of a backend may use."""
    names = {"__xp__": getattr(backends, FRAMEWORKS[name]).xp}
    for line in getattr(backends, FRAMEWORKS[name]).imports:
        exec(line, names)
    return names


@cache
def pasted(function, backend):
    """The kernel made from its pasted source alone, with nothing but the framework's names: so it stands alone."""
    names = dict(names_of(backend))
    for text in paste([function], names_of(backend)["__xp__"]):
        exec(text, names)
    return names[function.__name__]


def call_of(op, backend, arrays, attributes, extra=None):
    """A call whose operands are the names that `scope` binds."""
    scope, inputs, shapes, dtypes = dict(names_of(backend.name)), {}, {}, {}
    for name, value in {**dict(zip(op.input_names, arrays)), **(extra or {})}.items():
        if isinstance(value, list | tuple):
            inputs[name] = tuple(f"{name}_{k}" for k in range(len(value)))
            scope.update(zip(inputs[name], value))
            shapes[name] = tuple(backend.shape_of(v) for v in value)
            dtypes[name] = tuple(backend.dtype_of(v) for v in value)
        elif value is None:
            inputs[name] = None
        else:
            inputs[name], scope[name] = name, value
            weak = isinstance(value, int | float)
            shapes[name] = () if weak else backend.shape_of(value)
            dtypes[name] = type(value) if weak else backend.dtype_of(value)
    for name, shape in zip(op.output_names, op_shapes(op, arrays, attributes, backend)):
        shapes.setdefault(name, shape)
    texts = Texts(backend, Names())
    return Call(op, inputs, attributes, shapes, dtypes, backend.xp, texts.source), scope, texts


def op_shapes(op, arrays, attributes, backend):
    """The output shapes by the row's rules; one list counts as one output."""
    known = []
    for value in arrays:
        if isinstance(value, list):
            known.append(tuple(backend.shape_of(v) for v in value))
        else:
            known.append(None if value is None else () if isinstance(value, int | float) else backend.shape_of(value))
    if op.shape is not None:
        result = op.shape(*known, **attributes)
        return result if len(op.outputs) > 1 else (result,)
    if op.signature is None:
        return (broadcast(*(shape for shape in known if shape is not None)),)
    return signature_shapes(op, known, attributes)


def signature_shapes(op, known, attributes):
    from mithril.physical.graph import Value
    from mithril.physical.signature import Sizes, apply_signature, parse

    text = op.signature(**attributes) if callable(op.signature) else op.signature
    values = [None if shape is None else Value(f"v{k}", shape, F32, "input") for k, shape in enumerate(known)]
    return apply_signature(parse(text), values, attributes, Sizes(), op.input_names)


def evaluate(code, call, scope, texts):
    """The value of a template or code function, whose helpers stand beside it."""
    text = texts.write(code, call)
    for source in paste(texts.kernels, scope["__xp__"]) if text else ():
        exec(source, scope)
    return text and eval(text, scope)


def run(op, backend, arrays, attributes):
    """The operator's outputs as a tuple."""
    complete = op.complete(attributes)
    result = None
    if not is_kernel(op, backend.name):
        result = evaluate(implementation(op, backend.name), *call_of(op, backend, arrays, complete))
    if result is None:
        result = pasted(HELPERS[backend.name, op.name], backend.name)(*arrays, **changed(op, complete))
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def changed(op, complete):
    """The attributes that a kernel is given."""
    return {k: v for k, v in complete.items() if v is not op.attributes[k]}


def arrays_of(backend, inputs):
    """The example's inputs as the backend's arrays; floats in its dtype."""
    make = backend.array
    return [
        [make(v) for v in value] if isinstance(value, list)
        else value if value is None or isinstance(value, int | float)
        else make(value)
        for value in inputs
    ]  # fmt: skip


def tolerance(name, dtype=DType.float32):
    if dtype is DType.float64:
        return {"rtol": 1e-7 if name == "hard_sigmoid" else 1e-9, "atol": 1e-10}  # torch keeps its 1/6 in float32
    loose = name.startswith("conv") or name in ("norm", "einsum", "cumprod", "prod", "batch_norm_training")
    return {"rtol": 1e-4, "atol": 1e-4} if loose else {"rtol": 2e-5, "atol": 2e-5}


STATISTICS = {"batch_norm": (1, 2), "batch_norm_training": (1, 2)}
"""Places of inputs that PyTorch does not differentiate."""
CONSTANT = {"detach", "zeros_like", "ones_like", "full_like", "full", "arange", "one_hot", *RANDOM - {"dropout"}}
"""Floating results without a gradient."""


def leaves_of(inputs, without=()):
    """Floating inputs by (place, place in the list)."""
    for place, value in enumerate(inputs):
        for inner, part in enumerate(value if isinstance(value, list) else [value]):
            if place not in without and isinstance(part, np.ndarray) and part.dtype == np.float64:
                yield (place, inner), part


def at(values, key):
    return values[key[0]][key[1]] if isinstance(values[key[0]], list) else values[key[0]]


def replaced(values, leaves):
    """`values` with those at the keys of `leaves` replaced."""
    given = [list(v) if isinstance(v, list) else v for v in values]
    for key, leaf in leaves.items():
        if isinstance(given[key[0]], list):
            given[key[0]][key[1]] = leaf
        else:
            given[key[0]] = leaf
    return given


def gradients_by_rule(op, backend, arrays, attributes, outputs, seeds):
    """Gradients per input by the row's rule, as generated NumPy source computes them."""
    grads = [np.zeros_like(output) if seed is None else seed for seed, output in zip(seeds, outputs)]
    extra = {"grad": grads[0], "output": outputs[0]}
    if len(op.outputs) > 1 or op.outputs[0].startswith("*"):
        extra = {**dict(zip(op.outputs, outputs)), "grad": list(grads), "output": list(outputs)}
        extra |= {f"grad_{name}": grad for name, grad in zip(op.outputs, grads)}
    call, scope, texts = call_of(op, backend, arrays, op.complete(attributes), extra)
    given, found = dict(zip(op.input_names, arrays)), {}
    for words, code in op.gradient.items():
        names = words.split()
        if len(names) > 1:
            found |= dict(zip(names, evaluate(code, call, scope, texts)))
        elif given[words] is not None and not isinstance(given[words], int | float):
            grad = evaluate(code, call, scope, texts)
            found[words] = (
                pasted(HELPERS["np", "unbroadcast"], "numpy")(grad, given[words].shape) if op.elementwise else grad
            )
    return [found.get(name) for name in op.input_names]


def by_framework(op, backend, inputs, attributes, seeds):
    """Outputs, and gradients by leaf in the framework's own reverse mode; one compiled function on JAX."""
    arrays = arrays_of(backend, inputs)
    keys = [key for key, _ in leaves_of(inputs, STATISTICS.get(op.name, ()))] if seeds else []

    def forward(leaves):
        given = replaced(arrays, {key: leaves[str(key)] for key in keys})
        return {str(k): v for k, v in enumerate(run(op, backend, given, attributes))}

    def both(leaves, grads):
        if not keys:
            return forward(leaves), {}
        outputs, pullback = backend.vjp(forward, leaves)
        return outputs, pullback(grads)

    function = backend.jit(both) if backend.name == "jax" else backend.prepare(both)
    grads = {str(k): backend.array(s) for k, s in enumerate(seeds) if s is not None}
    outputs, found = function({str(key): at(arrays, key) for key in keys}, grads)
    return list(outputs.values()), {key: backend.to_numpy(found[str(key)]) for key in keys}


def seeds_for(name, outputs):
    """Random gradients of the floating outputs; running statistics get none."""
    seeds = [RNG.standard_normal(np.shape(o)) if np.asarray(o).dtype.kind == "f" else None for o in outputs]
    return [*seeds[:1], None, None] if name == "batch_norm_training" else seeds


def is_differentiable(op, outputs):
    return op.gradient is not None and any(np.asarray(o).dtype == np.float64 for o in outputs)


def test_every_row_has_an_example():
    assert set(OPS) - SHAPE_ONLY - set(EXAMPLES) == set()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_row(name, number, tools):
    op, (inputs, attributes) = OPS[name], EXAMPLES[name][number]
    referee = tools["numpy64"]
    arrays = arrays_of(referee, inputs)
    truth = run(op, referee, arrays, attributes)
    check_rules(op, referee, arrays, attributes, truth)
    seeds, rule = [], []
    if is_differentiable(op, truth):
        seeds = seeds_for(name, truth)
        full = [np.zeros_like(o) if s is None else s for s, o in zip(seeds, truth)]
        rule = gradients_by_rule(op, referee, arrays, attributes, truth, full)
        check_finite_differences(op, referee, arrays, attributes, full, rule)
    elif np.asarray(truth[0]).dtype.kind == "f" and list(leaves_of(inputs)):
        assert name in CONSTANT | {"cast", "floor_divide"}, "a differentiable row without a gradient"
    for label, backend in tools.items():
        outputs, grads = by_framework(op, backend, inputs, attributes, seeds if backend.name != "numpy" else [])
        check_values(label, op, backend, outputs, truth)
        for key, found in grads.items():
            expected = at(rule, key) if isinstance(inputs[key[0]], list) else rule[key[0]]
            expected = np.zeros(found.shape) if expected is None else expected
            assert name in RANDOM or np.shape(expected) == found.shape
            if name not in RANDOM:
                loose = {k: 5 * v for k, v in tolerance(name, backend.dtype).items()}
                np.testing.assert_allclose(found, expected, err_msg=f"{label}, gradient of {key}", **loose)


def check_values(label, op, backend, outputs, truth):
    """Shape, dtype (JAX has 32-bit integers only) and values are the referee's."""
    assert len(outputs) == len(truth)
    for output, expected in zip(outputs, truth):
        dtype = as_dtype(expected.dtype)
        if dtype is DType.float64:
            dtype = backend.dtype
        elif dtype is DType.int64 and label == "jax":
            dtype = DType.int32
        assert (label, backend.dtype_of(output)) == (label, dtype)
        assert (label, backend.shape_of(output)) == (label, expected.shape)
        if op.name not in RANDOM:
            got = backend.to_numpy(output).astype(np.float64)
            loose = tolerance(op.name, backend.dtype)
            np.testing.assert_allclose(got, expected.astype(np.float64), err_msg=label, **loose)


def check_rules(op, backend, arrays, attributes, truth):
    """The shape and dtype rules tell what really comes out."""
    complete = op.complete(attributes)
    shapes = op_shapes(op, arrays, complete, backend)
    shapes = shapes[0] if op.outputs[0].startswith("*") else shapes
    assert [tuple(shape) for shape in shapes] == [np.shape(value) for value in truth]
    dtypes = op.dtype(*map(_kind, arrays), **complete)
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,) * len(truth)
    assert [as_dtype(d) for d in dtypes] == [as_dtype(np.asarray(v).dtype) for v in truth]


def _kind(value):
    if isinstance(value, list):
        return tuple(as_dtype(v.dtype) for v in value)
    return None if value is None else type(value) if isinstance(value, int | float) else as_dtype(value.dtype)


def check_finite_differences(op, backend, arrays, attributes, seeds, rule, step=1e-6):
    """The rule's gradients tell how the outputs change along one random direction of all floating inputs."""
    leaves = dict(leaves_of(arrays))
    ways = {key: RNG.standard_normal(leaf.shape) for key, leaf in leaves.items()}
    ends = []
    for sign in (1, -1):
        moved = {key: leaf + sign * step * ways[key] for key, leaf in leaves.items()}
        outputs = run(op, backend, replaced(arrays, moved), attributes)
        ends.append(sum(float((s * o).sum()) for s, o in zip(seeds, outputs) if np.asarray(o).dtype.kind == "f"))
    grads = {key: at(rule, key) if isinstance(arrays[key[0]], list) else rule[key[0]] for key in leaves}
    told = sum(float((grad * ways[key]).sum()) for key, grad in grads.items() if grad is not None)
    np.testing.assert_allclose(told, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


FULL_PRECISION = {"inverse", "solve", "cholesky", "avg_pool3d"}
"""No framework, or not PyTorch on a CPU, has these in float16."""


@pytest.mark.parametrize("cls", ["NumpyBackend", "TorchBackend", "MlxBackend"])
def test_half_precision(cls, tools):
    """Every row keeps float16, and is near the value in float64."""
    half, referee = getattr(backends, cls)(dtype="float16"), tools["numpy64"]
    for name, number in CASES:
        op, (inputs, attributes) = OPS[name], EXAMPLES[name][number]
        if name in FULL_PRECISION | RANDOM or attributes.get("padding") == "same":
            continue
        truth = run(op, referee, arrays_of(referee, inputs), attributes)
        for output, expected in zip(run(op, half, arrays_of(half, inputs), attributes), truth):
            wanted = half.dtype if expected.dtype == np.float64 else as_dtype(expected.dtype)
            assert (name, half.dtype_of(output)) == (name, wanted)
            if expected.dtype == np.float64:
                got = half.to_numpy(output).astype(np.float64)
                np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.05, err_msg=f"{name}-{number}")


@pytest.mark.parametrize("name", ["gelu", "conv2d", "interpolate", "batch_norm", "scaled_dot_product_attention"])
def test_jax_in_float64(needed, name, tools):
    """In 64-bit mode JAX agrees to the last digits, gradients too."""
    needed("jax")
    wide, torch = backends.JaxBackend(dtype="float64"), tools["torch64"]
    inputs, attributes = EXAMPLES[name][0]
    seeds = seeds_for(name, run(OPS[name], torch, arrays_of(torch, inputs), attributes))
    outputs, grads = by_framework(OPS[name], wide, inputs, attributes, seeds)
    expected, expected_grads = by_framework(OPS[name], torch, inputs, attributes, seeds)
    assert wide.dtype_of(outputs[0]) is DType.float64
    np.testing.assert_allclose(wide.to_numpy(outputs[0]), torch.to_numpy(expected[0]), rtol=1e-9, atol=1e-12)
    for key, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "attributes"), [("prod", {}), ("prod", {"axis": 1}), ("cumprod", {"axis": 1})])
def test_gradients_of_products_with_zeros(name, attributes, tools):
    """One zero in a row, two, or none."""
    values = np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    torch, numpy = tools["torch64"], tools["numpy64"]
    seeds = seeds_for(name, run(OPS[name], torch, arrays_of(torch, [values]), attributes))
    _, expected = by_framework(OPS[name], torch, [values], attributes, seeds)
    x = ml.IOKey("x", trainable=True)
    model = ml.Model.create(out=getattr(ml.models, name.capitalize())(**attributes)(x))
    compiled = ml.compile(model, numpy, shapes={"x": values.shape})
    found = compiled.evaluate_gradients({"x": values}, output_gradients={"out": seeds[0]})
    np.testing.assert_allclose(found["x"], next(iter(expected.values())), rtol=1e-12)
