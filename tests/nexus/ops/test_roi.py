"""Region pooling against plain loops in float64, and against torchvision."""

import importlib
import math
from types import SimpleNamespace

import pytest
import torch

from nexus.ops.boxes import clip_boxes, is_large
from nexus.ops.compiled import compiled_ops
from nexus.ops.roi import roi_align, roi_pool

# torchvision's Python form of roi_align is compiled on first use, by a part of torch that warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script")

BOXES = torch.tensor(
    [
        [0.0, 0, 40, 30],
        [3.3, 7.1, 21.9, 28.4],
        [10, 10, 11, 11],
        [12.5, 4.5, 12.5, 4.5],
        [-20, -15, 12, 9],
        [30, 20, 90, 80],
        [200, 200, 260, 230],
        [5, 5, 37, 7],
    ],
    dtype=torch.float64,
)
IMAGES = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])


def maps(channels=3, dtype=torch.float64):
    return torch.randn(2, channels, 12, 15, generator=torch.Generator().manual_seed(0), dtype=dtype)


def plain_bilinear(image, y, x):
    height, width = image.shape[-2:]
    if y < -1 or y > height or x < -1 or x > width:
        return image[:, 0, 0] * 0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    b, a = y - y0, x - x0
    top = image[:, y0, x0] * (1 - a) + image[:, y0, x1] * a
    bottom = image[:, y1, x0] * (1 - a) + image[:, y1, x1] * a
    return top * (1 - b) + bottom * b


def plain_roi_align(features, boxes, images, size, scale, ratio, aligned):
    out = torch.zeros(len(boxes), features.shape[1], *size, dtype=features.dtype)
    for n, (box, image) in enumerate(zip(boxes.tolist(), images.tolist())):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in box)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        bin_h, bin_w = height / size[0], width / size[1]
        down, across = (ratio, ratio) if ratio else (math.ceil(bin_h), math.ceil(bin_w))
        for i in range(size[0]):
            for j in range(size[1]):
                for u in range(down):
                    for v in range(across):
                        y, x = y1 + bin_h * (i + (u + 0.5) / down), x1 + bin_w * (j + (v + 0.5) / across)
                        out[n, :, i, j] += plain_bilinear(features[image], y, x) / (down * across)
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 2), (7, 7)])
def test_align_equals_the_plain_loop(aligned, ratio, size):
    expected = plain_roi_align(maps(), BOXES, IMAGES, size, 0.4, ratio, aligned)
    ours = roi_align(maps(), BOXES, IMAGES, size, spatial_scale=0.4, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_align_equals_torchvision_in_value_and_gradient(torchvision, monkeypatch, aligned, ratio):
    from torchvision.ops.roi_align import _roi_align

    # torchvision's Python form reads the border for samples far outside, where its compiled one and ours read 0.
    boxes = clip_boxes(BOXES.float(), (24, 30))
    boxes, images = boxes[is_large(boxes, 1)], IMAGES[is_large(boxes, 1)]
    assert len(boxes) == 5
    regions = torch.cat([images[:, None].float(), boxes], 1)
    theirs_in, ours_in = (maps(dtype=torch.float32).requires_grad_() for _ in range(2))
    with torch.compiler.set_stance("force_eager"):
        theirs = _roi_align(theirs_in, regions, 0.5, 7, 7, ratio, aligned)
    ours = roi_align(ours_in, boxes, images, (7, 7), spatial_scale=0.5, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weight = torch.randn(theirs.shape)
    (theirs * weight).sum().backward()
    (ours * weight).sum().backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-5, atol=1e-5)


@pytest.fixture
def operators(torchvision):
    """torchvision's compiled ones where they were built for this torch; elsewhere its Python form is called likewise."""
    reference = importlib.import_module("torchvision.ops.roi_align")._roi_align
    return compiled_ops() or SimpleNamespace(roi_align=reference)


def test_the_compiled_operator_gives_the_same(operators, monkeypatch):
    features, boxes = maps(dtype=torch.float32), clip_boxes(BOXES.float(), (24, 30))
    pure = roi_align(features, boxes, IMAGES, (4, 4), spatial_scale=0.5, sampling_ratio=2)
    monkeypatch.setattr("nexus.ops.roi.compiled_ops", lambda: operators)
    with torch.compiler.set_stance("force_eager"):
        compiled = roi_align(features, boxes, IMAGES, (4, 4), spatial_scale=0.5, sampling_ratio=2)
    torch.testing.assert_close(pure, compiled, rtol=1e-5, atol=1e-5)


def test_align_gradient():
    features = maps(channels=1)[:, :, :5, :6].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: roi_align(f, BOXES[:5], IMAGES[:5], (2, 2), spatial_scale=0.2), (features,)
    )


