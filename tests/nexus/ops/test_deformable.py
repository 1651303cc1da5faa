"""Deformable attention against plain loops in float64, and against transformers."""

import importlib
import math

import pytest
import torch

from nexus.ops.deformable import deformable_attention

SIZES, POINTS = [(5, 7), (3, 4), (1, 2)], [2, 3, 1]
LENGTH = sum(h * w for h, w in SIZES)


def inputs(dtype=torch.float64, batch=2, queries=3, heads=2, width=4):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(batch, LENGTH, heads, width, generator=generator, dtype=dtype)
    locations = torch.rand(batch, queries, heads, 6, 2, generator=generator, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, 6, generator=generator, dtype=dtype)
    return values, locations, weights


def plain_attention(values, locations, weights, method):
    batch, queries, heads, _ = weights.shape
    out = torch.zeros(batch, queries, heads, values.shape[-1], dtype=values.dtype)
    starts = [0, *torch.tensor([h * w for h, w in SIZES]).cumsum(0).tolist()]
    levels = [level for level, points in enumerate(POINTS) for _ in range(points)]
    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                for s, level in enumerate(levels):
                    (h, w), (x, y) = SIZES[level], locations[b, q, head, s].tolist()

                    def read(row, column, level=level, h=h, w=w, b=b, head=head):
                        inside = 0 <= row < h and 0 <= column < w
                        return values[b, starts[level] + row * w + column, head] if inside else 0

                    if method == "nearest":
                        row, column = min(max(int(y * h + 0.5), 0), h - 1), min(max(int(x * w + 0.5), 0), w - 1)
                        value = read(row, column)
                    else:
                        x, y = x * w - 0.5, y * h - 0.5
                        x0, y0 = math.floor(x), math.floor(y)
                        value = sum(
                            read(y0 + i, x0 + j) * (1 - abs(y - y0 - i)) * (1 - abs(x - x0 - j))
                            for i in (0, 1)
                            for j in (0, 1)
                        )
                    out[b, q, head] += weights[b, q, head, s] * value
    return out.flatten(2)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_equals_the_plain_loop(method):
    values, locations, weights = inputs()
    ours = deformable_attention(values, SIZES, locations, weights, POINTS, method=method)
    torch.testing.assert_close(ours, plain_attention(values, locations, weights, method), rtol=1e-12, atol=1e-12)


def test_gradients():
    values, locations, weights = (tensor.requires_grad_() for tensor in inputs(batch=1, queries=2, width=2))
    assert torch.autograd.gradcheck(
        lambda v, p, w: deformable_attention(v, SIZES, p, w, POINTS), (values, locations, weights)
    )


@pytest.mark.parametrize("method", ["default", "discrete"])
def test_equals_transformers(transformers, method):
    theirs = importlib.import_module("transformers.models.rt_detr_v2.modeling_rt_detr_v2")
    values, locations, weights = (tensor.requires_grad_() for tensor in inputs(torch.float32))
    expected = theirs.multi_scale_deformable_attention_v2(values, SIZES, locations, weights, POINTS, method)
    grads = torch.autograd.grad(expected.square().sum(), (values, weights))
    ours = deformable_attention(
        values, SIZES, locations, weights, POINTS, method="nearest" if method == "discrete" else "bilinear"
    )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    for mine, other in zip(torch.autograd.grad(ours.square().sum(), (values, weights)), grads):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_exports_with_plain_operators():
    class Attend(torch.nn.Module):
        def forward(self, values, locations, weights):
            return deformable_attention(values, SIZES, locations, weights, POINTS)

    arguments = inputs(torch.float32)
    program = torch.export.export(Attend(), arguments)
    assert not any("embedding" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Attend()(*arguments), rtol=1e-5, atol=1e-6)


def test_errors():
    values, locations, weights = inputs()
    with pytest.raises(ValueError, match=r"The levels \[\(5, 7\)\] have 35 tokens; values have 49"):
        deformable_attention(values, [(5, 7)], locations, weights, [6])
    with pytest.raises(ValueError, match=r"num_points is \[2, 2, 1\] for 3 levels and 6 weights"):
        deformable_attention(values, SIZES, locations, weights, [2, 2, 1])
    with pytest.raises(ValueError, match="locations have the shape"):
        deformable_attention(values, SIZES, locations[:, :1], weights, POINTS)
