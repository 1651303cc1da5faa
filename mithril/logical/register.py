"""The public way to add an operator of one's own."""

import ast
import inspect
import keyword
import string
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from mithril.errors import OperatorError, nearest
from mithril.logical.primitive import Primitive, primitive_class
from mithril.ops.table import BACKENDS, HELPERS, OPS, WORDS, Call, Code, Op, define
from mithril.types import is_name, promote


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
    _check_names(name, (*inputs, *(attributes or {}), *outputs))
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
        gradient=_gradient_call(name, gradient, inputs, attributes or {}) if callable(gradient) else gradient,
        elementwise=shape is None and signature is None,
        ranges={},
    )
    _check_code(row, implementations, gradient)
    for backend, function in implementations.items():
        if callable(function):
            for one in BACKENDS if backend == "any" else (backend,):
                if backend != "any" or one not in implementations:
                    HELPERS[one, name] = function
    return primitive_class(define(row))


def _check_names(name: str, keys: tuple[str, ...]) -> None:
    """Names become functions, arguments and keys of generated source."""
    for word in (name, *(key.strip("?*") for key in keys)):
        if not is_name(word) or not word.isascii() or keyword.iskeyword(word):
            raise OperatorError(f"{name!r:.80}: {word!r:.80} is no name; use letters, digits and underscores.")
    if len(set(keys)) < len(keys):
        raise OperatorError(f"{name}: {', '.join(keys)} names something twice.")


def _check_code(row: Op, implementations: Mapping[str, object], gradient: object) -> None:
    """Templates are expressions over the row's own names; functions have a source that can be pasted."""
    known = {*row.input_names, *row.attributes, "xp"}
    for code in implementations.values():
        if callable(code):
            _check_function(row.name, code)
        elif isinstance(code, str):
            _check_template(row.name, code, known)
        else:
            raise OperatorError(f"{row.name}: {code!r:.80} is no template and no function.")
    for code in gradient.values() if isinstance(gradient, Mapping) else ():
        if isinstance(code, str):
            results = {*row.output_names, *(f"grad_{name}" for name in row.output_names)}
            _check_template(row.name, code, known | results | {"grad", "output"})
    if callable(gradient):
        _check_function(row.name, gradient)


def _check_template(name: str, template: str, known: set[str]) -> None:
    try:
        fields = [(field, spec, how) for _, field, spec, how in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise OperatorError(f"{name}: the template {template!r:.80} cannot be read: {error}.") from None
    for field, spec, how in fields:
        if field.removeprefix("*") not in known or spec or how:
            raise OperatorError(
                f"{name}: the template {template!r:.80} has {{{field}}}.{nearest(field.strip('*'), sorted(known))}"
            )
    try:
        tree = ast.parse(template.format(**{field: field.strip("*") for field, _, _ in fields}), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise OperatorError(f"{name}: the template {template!r:.80} is no expression: {error}.") from None
    WORDS.update({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known)


def _check_function(name: str, function: Callable[..., object]) -> None:
    try:
        text = textwrap.dedent(inspect.getsource(function))
        fits = any(isinstance(part, ast.FunctionDef) for part in ast.parse(text).body)
    except (OSError, TypeError, SyntaxError):
        fits = False
    if not fits:
        raise OperatorError(f"{name}: {function!r:.80} is no function written with `def` in a file, to be pasted.")


def _gradient_call(
    op: str, function: Callable[..., Any], inputs: tuple[str, ...], attributes: Mapping[str, Any]
) -> dict[str, Code]:
    """The rule that calls a function for the gradients of all inputs."""
    called = f"{op}_gradient"
    HELPERS["np", called] = function
    names = [name.strip("?*") for name in inputs]
    end = "[0]" if len(names) == 1 else ""

    def write(call: Call) -> str:
        return f"{called}({call.arguments('grad', *names, 'output', **attributes)}){end}"

    return {" ".join(names): write}
