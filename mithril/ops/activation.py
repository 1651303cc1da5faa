"""Activations."""

from typing import Any

from mithril.ops.rules import along, called, floating, floats_like, row
from mithril.ops.table import Call

SIGMOID = "np.exp(-np.logaddexp(0, -{input}))"
"""exp of the log keeps all digits of small values and does not overflow."""
SAME = "same"
BELOW = "mx.where({input} > 0, 0, {input})"
"""What is not positive; MLX gives no gradient to the first of two equal values, as in `mx.minimum(x, 0)` at 0."""


def activation(name: str, torch: str, jax: str, mlx: str, numpy: str, gradient: str, **attributes: Any) -> None:
    """A row for a function of `input`. `torch`, `jax` and `mlx` are templates, or the function's name: it is then
    called with those attributes that differ from the row's defaults. `SAME` is NumPy's template on MLX."""
    other = numpy.replace("np.", "{xp}.")
    texts = {"torch": torch, "jax": jax, "mlx": other if mlx == SAME else mlx, "numpy": other}
    code = {k: text if "{" in text else called(text, "input", **attributes) for k, text in texts.items()}
    row(name, "input", code, attributes, dtype=floating, gradient={"input": gradient}, elementwise=True)


activation("relu", "F.relu", "jax.nn.relu", "nn.relu", "np.maximum({input}, 0)", "{grad} * ({input} > 0)")
activation("relu6", "F.relu6", "jax.nn.relu6", "nn.relu6", "np.clip({input}, 0, 6)",
    "{grad} * (({input} > 0) & ({input} < 6))")  # fmt: skip
activation("leaky_relu", "F.leaky_relu", "jnp.where({input} > 0, {input}, {negative_slope} * {input})", SAME,
    "np.where({input} > 0, {input}, {negative_slope} * {input})",
    "np.where({input} > 0, {grad}, {negative_slope} * {grad})", negative_slope=0.01)  # fmt: skip
activation("sigmoid", "torch.sigmoid", "jax.nn.sigmoid", "mx.sigmoid", SIGMOID, "{grad} * {output} * (1 - {output})")
activation("silu", "F.silu", "jax.nn.silu", "nn.silu", "{input} * " + SIGMOID,
    "{grad} * " + SIGMOID + " * (1 + {input} * np.exp(-np.logaddexp(0, {input})))")  # fmt: skip
activation("softplus", "F.softplus", "jax.nn.softplus", SAME, "np.logaddexp({input}, 0)",
    "{grad} * " + SIGMOID)  # fmt: skip
activation("log_sigmoid", "F.logsigmoid", "jax.nn.log_sigmoid", SAME,
    "-np.logaddexp(-{input}, 0)", "{grad} * np.exp(-np.logaddexp(0, {input}))")  # fmt: skip
activation("softsign", "F.softsign", "jax.nn.soft_sign", SAME,
    "{input} / (1 + np.abs({input}))", "{grad} / np.square(1 + np.abs({input}))")  # fmt: skip
activation("elu", "F.elu", "jax.nn.elu", "mx.where({input} > 0, {input}, {alpha} * mx.expm1(" + BELOW + "))",
    "np.where({input} > 0, {input}, {alpha} * np.expm1(np.minimum({input}, 0)))",
    "np.where({input} > 0, {grad}, {grad} * {alpha} * np.exp(np.minimum({input}, 0)))", alpha=1.0)  # fmt: skip
activation("celu", "F.celu", "jax.nn.celu",
    "mx.where({input} > 0, {input}, {alpha} * mx.expm1(" + BELOW + " / {alpha}))",
    "np.where({input} > 0, {input}, {alpha} * np.expm1(np.minimum({input}, 0) / {alpha}))",
    "np.where({input} > 0, {grad}, {grad} * np.exp(np.minimum({input}, 0) / {alpha}))", alpha=1.0)  # fmt: skip
