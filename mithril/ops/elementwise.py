"""Elementwise operators: arithmetic, comparison, logic, and the functions of one argument."""

from collections.abc import Callable, Mapping
from typing import Any

from mithril.ops.rules import always, called, floating, floats_like, given, row
from mithril.ops.table import REQUIRED, Call, Code
from mithril.types import DType, promote


def is_scalar(dtype: object) -> bool:
    """Whether the operand is a Python scalar, which has a weak dtype."""
    return isinstance(dtype, type) and not isinstance(dtype, DType)


def unary(
    name: str,
    code: str | dict[str, Code],
    gradient: str | None = None,
    dtype: Callable[..., DType | type] = floating,
    numbers: bool = False,
) -> None:
    """A row for a function of one `input`; where it makes floats, NumPy is told to make float32 of integers."""
    code = {"any": code} if isinstance(code, str) else dict(code)
    template = code.get("numpy", code.get("any"))
    if dtype is floating and isinstance(template, str):
        code["numpy"] = lambda call: _widened(call, template)
    gradients = None if gradient is None else {"input": gradient}
    row(name, "input", code, dtype=dtype, gradient=gradients, elementwise=True, numbers=numbers)


def _widened(call: Call, template: str) -> str:
    dtype = call.dtypes.get("input")
    known_integer = dtype is not None and not is_scalar(dtype) and not dtype.is_floating
    text = f"{call['input']}.astype(np.float32)" if known_integer else call["input"]
    return template.format(input=text, xp="np")


def binary(name: str, code: Code | Mapping[str, Code], left: Code = "", right: Code = "", **facts: Any) -> None:
    """A row for a function of `left` and `right`, with the gradient for each."""
    facts.setdefault("dtype", promote)
    gradient = {"left": left, "right": right} if left else None
    row(name, "left right", code, gradient=gradient, elementwise=True, **facts)


def true_divide(call: Call) -> str:
    """NumPy divides integers in float64; the table says float32."""
    dtypes = [call.dtypes.get(side) for side in ("left", "right")]
    if any(d is not None and not is_scalar(d) for d in dtypes) and not any(_floats(d) for d in dtypes):
        return f"np.divide({call['left']}, {call['right']}, dtype=np.float32)"
    return f"{call['left']} / {call['right']}"


def _floats(dtype: object) -> bool:
    return dtype is None or dtype is float or (isinstance(dtype, DType) and dtype.is_floating)


def power_text(call: Call) -> str:
    """With a number for exponent the operator; with a tensor the kernel, which cares for exponents of 0."""
    exponent = call.attributes.get("right") if is_scalar(call.dtypes.get("right")) else None
    plain = is_scalar(call.dtypes.get("right")) and exponent != 0
    return f"{call['left']} ** {call['right']}" if plain else f"power({call['left']}, {call['right']})"


def bounded_by(call: Call) -> str | None:
    """The operand that a number bounds; None where both are tensors."""
    for value, limit in (("left", "right"), ("right", "left")):
        if is_scalar(call.dtypes.get(limit)) and not is_scalar(call.dtypes.get(value)):
            return value
    return None


def extremum(function: str, bound: str) -> dict[str, Code]:
    """The larger or smaller of two tensors; a number bounds as `clip` does, whose gradient passes at the bound."""

    def write(call: Call) -> str:
        value = bounded_by(call)
        if value is None or call.xp == "np":
            return f"{call.xp}.{function}({call['left']}, {call['right']})"
        limit = call["right" if value == "left" else "left"]
        return f"{'torch.clamp' if call.xp == 'torch' else 'clip'}({call[value]}, {bound}={limit})"

    return {"torch": write, "numpy": write, "jax": write, "mlx": lambda call: write(call) if bounded_by(call) else None}


def share(side: str, other: str, function: str) -> Code:
    """The part of the gradient of an extremum for one side: half where both are equal, all where a number bounds."""

    def write(call: Call) -> str:
        half = "1" if bounded_by(call) else "0.5"
        x, y, grad = call[side], call[other], call["grad"]
        return f"{grad} * (np.{function}({x}, {y}) + {half} * np.equal({x}, {y})).astype({grad}.dtype)"

    return write


# Arithmetic
binary("add", "{left} + {right}", "{grad}", "{grad}", commutative=True)
binary("subtract", "{left} - {right}", "{grad}", "-{grad}", numbers=True)
binary("multiply", "{left} * {right}", "{grad} * {right}", "{grad} * {left}", commutative=True)
binary("divide", {"any": "{left} / {right}", "numpy": true_divide}, "{grad} / {right}",
    "-{grad} * {left} / np.square({right})", dtype=floating)  # fmt: skip
