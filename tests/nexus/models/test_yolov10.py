"""YOLOv10, against what the paper says written once more: by layer numbers and the authors' names, and by loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from nexus import create_model, list_models, model_info
from nexus.layers.detector_input import fill_padding
from nexus.models.cv import YOLOv10
from nexus.models.cv.yolov10 import VARIANTS, YOLOv10Config, best_places
from nexus.ops.matching import BACKGROUND, match_aligned
from nexus.proofs.yolov10 import Written, in_the_authors_names

TINY = {
    "dims": (8, 8, 16, 24, 32),
    "depths": (1, 2, 1, 1),
    "num_classes": 5,
    "compact": ("stage5", "top_down4", "bottom_up5"),
    "large_kernel": ("stage5",),
    "num_bins": 8,
}
PUBLISHED = {  # with both heads, and without the one-to-many head; each with the 16 stored bins
    "yolov10n": (2_775_520, 2_310_624),
    "yolov10s": (8_128_272, 7_277_920),
    "yolov10m": (16_576_768, 15_389_968),
    "yolov10b": (20_574_384, 19_101_696),
    "yolov10l": (25_888_688, 24_416_000),
    "yolov10x": (31_808_960, 29_539_408),
}


def tiny(**changes):
    torch.manual_seed(0)
    model = YOLOv10({**TINY, **changes})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # statistics of normalizations that are not the trivial ones
        for name, value in model.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.2, generator=generator)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = YOLOv10(VARIANTS[name])
    both = model.num_parameters()
    alone = both - sum(p.numel() for p in model.one_to_many.parameters())
    assert (both + 16, alone + 16) == PUBLISHED[name]
    assert model_info(name).num_parameters == both


@pytest.mark.parametrize("image_size", [(64, 96), (96, 32)])
def test_values_equal_the_paper_written_once_more(image_size):
    model = tiny().double().eval()
    images = torch.rand(2, 3, *image_size, dtype=torch.double)
    written = Written(in_the_authors_names(model))
    outputs = model(images)
    maps = written.maps(images)
    logits, boxes = written.head(maps, "one2one_")
    torch.testing.assert_close(outputs["pred_logits"], logits, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(outputs["pred_boxes"], boxes, atol=1e-9, rtol=1e-10)


def test_gradients_equal_the_paper_written_once_more():
    model = tiny().double().eval()
    images = torch.rand(1, 3, 64, 64, dtype=torch.double)
    outputs = model(images)
    chance = torch.randn_like(outputs["pred_logits"])
    (outputs["pred_logits"] * chance).sum().backward()
    theirs = {key: value for key, value in in_the_authors_names(model).items() if value.is_floating_point()}
    leaves = {key: value.detach().clone().requires_grad_() for key, value in theirs.items()}
    written = Written(leaves)
    (written.head(written.maps(images), "one2one_")[0] * chance).sum().backward()
    slopes = YOLOv10.formats[0].to_ours({k: v.grad for k, v in leaves.items() if v.grad is not None})
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in slopes:
            largest = parameter.grad.abs().max()
            assert (slopes[name] - parameter.grad).abs().max() <= 1e-9 * largest, name
            compared += 1
    assert compared > 150


@pytest.mark.parametrize("prefix", ["", "model."])
def test_files_in_the_authors_names_load(tmp_path, prefix):
    model = tiny().eval()
    state = {prefix + key: value.float().contiguous() for key, value in in_the_authors_names(model).items()}
    save_file(state, tmp_path / "yolov10.safetensors")
    loaded = YOLOv10.from_pretrained(tmp_path / "yolov10.safetensors", **TINY)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded(images)["pred_boxes"], model(images)["pred_boxes"])
    assert not loaded.training


def test_the_authors_pickled_model_objects_load(tmp_path):
    model, whole = tiny().eval(), torch.nn.Module()
    for key, value in in_the_authors_names(model).items():
        *path, name = key.split(".")
        place = whole
        for word in path:
            if not hasattr(place, word):
                place.add_module(word, torch.nn.Module())
            place = place.get_submodule(word)
        place.register_buffer(name, value.half() if value.is_floating_point() else value)
    torch.save({"epoch": -1, "model": whole, "ema": None, "train_args": {"imgsz": 640}}, tmp_path / "yolov10n.pt")
    loaded = YOLOv10.from_pretrained(tmp_path / "yolov10n.pt", **TINY)
    images, rounded = torch.rand(1, 3, 64, 64), model.half().float()
    torch.testing.assert_close(loaded(images)["pred_boxes"], rounded(images)["pred_boxes"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_renames_reach_every_weight_of_the_published_variants(name):
    with torch.device("meta"):
        model = YOLOv10(VARIANTS[name])
        theirs = in_the_authors_names(model)
    ours = YOLOv10.formats[0].to_ours(theirs)
    assert ours.keys() == model.state_dict().keys()
    assert YOLOv10.formats[0].matches(theirs)
    assert f"model.22.m.{2 if name in ('yolov10l', 'yolov10x') else 0}.cv1.4.bn.weight" in theirs


# Matching and losses by loops.


def aligned_by_loops(scores, predicted, points, boxes, labels, top_k, alpha, beta):
    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        area = lambda c: (c[2] - c[0]) * (c[3] - c[1])  # noqa: E731
        return float(width * height / (area(a) + area(b) - width * height))

    wanted = {}
    measures = {}
    for m, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist())):
        rows = []
        for n, (x, y) in enumerate(points.tolist()):
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            u = overlap(box, predicted[n].tolist()) if inside else 0.0
            rows.append((float(scores[n, label]) ** alpha * u**beta, n, u, inside))
        for t, n, u, inside in sorted(rows, key=lambda row: -row[0])[:top_k]:
            if inside:
                wanted.setdefault(n, []).append((u, m))
                measures[m, n] = (t, u)
    matches, quality = [BACKGROUND] * len(points), [0.0] * len(points)
    for n, rows in wanted.items():
        matches[n] = max(rows, key=lambda row: row[0])[1]
    for n, m in enumerate(matches):
        if m != BACKGROUND:
            mine = [measures[m, other] for other, owner in enumerate(matches) if owner == m]
            quality[n] = measures[m, n][0] / max(t for t, _ in mine) * max(u for _, u in mine)
    return torch.tensor(matches), torch.tensor(quality, dtype=torch.double)


@pytest.mark.parametrize("top_k", [1, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_loops(top_k, seed):
    chance = torch.Generator().manual_seed(seed)
    points = torch.cartesian_prod(torch.arange(4.0, 64, 8), torch.arange(4.0, 64, 8)).flip(1).double()
    centre = points + torch.randn(64, 2, generator=chance).double()
    half = 4 + 12 * torch.rand(64, 2, generator=chance).double()
    predicted = torch.cat([centre - half, centre + half], 1)
    corner = 40 * torch.rand(5, 2, generator=chance).double()
    boxes = torch.cat([corner, corner + 6 + 20 * torch.rand(5, 2, generator=chance).double()], 1)
    scores, labels = torch.rand(64, 3, generator=chance).double(), torch.randint(3, (5,), generator=chance)
    matches, quality = match_aligned(scores, predicted, points, boxes, labels, top_k=top_k)
    expected, expected_quality = aligned_by_loops(scores, predicted, points, boxes, labels, top_k, 0.5, 6.0)
    assert (expected != BACKGROUND).sum() > 2
    torch.testing.assert_close(matches, expected)
    torch.testing.assert_close(quality, expected_quality, atol=1e-12, rtol=1e-9)


def test_nothing_to_match():
    points = torch.rand(7, 2)
    scores, predicted = torch.rand(7, 3), torch.rand(7, 4)
    matches, quality = match_aligned(
        scores, predicted, points, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), top_k=3
    )
    assert (matches == BACKGROUND).all()
    assert not quality.any()


def test_losses_equal_loops():
    model = tiny(shared_gradient=True).double().eval()
    images = torch.rand(2, 3, 64, 64, dtype=torch.double)
    targets = [
        {"boxes": torch.tensor([[4.0, 6, 40, 50], [30, 30, 60, 62]]).double(), "labels": torch.tensor([1, 4])},
        {"boxes": torch.tensor([[10.0, 10, 25, 33]]).double(), "labels": torch.tensor([0])},
    ]
    with torch.no_grad():
        losses = model(images, targets)["losses"]
    written = Written(in_the_authors_names(model))
    maps = written.maps(images)
    points = torch.tensor(
        [((c + 0.5) * s, (r + 0.5) * s) for s in (8, 16, 32) for r in range(64 // s) for c in range(64 // s)]
    ).double()
    strides = torch.tensor([s for s in (8, 16, 32) for _ in range((64 // s) ** 2)]).double()
    for head, prefix, top_k in (("one_to_one", "one2one_", 1), ("one_to_many", "", 10)):
        logits, boxes = written.head(maps, prefix)
        classification = box = bins = total = 0.0
        for image, target in enumerate(targets):
            matches, quality = aligned_by_loops(
                logits[image].sigmoid(), boxes[image], points, target["boxes"], target["labels"], top_k, 0.5, 6.0
            )
            total += float(quality.sum())
            for n in range(len(points)):
                for k in range(5):
                    hit = matches[n] >= 0 and target["labels"][matches[n]] == k
                    want, p = (float(quality[n]) if hit else 0.0), float(logits[image, n, k].sigmoid())
                    classification -= want * math.log(p) + (1 - want) * math.log(1 - p)
                if matches[n] < 0:
                    continue
                mine, found = target["boxes"][matches[n]], boxes[image, n]
                box += float(quality[n]) * (1 - complete_iou(found.tolist(), mine.tolist()))
                sides = torch.cat([points[n] - mine[:2], mine[2:] - points[n]]) / strides[n]
                shares = distribution_at(written, maps, prefix, image, n)
                for side in range(4):
                    place = min(float(sides[side]), 8 - 1.01)
                    low = int(place)
                    cross = -(low + 1 - place) * math.log(shares[side][low]) - (place - low) * math.log(
                        shares[side][low + 1]
                    )
                    bins += float(quality[n]) * cross / 4
        assert float(losses[f"classification_{head}"]) == pytest.approx(0.5 * classification / max(total, 1), rel=1e-9)
        assert float(losses[f"box_{head}"]) == pytest.approx(7.5 * box / max(total, 1), rel=1e-9)
        assert float(losses[f"bins_{head}"]) == pytest.approx(1.5 * bins / max(total, 1), rel=1e-9)


def complete_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    turn = 4 / math.pi**2 * (math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1]))) ** 2
    iou = overlap / union
    return iou - apart / hull - turn * turn / (1 - iou + turn)


def distribution_at(written, maps, prefix, image, n):
    for level, x in enumerate(maps):
        count = x.shape[2] * x.shape[3]
        if n < count:
            name = f"model.23.{prefix}cv2.{level}"
            y = written.unit(written.unit(x, f"{name}.0"), f"{name}.1")
            sides = F.conv2d(y, written.state[f"{name}.2.weight"], written.state[f"{name}.2.bias"])
            return sides[image].flatten(1)[:, n].view(4, -1).softmax(-1).tolist()
        n -= count
    raise AssertionError


def test_only_the_one_to_many_head_trains_the_backbone_unless_asked():
    images = torch.rand(1, 3, 64, 64)
    targets = [{"boxes": torch.tensor([[4.0, 6, 40, 50]]), "labels": torch.tensor([1])}]
    for shared in (False, True):
        model = tiny(shared_gradient=shared).train()
        losses = model(images, targets)["losses"]
        sum(value for name, value in losses.items() if name.endswith("one_to_one")).backward()
        assert (model.stem.conv.weight.grad is not None) is shared
        assert model.one_to_one.cls[0][2].weight.grad.abs().sum() > 0


# What a detector owes.


def test_seeds_code_runs():
    model = YOLOv10({"in_channels": 3, "num_classes": 80})
    outputs = model.eval()(torch.rand(1, 3, 64, 64))
    assert outputs["boxes"][0].shape == (300, 4)
    assert outputs["scores"][0].shape == (300,)
    assert list_models("yolov10*") == sorted(PUBLISHED)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 500), (8, 2)])
def test_channels_and_classes_train_and_predict(channels, classes):
    model = tiny(in_channels=channels, num_classes=classes).train()
    images = [torch.rand(channels, 40, 70), torch.rand(channels, 64, 33), torch.rand(channels, 32, 32)]
    targets = [
        {"boxes": torch.tensor([[3.0, 3, 30, 20], [5, 5, 6, 6]]), "labels": torch.tensor([0, classes - 1])},
        {"boxes": torch.tensor([[-10.0, -5, 50, 80]]), "labels": torch.tensor([0])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    losses = model(images, targets)["losses"]
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    outputs = model.eval()(images)
    for boxes, image in zip(outputs["boxes"], images):
        assert (boxes[:, 0] >= 0).all()
        assert (boxes[:, 2] <= image.shape[2]).all()
        assert (boxes[:, 3] <= image.shape[1]).all()


def test_a_batch_without_objects_trains():
    model = tiny().train()
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = model(torch.rand(2, 3, 32, 32), [target, target])["losses"]
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert losses["box_one_to_one"] == 0
    assert all(p.grad is not None for p in model.parameters())


def test_images_of_a_batch_do_not_mix_and_padding_is_grey():
    model = tiny().eval()
    small, large = torch.rand(3, 32, 64), torch.rand(3, 64, 64)
    padded = torch.zeros(2, 3, 64, 64)
    padded[0, :, :32], padded[1] = small, large
    together = model(padded, image_sizes=[(32, 64), (64, 64)])
    alone = model(large[None])
    torch.testing.assert_close(together["pred_logits"][1:], alone["pred_logits"])
    grey = torch.full((3, 64, 64), 114 / 255)
    grey[:, :32] = small
    torch.testing.assert_close(together["pred_logits"][:1], model(grey[None])["pred_logits"])
    assert torch.equal(fill_padding(padded, torch.tensor([[64, 64], [64, 64]]), 0.5), padded)


def test_the_best_places_come_first_and_only_so_many():
    logits = torch.tensor([[[3.0, 2.9], [0.0, -1.0], [2.95, -5.0]]])
    boxes = torch.tensor([[[0.0, 0, 9, 9], [1, 1, 4, 4], [-3, 2, 99, 5]]])
    found = best_places(logits, boxes, torch.tensor([[8, 8]]), 2)  # the two best places are the first and the third
    assert found["labels"][0].tolist() == [0, 0]
    assert found["boxes"][0].tolist() == [[0, 0, 8, 8], [0, 2, 8, 5]]
    torch.testing.assert_close(found["scores"][0], torch.tensor([3.0, 2.95]).sigmoid())


def test_a_fused_model_gives_the_same_with_less():
    model = tiny().double().eval()
    images = torch.rand(2, 3, 64, 96, dtype=torch.double)
    before = model(images)
    count = model.num_parameters()
    fused = model.fuse()
    assert fused is model
    assert fused.one_to_many is None
    torch.testing.assert_close(fused(images)["pred_logits"], before["pred_logits"], atol=1e-10, rtol=1e-10)
    assert fused.num_parameters() < 0.85 * count
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    fused.fuse()
    torch.testing.assert_close(fused(images)["pred_logits"], before["pred_logits"], atol=1e-10, rtol=1e-10)


def test_gradient_checkpointing_changes_nothing():
    images = torch.rand(1, 3, 64, 64)
    targets = [{"boxes": torch.tensor([[4.0, 6, 40, 50]]), "labels": torch.tensor([1])}]
    gradients = []
    for enabled in (False, True):
        model = tiny(shared_gradient=True).train().set_gradient_checkpointing(enabled)
        sum(model(images, targets)["losses"].values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_export_to_a_graph():
    model = tiny().eval()
    images = torch.rand(1, 3, 64, 64)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images)["pred_boxes"], model(images)["pred_boxes"])


def test_weights_survive_saving_and_another_number_of_classes(tmp_path):
    model = tiny().eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(YOLOv10.from_pretrained(tmp_path)(images)["scores"], model(images)["scores"])
    other = YOLOv10.from_pretrained(tmp_path, num_classes=2)
    torch.testing.assert_close(other.stem.conv.weight, model.stem.conv.weight)
    torch.testing.assert_close(other.one_to_one.box[0][2].weight, model.one_to_one.box[0][2].weight)
    assert other(images)["pred_logits"].shape[-1] == 2


def test_errors():
    with pytest.raises(ValueError, match=r"There is no stage 'stage6'\. Did you mean 'stage"):
        YOLOv10Config(compact=("stage6",))
    with pytest.raises(ValueError, match="large_kernel names stage4; only stages in compact"):
        YOLOv10Config(compact=(), large_kernel=("stage4",))
    with pytest.raises(ValueError, match="each must be a multiple of 4"):
        YOLOv10Config(dims=(8, 8, 16, 22, 32))
    with pytest.raises(ValueError, match="num_classes is 0"):
        YOLOv10Config(num_classes=0)
    with pytest.raises(ValueError, match="each image needs one"):
        tiny()(torch.rand(2, 3, 64, 64), [])


def test_created_by_name():
    model = create_model("yolov10n", num_classes=3, dims=(8, 8, 16, 16, 32))
    assert model.task == "detection"
    assert model.preprocessing.mean == (0, 0, 0)
