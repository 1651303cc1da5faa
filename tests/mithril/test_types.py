"""Symbolic dimensions and dtype promotion."""

import pytest

from mithril.errors import DtypeError
from mithril.types import Dim, DType, apply, as_dtype, maximum, minimum, product, promote

b, h, w = Dim("b"), Dim("h"), Dim("w")


def test_equal_expressions_are_equal():
    assert (h - 1) // 2 + 1 == (h + 1) // 2
    assert ((h + 1) // 2 + 1) // 2 == (h + 3) // 4
    assert b * h == h * b
    assert hash(b + h) == hash(h + b)
    assert b * 2 != b * 3


def test_known_results_are_integers():
    assert b * h - h * b == 0
    assert b * 12 // 4 == 3 * b
    assert (b * 196 * 768) // (b * 12) == 12544
    assert (b * h) % b == 0
    assert apply("//", b * h * 7, 7 * b) == h
    assert minimum(3, 5) == 3
    assert maximum(b, b) == b


@pytest.mark.parametrize("size", [1, 7, 32, 224])
def test_substitution_agrees_with_integer_arithmetic(size):
    expression = ((h + 2 * 3 - 7) // 2 + 1) * w % 5 + minimum(h, 10)
    assert expression.substitute({"h": size, "w": 9}) == ((size - 1) // 2 + 1) * 9 % 5 + min(size, 10)
    assert eval(expression.source(), {"h": size, "w": 9}) == expression.substitute({"h": size, "w": 9})


def test_source_reads_like_python():
    assert str((h + 1) // 2) == "(h + 1) // 2"
    assert (3 * (h // 2) * b).source({"b": "batch"}) == "3 * (h // 2) * batch"
    assert str(product((b, 3, h))) == "3 * b * h"
    with pytest.raises(TypeError, match="not known yet"):
        range(b)


def test_promotion():
    assert promote(DType.int32, float) is DType.float32
    assert promote(DType.float16, float) is DType.float16
    assert promote(DType.float16, DType.bfloat16) is DType.float32
    assert promote(DType.uint8, DType.int8) is DType.int16
    assert promote(DType.bool, int) is DType.int64
    assert promote(int, float) is float


def test_dtype_names():
    assert as_dtype("torch.float32") is DType.float32
    assert as_dtype(float) is DType.float32
    with pytest.raises(DtypeError, match="Did you mean 'float32'"):
        as_dtype("flot32")