binary("floor_divide", {"any": "{left} // {right}",  # whose derivative torch does not have
                        "torch": 'torch.div({left}, {right}, rounding_mode="floor")'}, numbers=True)  # fmt: skip
binary("remainder", "{left} % {right}", "{grad}", "-{grad} * np.floor_divide({left}, {right})", numbers=True)
binary("fmod", {"any": "{xp}.fmod({left}, {right})",
                "mlx": "mx.sign({left}) * (abs({left}) % abs({right}))"},
    "{grad}", "-{grad} * np.trunc({left} / {right})", numbers=True)  # fmt: skip
POWER = {"torch": "{left} ** {right}", "numpy": "{left} ** {right}", "jax": power_text, "mlx": power_text}
binary("power", POWER, "{grad} * {right} * {left} ** np.where(np.equal({right}, 0), 0, {right} - 1)",
    "{grad} * exponent_slope({left}, {right}, {output})", numbers=True)  # fmt: skip
for _name, _bound, _beyond in (("maximum", "min", "greater"), ("minimum", "max", "less")):
    binary(_name, extremum(_name, _bound), share("left", "right", _beyond), share("right", "left", _beyond),
        commutative=True)  # fmt: skip
ROUND = "{grad} * {%s} / np.where(%s == 0, 1, %s)"
_LENGTH = "(np.square({left}) + np.square({right}))"
binary("arctan2", {"torch": "torch.arctan2({left}, {right})", "numpy": "np.arctan2({left}, {right})"},
    ROUND % ("right", _LENGTH, _LENGTH), "-" + ROUND % ("left", _LENGTH, _LENGTH), dtype=floating)  # fmt: skip
binary("logaddexp", {"any": "{xp}.logaddexp({left}, {right})", "jax": "logaddexp({left}, {right})"},
    "{grad} * np.exp(-np.logaddexp(0, {right} - {left}))",
    "{grad} * np.exp(-np.logaddexp(0, {left} - {right}))", commutative=True, dtype=floating)  # fmt: skip

# Comparison and logic
for _name, _sign in {"equal": "==", "not_equal": "!="}.items():
    binary(_name, f"{{left}} {_sign} {{right}}", dtype=always(DType.bool), commutative=True)
for _name, _sign in {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}.items():
    binary(_name, f"{{left}} {_sign} {{right}}", dtype=always(DType.bool))

TRUTH = {"left": bool, "right": bool, "input": bool}

for _name in ("logical_and", "logical_or"):
    binary(_name, f"{{xp}}.{_name}({{left}}, {{right}})", dtype=always(DType.bool), commutative=True, soft_kinds=TRUTH)
binary("logical_xor",
    {"any": "{xp}.logical_xor({left}, {right})", "mlx": "{left}.astype(mx.bool_) != {right}.astype(mx.bool_)"},
    dtype=always(DType.bool), commutative=True, soft_kinds=TRUTH)  # fmt: skip
for _name, _sign in {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}.items():
    binary(_name, f"{{left}} {_sign} {{right}}", commutative=True)
row("logical_not", "input", "{xp}.logical_not({input})", dtype=always(DType.bool), elementwise=True, soft_kinds=TRUTH)
unary("bitwise_not", {"any": "~{input}"}, dtype=promote)
for _name in ("isnan", "isinf", "isfinite"):
    unary(_name, f"{{xp}}.{_name}({{input}})", dtype=always(DType.bool))

# Functions of one argument
unary("negative", "-{input}", "-{grad}", promote, numbers=True)
unary("absolute", {"any": "{xp}.abs({input})", "jax": "magnitude({input})"}, "{grad} * np.sign({input})", promote,
    numbers=True)  # fmt: skip
unary("sign", "{xp}.sign({input})", "np.zeros_like({grad})", promote, numbers=True)
unary("square", "{xp}.square({input})", "2 * {grad} * {input}", promote, numbers=True)
unary("reciprocal", {"any": "1 / {input}", "torch": "torch.reciprocal({input})", "mlx": "mx.reciprocal({input})"},
    "-{grad} * np.square({output})")  # fmt: skip
unary("sqrt", "{xp}.sqrt({input})", "0.5 * {grad} / {output}")
unary("rsqrt", {"any": "{xp}.rsqrt({input})", "numpy": "1 / np.sqrt({input})", "jax": "jax.lax.rsqrt({input})"},
    "-0.5 * {grad} * {output} ** 3")  # fmt: skip
