"""Running one row of the operator table on a backend, as generated source would: values and gradients."""

from functools import cache

import numpy as np

from mithril import backends
from mithril.codegen.kernels import paste, pasted_name
from mithril.codegen.text import Names, Texts
from mithril.ops.rules import broadcast
from mithril.ops.table import HELPERS, OPS, Call, implementation, is_kernel
from mithril.types import DType
from tests.mithril.ops.examples import EXAMPLES, F32, RNG

RANDOM = {"fold_key", "rand", "randn", "dropout"}
SHAPE_ONLY = {"shape"}
"""Evaluated while shapes are inferred; they never reach a backend."""
CASES = [(name, at) for name in OPS for at in range(len(EXAMPLES.get(name, ())))]
FRAMEWORKS = {"numpy": "NumpyBackend", "torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}


@cache
def names_of(name):
    """The names that generated source of a backend may use."""
    names = {"__xp__": getattr(backends, FRAMEWORKS[name]).xp}
    for line in getattr(backends, FRAMEWORKS[name]).imports:
        exec(line, names)
    return names


@cache
def pasted(word, name, backend):
    """The kernel made from its pasted source alone, with nothing but the framework's names: so it stands alone."""
    names = dict(names_of(backend))
    for text in paste([(word, name)], names_of(backend)["__xp__"]):
        exec(text, names)
    return names[pasted_name(name, HELPERS[word, name])]


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
        result = pasted(backend.name, op.name, backend.name)(*arrays, **changed(op, complete))
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
CONSTANT = {"detach", "zeros_like", "ones_like", "full_like", "full", "arange", "eye", "one_hot", *RANDOM - {"dropout"}}
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
            found[words] = pasted("np", "unbroadcast", "numpy")(grad, given[words].shape) if op.elementwise else grad
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