def test_align_in_chunks_is_the_same(monkeypatch):
    whole = roi_align(maps(), BOXES, IMAGES, (3, 3), spatial_scale=0.4, sampling_ratio=2)
    monkeypatch.setattr("nexus.ops.roi.CHUNK", 300)
    assert torch.equal(roi_align(maps(), BOXES, IMAGES, (3, 3), spatial_scale=0.4, sampling_ratio=2), whole)


def test_align_exports():
    class Pool(torch.nn.Module):
        def forward(self, features, boxes, images):
            return roi_align(features, boxes, images, (3, 3), spatial_scale=0.4, sampling_ratio=2)

    arguments = (maps(), BOXES, IMAGES)
    program = torch.export.export(Pool(), arguments)
    assert not any("embedding" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Pool()(*arguments))


def plain_roi_pool(features, boxes, images, size, scale):
    height, width = features.shape[-2:]
    out = torch.zeros(len(boxes), features.shape[1], *size, dtype=features.dtype)
    for n, (box, image) in enumerate(zip(boxes.tolist(), images.tolist())):
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(v * scale) + 0.5), v) for v in box)
        step_y, step_x = max(y2 - y1 + 1, 1) / size[0], max(x2 - x1 + 1, 1) / size[1]
        for i in range(size[0]):
            for j in range(size[1]):
                ys = [y for y in range(height) if math.floor(i * step_y) + y1 <= y < math.ceil((i + 1) * step_y) + y1]
                xs = [x for x in range(width) if math.floor(j * step_x) + x1 <= x < math.ceil((j + 1) * step_x) + x1]
                if ys and xs:
                    out[n, :, i, j] = features[image][:, ys][:, :, xs].amax((1, 2))
    return out


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7)])
def test_pool_equals_the_plain_loop(size):
    expected = plain_roi_pool(maps(), BOXES, IMAGES, size, 0.4)
    assert torch.equal(roi_pool(maps(), BOXES, IMAGES, size, spatial_scale=0.4), expected)


def test_the_compiled_pool_is_called_the_same_way(monkeypatch):
    def pool(features, regions, scale, height, width):
        pooled = plain_roi_pool(features, regions[:, 1:], regions[:, 0].long(), (height, width), scale)
        return pooled, torch.zeros(pooled.shape, dtype=torch.int32)

    operators = compiled_ops() or SimpleNamespace(roi_pool=pool)
    monkeypatch.setattr("nexus.ops.roi.compiled_ops", lambda: operators)
    expected = plain_roi_pool(maps(), BOXES, IMAGES, (2, 3), 0.4)
    assert torch.equal(roi_pool(maps(), BOXES, IMAGES, (2, 3), spatial_scale=0.4), expected)


def test_pool_gradient_goes_to_the_maximum():
    features = maps().requires_grad_()
    pooled = roi_pool(features, BOXES[:1], IMAGES[:1], (1, 1), spatial_scale=0.3)
    pooled.sum().backward()
    assert features.grad.sum() == 3
    assert set(features.grad.unique().tolist()) == {0.0, 1.0}


def test_no_regions():
    none, nowhere = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    features = maps(dtype=torch.float32)
    assert roi_align(features, none, nowhere, (7, 7)).shape == (0, 3, 7, 7)
    assert roi_align(features, none, nowhere, (7, 7), sampling_ratio=2).shape == (0, 3, 7, 7)
    assert roi_pool(features, none, nowhere, (7, 7)).shape == (0, 3, 7, 7)


def test_errors():
    with pytest.raises(ValueError, match=r"boxes have the shape \(8, 4\) and image_index \(3,\); they must be"):
        roi_align(maps(), BOXES, IMAGES[:3], (7, 7))
    with pytest.raises(
        ValueError, match=r"output_size is \(0, 7\) on maps of \(12, 15\) pixels; all must be at least 1"
    ):
        roi_align(maps(), BOXES, IMAGES, (0, 7))


def test_align_reads_16_bit_maps_at_exact_places(operators, monkeypatch):
    features, boxes = maps(dtype=torch.bfloat16), clip_boxes(BOXES.float(), (24, 30))
    wanted = roi_align(features.float(), boxes, IMAGES, (4, 4), spatial_scale=0.5, sampling_ratio=2)
    pure = roi_align(features, boxes, IMAGES, (4, 4), spatial_scale=0.5, sampling_ratio=2)
    monkeypatch.setattr("nexus.ops.roi.compiled_ops", lambda: operators)
    with torch.compiler.set_stance("force_eager"):
        compiled = roi_align(features, boxes, IMAGES, (4, 4), spatial_scale=0.5, sampling_ratio=2)
    for pooled in (pure, compiled):
        assert pooled.dtype == torch.bfloat16
        torch.testing.assert_close(pooled.float(), wanted, rtol=2e-2, atol=2e-2)
