"""Every row of the operator table: values on four backends, gradients, and the shape and dtype rules.

NumPy in float64 is the referee, and PyTorch's autograd in float64 referees NumPy.
"""

import ast
import importlib
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mithril import backends
from mithril.errors import BackendError
from mithril.ops.rules import broadcast
from mithril.ops.table import GRADIENT_KERNELS, KERNELS, OPS, Call, implementation
from mithril.types import DType, as_dtype

F32 = DType.float32
RNG = np.random.default_rng(0)


def f(*shape, low=-2.0, high=2.0):
    """Distinct floats, so that no maximum is tied and no kink is hit."""
    return RNG.permutation(np.linspace(low, high, math.prod(shape) + 2)[1:-1]).reshape(shape)


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


KEY = np.array([17, 42], np.int32)
UNARY = {
    **dict.fromkeys("relu relu6 leaky_relu sigmoid silu softplus log_sigmoid softsign elu celu selu mish".split(), f),
    **dict.fromkeys("hard_sigmoid hard_swish hard_tanh gelu negative absolute sign square exp expm1 sin".split(), f),
    **dict.fromkeys("cos sinh cosh tanh arcsinh arctan erf floor ceil trunc round isnan isinf isfinite".split(), f),
    **dict.fromkeys("reciprocal sqrt rsqrt log log1p log2 log10 tan".split(), p),
    **dict.fromkeys("arcsin arccos arctanh".split(), u),
    "arccosh": lambda *shape: 1 + p(*shape),
    **dict.fromkeys("buffer detach zeros_like ones_like".split(), f),
}
BINARY = {
    **dict.fromkeys("add subtract multiply maximum minimum".split(), (f, f)),
    **dict.fromkeys("equal not_equal less less_equal greater greater_equal".split(), (f, f)),
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
        for name in ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "variance", "std", "logsumexp", "norm")
    },
    **{name: [([b(2, 3, 4)], {"axis": 1}), ([b(3)], {})] for name in ("any", "all")},
    **{name: [([p(3, 4)], {"axis": 1}), ([p(3, 4)], {"axis": 0})] for name in ("cumsum", "cumprod")},
    **{name: [([f(3, 4)], {}), ([f(3, 4)], {"axis": 0, "descending": True})] for name in ("sort", "argsort")},
    "topk": [([f(3, 5)], {"k": 2}), ([f(5, 3)], {"k": 2, "axis": 0, "largest": False})],
    "matmul": [
        ([f(2, 3), f(3, 4)], {}), ([f(2, 1, 3, 4), f(5, 4, 2)], {}), ([f(3), f(3)], {}),
        ([f(2, 4, 3), f(3)], {}), ([f(3), f(2, 3, 4)], {}),
    ],
    "linear": [([f(2, 3), f(4, 3), f(4)], {}), ([f(2, 5, 3), f(4, 3), None], {})],
    "einsum": [
        ([[f(2, 3), f(3, 4)]], {"equation": "ij,jk->ik"}), ([[f(2, 3, 4)]], {"equation": "b i j -> b j"}),
        ([[f(2, 3), f(2, 3), f(2)]], {"equation": "bi,bi,b->b"}),
    ],
    "outer": [([f(3), f(4)], {})],
    "index": [
        ([f(4, 5), None], {"key": (slice(1, None), 2)}), ([f(4, 5, 3), None], {"key": (..., None, slice(None, None, 2))}),
        ([f(4, 5), [i(4, 3)]], {"key": ("tensor",)}), ([f(4, 5, 2), [i(4, 3, 1), i(5, 2)]], {"key": ("tensor", "tensor")}),
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
    "max_pool1d": [([f(2, 3, 9)], {"kernel_size": 2}), ([f(2, 3, 9)], {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True})],
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
    ],
    "interpolate": [
        ([f(1, 2, 3, 4)], {"size": (6, 7)}), ([f(1, 2, 3)], {"scale_factor": 2.0, "mode": "linear"}),
        ([f(1, 2, 5, 4)], {"size": (3, 7), "mode": "bilinear"}), ([f(1, 2, 3, 4)], {"size": (5, 8), "mode": "bilinear", "align_corners": True}),
        ([f(1, 2, 3, 4)], {"size": (7, 5), "mode": "bicubic"}), ([f(1, 2, 4, 4)], {"scale_factor": (1.6, 2.0), "mode": "bilinear"}),
        ([f(1, 1, 2, 3, 2)], {"scale_factor": 2, "mode": "trilinear"}), ([f(1, 2, 4, 4)], {"scale_factor": 0.5}),
    ],
    "grid_sample": [
        ([f(2, 3, 4, 5), f(2, 3, 2, 2, low=-1.2, high=1.2)], {}), ([f(1, 2, 4, 5), u(1, 3, 2, 2)], {"align_corners": True}),
        ([f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.4, high=1.4)], {"padding_mode": "border"}),
        ([f(1, 2, 4, 5), f(1, 3, 3, 2, low=-1.9, high=1.9)], {"padding_mode": "reflection"}),
        ([f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.2, high=1.2)], {"mode": "nearest"}),
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


