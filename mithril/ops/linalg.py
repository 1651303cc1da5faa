"""Products and their inverses: matmul, linear, einsum, outer, solve, cholesky."""

from mithril.errors import OperatorError, ShapeError
from mithril.ops.rules import broadcast, called, differ, floating, merge, promote_list, row
from mithril.ops.table import REQUIRED, Call
from mithril.types import Dimension, DType, Shape, promote


def matmul_shape(left: Shape, right: Shape) -> Shape:
    if not left or not right:
        raise ShapeError("matmul: both operands need at least one dimension.")
    inner, place = (right[-2], "second last") if len(right) > 1 else (right[0], "only")
    if differ(left[-1], inner):
        raise ShapeError(
            f"matmul: {left} @ {right}: the last size {left[-1]} of the left operand must equal "
            f"the {place} size {inner} of the right."
        )
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    return (*broadcast(left[:-2], right[:-2]), *rows, *columns)


def einsum_terms(equation, ranks):
    """Letters of the operands' axes and of the output's. An ellipsis becomes letters that the equation leaves free, the
    last axis first; without an arrow, the output has it and the letters that occur once, in alphabetical order."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBAzyxwvutsrqponmlkjihgfedcba" if letter not in equation]
    terms, widest = [], ""
    for term, rank in zip(left.split(","), ranks):
        count = rank - len(term.replace("...", "")) if "..." in term else 0
        widest = max(widest, "".join(free[:count][::-1]), key=len)
        terms.append(term.replace("...", "".join(free[:count][::-1])))
    if not arrow:
        output = "..." + "".join(sorted(letter for letter in left if letter not in ".," and left.count(letter) == 1))
    return terms, output.replace("...", widest)


def einsum_shape(shapes: tuple[Shape, ...], *, equation: str) -> Shape:
    left, arrow, output = equation.partition("->")
    named = left.count(",") + 1
    if named != len(shapes):
        raise ShapeError(f"einsum: '{equation}' names {named} operands, there are {len(shapes)}.")
    if arrow and ("..." in left) != ("..." in output):
        raise ShapeError(f"einsum: '{equation}' has an ellipsis on one side only; write it on both.")
    terms, output = einsum_terms(equation, list(map(len, shapes)))
    sizes: dict[str, Dimension] = {}
    for term, shape in zip(terms, shapes):
        if len(term) != len(shape):
            raise ShapeError(f"einsum: '{term}' names {len(term)} axes, the operand has shape {shape}.")
        for axis, size in zip(term, shape):
            if axis not in equation:
                (sizes[axis],) = broadcast((sizes.get(axis, 1),), (size,))
            elif axis in sizes and differ(sizes[axis], size):
                raise ShapeError(f"einsum: axis '{axis}' of '{equation}' is {sizes[axis]} and {size}.")
            else:
                sizes[axis] = merge(sizes.get(axis, size), size)
    return tuple(sizes[axis] for axis in output)


def linear_any(call: Call) -> str:
    """`x @ w.T + b`."""
    text = f"{call['input']} @ {call['weight']}.T"
    return text if call.inputs.get("bias") is None else f"{text} + {call['bias']}"


def matmul_mlx(call: Call) -> str:
    """MLX multiplies matrices of floats only."""
    dtypes = [call.dtypes.get(side) for side in ("left", "right")]
    left, right = call["left"], call["right"]
    return f"{left} @ {right}" if any(map(_may_be_float, dtypes)) else f"integer_matmul({left}, {right})"


def einsum_mlx(call: Call) -> str:
    if not any(map(_may_be_float, call.dtypes.get("input") or (None,))):
        raise OperatorError("MLX's einsum multiplies floats only; cast the integers, as in x.cast(ml.float32).")
    return f"mx.einsum({call['equation']}, {call['*input']})"


def _may_be_float(dtype: object) -> bool:
    return not isinstance(dtype, DType) or dtype.is_floating


LINEAR = {"torch": called("F.linear", "input", "weight", "bias"), "any": linear_any}
LINEAR_GRADIENT = {
    "input": "{grad} @ {weight}",
    "weight": "{grad}.reshape(-1, {weight}.shape[0]).T @ {input}.reshape(-1, {weight}.shape[1])",
    "bias": "unbroadcast({grad}, {bias}.shape)",
}
CHOLESKY = {
    "any": "{xp}.linalg.cholesky({input})",
    "numpy": "np.linalg.cholesky(({input} + {input}.swapaxes(-1, -2)) / 2)",
}

row("matmul", "left right", {"any": "{left} @ {right}", "mlx": matmul_mlx}, shape=matmul_shape, dtype=promote,
    numbers=True, gradient={"left right": "matmul_gradient({grad}, {left}, {right})"})  # fmt: skip
row("linear", "input weight bias?", LINEAR, signature="... i, o i, o -> ... o", dtype=floating,
    gradient=LINEAR_GRADIENT)  # fmt: skip
row("einsum", "*input", {"any": "{xp}.einsum({equation}, {*input})", "mlx": einsum_mlx}, {"equation": REQUIRED},
    shape=einsum_shape, dtype=promote_list, numbers=True,
    gradient={"input": "einsum_gradient({grad}, {input}, {equation})"})  # fmt: skip
row("outer", "left right", "{xp}.outer({left}, {right})", signature="i, j -> i j", dtype=promote, numbers=True,
    gradient={"left": "{grad} @ {right}", "right": "{left} @ {grad}"})  # fmt: skip
row("inverse", "input", "{xp}.linalg.inv({input})", signature="... n n -> ... n n", dtype=floating,
    gradient={"input": "-{output}.swapaxes(-1, -2) @ {grad} @ {output}.swapaxes(-1, -2)"})  # fmt: skip
row("solve", "left right", "{xp}.linalg.solve({left}, {right})", signature="... n n, ... n k -> ... n k",
    dtype=floating, gradient={"left right": "solve_gradient({grad}, {left}, {right}, {output})"})  # fmt: skip
row("cholesky", "input", CHOLESKY, signature="... n n -> ... n n", dtype=floating,
    gradient={"input": "cholesky_gradient({grad}, {output})"})  # fmt: skip