unary("exp", "{xp}.exp({input})", "{grad} * {output}")
unary("expm1", "{xp}.expm1({input})", "{grad} * ({output} + 1)")
unary("log", "{xp}.log({input})", "{grad} / {input}")
unary("log1p", "{xp}.log1p({input})", "{grad} / (1 + {input})")
unary("log2", "{xp}.log2({input})", "{grad} / ({input} * math.log(2))")
unary("log10", "{xp}.log10({input})", "{grad} / ({input} * math.log(10))")
unary("sin", "{xp}.sin({input})", "{grad} * np.cos({input})")
unary("cos", "{xp}.cos({input})", "-{grad} * np.sin({input})")
unary("tan", "{xp}.tan({input})", "{grad} * (1 + np.square({output}))")
unary("arcsin", "{xp}.arcsin({input})", "{grad} / np.sqrt(1 - np.square({input}))")
unary("arccos", "{xp}.arccos({input})", "-{grad} / np.sqrt(1 - np.square({input}))")
unary("arctan", "{xp}.arctan({input})", "{grad} / (1 + np.square({input}))")
unary("sinh", "{xp}.sinh({input})", "{grad} * np.cosh({input})")
unary("cosh", "{xp}.cosh({input})", "{grad} * np.sinh({input})")
unary("tanh", "{xp}.tanh({input})", "{grad} * (1 - np.square({output}))")
unary("arcsinh", "{xp}.arcsinh({input})", "{grad} / np.sqrt(np.square({input}) + 1)")
unary("arccosh", "{xp}.arccosh({input})", "{grad} / np.sqrt(np.square({input}) - 1)")
unary("arctanh", "{xp}.arctanh({input})", "{grad} / (1 - np.square({input}))")
unary("erf", {"torch": "torch.erf({input})", "jax": "jax.scipy.special.erf({input})", "mlx": "mx.erf({input})"},
    "{grad} * (2 / math.sqrt(math.pi)) * np.exp(-np.square({input}))")  # fmt: skip
for _name in ("floor", "ceil", "round"):
    unary(_name, f"{{xp}}.{_name}({{input}})", "np.zeros_like({grad})", promote, numbers=True)
unary("trunc", {"any": "{xp}.trunc({input})", "mlx": "mx.sign({input}) * mx.floor(mx.abs({input}))"},
    "np.zeros_like({grad})", promote, numbers=True)  # fmt: skip

# Choice, bounds and types


def clip_dtype(dtype: DType | type, *, min: object, max: object) -> DType | type:
    """Integers stay integers between whole bounds, and are floats between others."""
    return floats_like(dtype) if isinstance(min, float) or isinstance(max, float) else dtype


def clip_gradient(call: Call) -> str:
    """The gradient passes where neither bound has been crossed."""
    bounds = (("min", ">="), ("max", "<="))
    tests = [f"({call['input']} {sign} {call[b]})" for b, sign in bounds if call.attributes[b] is not None]
    return f"np.where({' & '.join(tests) or 'True'}, {call['grad']}, 0)"


WHERE = {"input": "np.where({condition}, {grad}, 0)", "other": "np.where({condition}, 0, {grad})"}
CLIP = {"numpy": "np.clip({input}, {min}, {max})", "torch": called("torch.clamp", "input", min=None, max=None)}
CAST = {"torch": "{input}.to({dtype})", "any": "{input}.astype({dtype})"}
NAN_TO_NUM = {
    "torch": called("torch.nan_to_num", "input", nan=0.0, posinf=None, neginf=None),
    "any": "{xp}.nan_to_num({input}, nan={nan}, posinf={posinf}, neginf={neginf})",
}
DETACH = {
    "torch": "{input}.detach()",
    "jax": "jax.lax.stop_gradient({input})",
    "mlx": "mx.stop_gradient({input})",
    "numpy": "{input}",
}

row("where", "condition input other", "{xp}.where({condition}, {input}, {other})", elementwise=True, gradient=WHERE,
    dtype=lambda condition, input, other: promote(input, other), soft_kinds={"condition": bool})  # fmt: skip
row("clip", "input", CLIP, {"min": None, "max": None}, dtype=clip_dtype, floats=True, numbers=True,
    gradient={"input": clip_gradient}, elementwise=True)  # fmt: skip
row("cast", "input", CAST, {"dtype": REQUIRED}, dtype=given, gradient={"input": "{grad}.astype({input}.dtype)"},
    elementwise=True)  # fmt: skip
row("nan_to_num", "input", NAN_TO_NUM, {"nan": 0.0, "posinf": None, "neginf": None}, elementwise=True,
    gradient={"input": "np.where(np.isfinite({input}), {grad}, 0)"})  # fmt: skip
row("buffer", "input", "{input}", gradient={"input": "{grad}"}, identity=lambda: True, elementwise=True)
row("detach", "input", DETACH, elementwise=True)