@pytest.fixture(scope="session")
def tools():
    """Per backend: the backend object in float32 (NumPy and torch: float64 too), and the names that templates use."""
    found = {}
    for name, cls in FRAMEWORKS.items():
        try:
            made = getattr(backends, cls)()
        except BackendError:
            continue
        found[name] = SimpleNamespace(backend=made, names=_names(made))
    for name in ("numpy", "torch"):
        wide = getattr(backends, FRAMEWORKS[name])(dtype="float64")
        found[name + "64"] = SimpleNamespace(backend=wide, names=found[name].names)
    return found


def _names(backend):
    names: dict = {}
    for line in backend.imports:
        exec(line, names)
    return names


def source(backend, value):
    """Source of an attribute."""
    if isinstance(value, DType):
        bool_name = "bool" if backend.name == "torch" else "bool_"
        return f"{backend.xp}.{bool_name if value is DType.bool else value.value}"
    if isinstance(value, float) and math.isinf(value):
        return "math.inf"
    if isinstance(value, tuple):
        return f"({', '.join(source(backend, v) for v in value)}{',' if len(value) == 1 else ''})"
    return repr(value)


def kernel_for(function, tool):
    """The kernel with `xp` bound to the backend's array module; those of array.py are shared."""
    if function.__module__ != "mithril.backends.array" or tool.backend.name == "numpy":
        return function
    module = importlib.import_module(function.__module__)
    names = {**vars(module), "xp": tool.names[tool.backend.xp], "kernel": lambda *a: lambda g: g}
    tree = ast.parse(inspect.getsource(module))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for node in tree.body:
        node.decorator_list = []
    exec(compile(tree, module.__file__, "exec"), names)
    return names[function.__name__]


def call_of(op, tool, arrays, attributes, extra=None):
    """A call whose operands are the names that `scope` binds."""
    scope, inputs, shapes, dtypes = dict(tool.names), {}, {}, {}
    backend = tool.backend
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
    return Call(op, inputs, attributes, shapes, dtypes, backend.xp, lambda v: source(backend, v)), scope


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


def evaluate(code, call, scope):
    text = code(call) if callable(code) else code.format_map(_Fields(call))
    return eval(text, scope)


class _Fields(dict):
    def __init__(self, call):
        self.call = call

    def __missing__(self, name):
        return self.call.xp if name == "xp" else self.call[name]


def run(op, tool, arrays, attributes):
    """The operator's outputs as a tuple."""
    complete = op.complete(attributes)
    code = implementation(op, tool.backend.name)
    if code is KERNELS.get((op.name, tool.backend.name)):
        known = {k: v for k, v in complete.items() if v is not op.attributes[k]}
        known = {k: _native(v, tool) for k, v in known.items()}
        result = kernel_for(code, tool)(*arrays, **known)
    else:
        call, scope = call_of(op, tool, arrays, complete)
        result = evaluate(code, call, scope)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _native(value, tool):
    return eval(source(tool.backend, value), dict(tool.names)) if isinstance(value, DType) else value


def arrays_of(tool, inputs, grow=None):
    """The example's inputs as the backend's arrays; floats in its dtype."""
    make = tool.backend.array
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