activation("selu", "F.selu", "jax.nn.selu",
    "1.0507009873554805 * mx.where({input} > 0, {input}, 1.6732632423543772 * mx.expm1(" + BELOW + "))",
    "1.0507009873554805 * np.where({input} > 0, {input}, 1.6732632423543772 * np.expm1(np.minimum({input}, 0)))",
    "1.0507009873554805 * np.where({input} > 0, {grad}, {grad} * 1.6732632423543772 * np.exp(np.minimum({input}, 0)))",
)  # fmt: skip
activation(
    "mish", "F.mish", "jax.nn.mish", SAME,
    "{input} * np.tanh(np.logaddexp({input}, 0))",
    "{grad} * (np.tanh(np.logaddexp({input}, 0)) + {input} * (1 - np.square(np.tanh(np.logaddexp({input}, 0)))) * "
    + SIGMOID + ")",
)  # fmt: skip
activation("hard_sigmoid", "F.hardsigmoid", "jax.nn.hard_sigmoid", SAME,
    "np.clip({input} / 6 + 0.5, 0, 1)", "{grad} * (np.abs({input}) < 3) / 6")  # fmt: skip
activation(
    "hard_swish", "F.hardswish", "jax.nn.hard_swish",
    "mx.where({input} >= 3, {input}, mx.clip({input}, -3, 3) * (mx.clip({input}, -3, 3) / 6 + 0.5))",
    "{input} * np.clip({input} / 6 + 0.5, 0, 1)",
    "{grad} * np.where({input} >= 3, 1, np.where({input} > -3, {input} / 3 + 0.5, 0)).astype({grad}.dtype)",
)  # fmt: skip
activation("hard_tanh", "F.hardtanh", "jnp.where(jnp.abs({input}) < 1, {input}, jnp.sign({input}))", SAME,
    "np.clip({input}, -1, 1)",
    "{grad} * (np.abs({input}) < 1)")  # fmt: skip


def gelu_numpy(call: Call) -> str:
    x = call["input"]
    if call.attributes["approximate"] == "tanh":
        return f"0.5 * {x} * (1 + np.tanh(math.sqrt(2 / math.pi) * ({x} + 0.044715 * {x}**3)))"
    return f"0.5 * {x} * (1 + erf({x} / math.sqrt(2)))"


GELU = {
    "torch": called("F.gelu", "input", approximate="none"),
    "jax": lambda call: f"jax.nn.gelu({call['input']}, approximate={call.attributes['approximate'] == 'tanh'})",
    "mlx": lambda call: f"nn.gelu{'_approx' if call.attributes['approximate'] == 'tanh' else ''}({call['input']})",
    "numpy": gelu_numpy,
}
PRELU = {
    "torch": "F.prelu({input}, {weight})",
    "any": "{xp}.where({input} > 0, {input}, channels({weight}, {input}) * {input})",
}

row("gelu", "input", GELU, {"approximate": "none"}, dtype=floating, elementwise=True,
    choices={"approximate": ("none", "tanh")},
    gradient={"input": "{grad} * gelu_slope({input}, {approximate})"})  # fmt: skip
row("prelu", "input weight", PRELU, signature="n c ..., c -> n c ...", dtype=floats_like, gradient={
    "input": "np.where({input} > 0, {grad}, channels({weight}, {input}) * {grad})",
    "weight": "affine_gradient(np.where({input} > 0, 0, {grad}), {input}, {weight}, None)[0]"})  # fmt: skip


def softmax(name: str, gradient: str, **others: str) -> None:
    code: dict[str, Any] = {
        "torch": f"F.{name}({{input}}, dim={{axis}})",
        "jax": called(f"jax.nn.{name}", "input", axis=-1),
        **others,
    }
    row(name, "input", code, {"axis": -1}, shape=along, dtype=floating, gradient={"input": gradient})


softmax("softmax", "{output} * ({grad} - ({grad} * {output}).sum(axis={axis}, keepdims=True))",
    mlx="mx.softmax({input}, axis={axis})")  # fmt: skip
softmax("log_softmax", "{grad} - np.exp({output}) * {grad}.sum(axis={axis}, keepdims=True)",
    mlx="{input} - mx.logsumexp({input}, axis={axis}, keepdims=True)",
    numpy="{input} - logsumexp({input}, {axis}, keepdims=True)")  # fmt: skip
