"""The public way to add an operator of one's own."""

from collections.abc import Callable, Mapping
from typing import Any

from mithril.errors import OperatorError
from mithril.logical.primitive import Primitive, primitive_class
from mithril.ops.table import BACKENDS, HELPERS, OPS, Call, Code, Op, define
from mithril.types import promote


def register_op(
    name: str,
    *,
    implementations: Mapping[str, str | Callable[..., Any]],
    inputs: tuple[str, ...] = ("input",),
    attributes: Mapping[str, Any] | None = None,
    outputs: tuple[str, ...] = ("output",),
    shape: Callable[..., Any] | None = None,
    signature: str | None = None,
    dtype: Callable[..., Any] = promote,
    gradient: Mapping[str, Code] | Callable[..., Any] | None = None,
) -> type[Primitive]:
    """Add an operator to the table and return its class, to be used in models like `Relu` or `Add`.

    Args:
        name: snake_case, not taken yet.
        implementations: per backend ("torch", "jax", "mlx", "numpy", or "any" for those not named) a template such as
            `"{xp}.exp(-{input})"`, or a function called as `function(*inputs, **attributes)`. A function's source goes
            into generated modules, so it uses only its framework under the usual name (`torch`, `F`, `jax`, `jnp`,
            `mx`, `np`) and `math`; a function for "any" writes `xp`.
        inputs: names of tensors; `"bias?"` may be absent, `"*inputs"` is a list.
        attributes: static values with their defaults.
        shape: `(*shapes, **attributes)` to the output's shape. Without it and a signature the operator is elementwise.
        signature: `"... i, o i -> ... o"`; sizes by name, checked and deduced.
        dtype: `(*dtypes, **attributes)` to the output's dtype.
        gradient: NumPy's derivative, a template per input over `{grad}`, `{output}` and the inputs, or a function
            `(grad, *inputs, output, **attributes)` to a tuple of one gradient or None per input. The other frameworks
            differentiate by themselves.

    Raises:
        OperatorError: the name is taken, or an implementation is for an unknown backend.
    """
    if name in OPS:
        raise OperatorError(f"There is an operator '{name}' already; choose another name.")
    unknown = [backend for backend in implementations if backend not in (*BACKENDS, "any")]
    if unknown or not implementations:
        raise OperatorError(f"{name}: implementations are for {', '.join(BACKENDS)} or any, not {unknown}.")
    row = Op(
        name=name,
        inputs=inputs,
        attributes=attributes or {},
        outputs=outputs,
        shape=shape,
        signature=signature,
        dtype=dtype,
        code={backend: code for backend, code in implementations.items() if isinstance(code, str)},
        gradient=_gradient_call(gradient, inputs, attributes or {}) if callable(gradient) else gradient,
        elementwise=shape is None and signature is None,
    )
    for backend, function in implementations.items():
        if callable(function):
            for one in BACKENDS if backend == "any" else (backend,):
                if backend != "any" or one not in implementations:
                    HELPERS[one, name] = function
    return primitive_class(define(row))


def _gradient_call(
    function: Callable[..., Any], inputs: tuple[str, ...], attributes: Mapping[str, Any]
) -> dict[str, Code]:
    """The rule that calls a function for the gradients of all inputs."""
    HELPERS["np", function.__name__] = function
    names = [name.strip("?*") for name in inputs]
    end = "[0]" if len(names) == 1 else ""

    def write(call: Call) -> str:
        return f"{function.__name__}({call.arguments('grad', *names, 'output', **attributes)}){end}"

    return {" ".join(names): write}