def test_every_row_has_an_example():
    assert set(OPS) - SHAPE_ONLY - set(EXAMPLES) == set()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "at"), CASES, ids=[f"{name}-{at}" for name, at in CASES])
def test_row(name, at, tools):
    op, (inputs, attributes) = OPS[name], EXAMPLES[name][at]
    wide = tools["numpy64"]
    truth = run(op, wide, arrays_of(wide, inputs), attributes)
    check_rules(op, wide, inputs, attributes, truth)
    for label, tool in tools.items():
        outputs = run(op, tool, arrays_of(tool, inputs), attributes)
        if name in RANDOM:
            assert [o.shape for o in map(tool.backend.to_numpy, outputs)] == [t.shape for t in truth]
            continue
        assert len(outputs) == len(truth)
        for output, expected in zip(outputs, truth):
            check_dtype(label, tool.backend.dtype_of(output), as_dtype(expected.dtype), attributes)
            got = tool.backend.to_numpy(output)
            np.testing.assert_allclose(
                got.astype(np.float64), np.asarray(expected, np.float64),
                err_msg=label, **tolerance(name, tool.backend.dtype),
            )  # fmt: skip
            assert got.shape == expected.shape, label


def check_rules(op, tool, inputs, attributes, truth):
    complete = op.complete(attributes)
    arrays = arrays_of(tool, inputs)
    shapes = op_shapes(op, arrays, complete, tool.backend)
    shapes = shapes[0] if op.outputs[0].startswith("*") else shapes
    assert [tuple(shape) for shape in shapes] == [np.shape(value) for value in truth]
    kinds = [_kind(value) for value in arrays]
    dtypes = op.dtype(*kinds, **complete)
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,) * len(truth)
    assert [as_dtype(d) for d in dtypes] == [as_dtype(np.asarray(v).dtype) for v in truth]


def _kind(value):
    if isinstance(value, list):
        return tuple(as_dtype(v.dtype) for v in value)
    return None if value is None else type(value) if isinstance(value, int | float) else as_dtype(value.dtype)


def check_dtype(label, got, expected, attributes):
    """The table's dtype, in the backend's width; JAX has 32-bit integers only."""
    if label in ("torch", "jax", "mlx", "numpy") and expected is DType.float64:
        expected = DType.float32
    if label == "jax" and expected is DType.int64:
        expected = DType.int32
    assert got is expected, (label, got, expected)


# Gradients

DIFFERENTIABLE = [(name, at) for name, at in CASES if OPS[name].gradient is not None or name in {
    "matmul", "linear", "einsum", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "layer_norm", "rms_norm", "group_norm", "batch_norm", "batch_norm_training", "scaled_dot_product_attention",
    "embedding", "gelu", "prelu", "cross_entropy", "pixel_shuffle", "sum", "mean", "prod", "max", "min", "variance", "std",
    "logsumexp", "norm", "cumsum", "cumprod", "sort", "topk", "broadcast_to", "tile", "repeat", "pad", "concat", "stack",
    "split", "unbind", "meshgrid", "index", "take", "take_along_axis", "scatter_add", "scatter", "slice_scatter",
    "interpolate", "grid_sample", *(f"{kind}_pool{r}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for r in (1, 2, 3)),
}]  # fmt: skip
INTEGER_RESULTS = {
    *"argmax argmin argsort any all equal not_equal less less_equal greater greater_equal logical_and logical_or".split(),
    *"logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not isnan isinf isfinite floor_divide".split(),
}
CONSTANT = {"detach", "zeros_like", "ones_like", "full_like", "full", "arange", "one_hot", "rand", "randn", "fold_key"}


def test_every_differentiable_row_has_a_gradient(tools):
    without = {
        name for name, op in OPS.items()
        if op.gradient is None and name not in GRADIENT_KERNELS and name not in INTEGER_RESULTS | CONSTANT | SHAPE_ONLY
    }  # fmt: skip
    assert without == set()


def numpy_gradients(op, tool, arrays, attributes, outputs, seeds):
    """Gradients per input by the row's rule, as codegen writes them."""
    from mithril.backends.numpy.gradients import unbroadcast

    complete = op.complete(attributes)
    many = len(op.outputs) > 1 or op.outputs[0].startswith("*")
    if op.gradient is None:
        known = {k: v for k, v in complete.items() if v is not op.attributes[k]}
        grad, output = (list(seeds), list(outputs)) if many else (seeds[0], outputs[0])
        return GRADIENT_KERNELS[op.name](grad, *arrays, output, **known)
    call, scope = call_of(op, tool, arrays, complete, {"grad": seeds[0], "output": outputs[0]})
    found = []
    for name, value in zip(op.input_names, arrays):
        code = op.gradient.get(name)
        grad = None if code is None or isinstance(value, int | float) else evaluate(code, call, scope)
        found.append(unbroadcast(grad, value.shape) if grad is not None and op.elementwise else grad)
    return found


STATISTICS = {"batch_norm": (1, 2), "batch_norm_training": (1, 2)}
"""Places of inputs that torch does not differentiate."""


def leaves_of(name, inputs):
    """Floating inputs by (place, place in the list)."""
    for place, value in enumerate(inputs):
        if place in STATISTICS.get(name, ()):
            continue
        for inner, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, np.ndarray) and part.dtype == np.float64:
                yield (place, inner), part


def differentiated(op, tool, inputs, attributes, seeds):
    """Gradients of the framework's own reverse mode, by leaf."""
    arrays = arrays_of(tool, inputs)
    pick = {str(key): _at(arrays, key) for key, _ in leaves_of(op.name, inputs)}

    def function(leaves):
        given = [list(v) if isinstance(v, list) else v for v in arrays]
        for key, _ in leaves_of(op.name, inputs):
            if isinstance(given[key[0]], list):
                given[key[0]][key[1]] = leaves[str(key)]
            else:
                given[key[0]] = leaves[str(key)]
        return {str(k): v for k, v in enumerate(run(op, tool, given, attributes)) if str(k) in wanted}

    wanted = {str(k) for k, seed in enumerate(seeds) if seed is not None}
    _, pullback = tool.backend.vjp(function, pick)
    found = pullback({str(k): tool.backend.array(s) for k, s in enumerate(seeds) if s is not None})
    return {key: tool.backend.to_numpy(found[str(key)]) for key, _ in leaves_of(op.name, inputs)}


def _at(arrays, key):
    return arrays[key[0]][key[1]] if isinstance(arrays[key[0]], list) else arrays[key[0]]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "at"), DIFFERENTIABLE, ids=[f"{name}-{at}" for name, at in DIFFERENTIABLE])
def test_gradient(name, at, tools):
    op, (inputs, attributes) = OPS[name], EXAMPLES[name][at]
    if not any(True for _ in leaves_of(op.name, inputs)) or attributes.get("dtype") in (DType.bool, DType.int64):
        pytest.skip("the example has no floating input or output")
    wide = tools["numpy64"]
    arrays = arrays_of(wide, inputs)
    outputs = run(op, wide, arrays, attributes)
    seeds = [RNG.standard_normal(np.shape(o)) if np.asarray(o).dtype.kind == "f" else None for o in outputs]
    if name == "batch_norm_training":
        seeds[1:] = [None, None]
    seeds_here = [s if s is not None else np.zeros(np.shape(o)) for s, o in zip(seeds, outputs)]
    seeds_here = [s.astype(np.asarray(o).dtype) for s, o in zip(seeds_here, outputs)]
    rule = numpy_gradients(op, wide, arrays, attributes, outputs, seeds_here)
    if name in RANDOM:
        kept = outputs[0] != 0
        np.testing.assert_allclose(rule[0], np.where(kept, seeds[0] / (1 - attributes["rate"]), 0))
        return
    for label, tool in tools.items():
        if label.startswith("numpy"):
            continue
        loose = tolerance(name, tool.backend.dtype)
        for key, found in differentiated(op, tool, inputs, attributes, seeds).items():
            value = rule[key[0]]
            expected = value[key[1]] if isinstance(inputs[key[0]], list) else value
            expected = np.zeros(found.shape) if expected is None else np.asarray(expected)
            assert expected.shape == _at(inputs, key).shape
            np.testing.assert_allclose(
                found, expected, err_msg=f"{label} {key}", **{k: 5 * v for k, v in loose.items()}
            )
