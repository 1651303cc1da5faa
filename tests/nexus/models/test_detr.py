"""DETR against transformers, and what it owes by itself."""

import pytest
import torch
from torch import nn

from nexus.core.formats import to_our_names
from nexus.core.weights import load_weights
from nexus.layers.frozen_norm import FrozenBatchNorm2d
from nexus.models.cv import DETR, DETRConfig
from nexus.models.registry import create_model
from nexus.proofs.detr import detr_arguments, detr_authors_names, enliven_detr, hub_detr, run_detr

TINY = DETRConfig(
    num_classes=7,
    backbone="resnet18",
    embed_dim=32,
    num_layers=(2, 3),
    num_heads=4,
    hidden_dim=48,
    num_queries=6,
)
LOSSES = {"classification": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


def reference(transformers, **changes):
    """transformers' DETR of the same sizes, with weights that make its answers differ."""
    torch.manual_seed(0)
    model = hub_detr(transformers, TINY.replace(**changes))
    enliven_detr(model)
    return model


def pair(transformers, **changes):
    theirs = reference(transformers)
    ours = DETR(TINY.replace(**changes)).eval()
    state, spelling = to_our_names(theirs.state_dict(), ours.formats)
    assert spelling == "hub"
    ours.load_state_dict(state)
    return ours, theirs


def scene(dtype=torch.float64):
    """Two images of different sizes; the second one is without objects."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(3, *size, generator=generator, dtype=dtype) for size in ((96, 130), (70, 96))]
    boxes = torch.tensor([[5, 8, 40, 44], [30, 20, 90, 60], [50, 2, 61, 15]], dtype=dtype)
    full = {"boxes": boxes, "labels": torch.tensor([0, 6, 1])}
    return images, [full, {"boxes": torch.zeros(0, 4, dtype=dtype), "labels": torch.zeros(0, dtype=torch.long)}]


def predict(model, images, targets):
    arguments = detr_arguments(images, targets)
    with torch.no_grad():
        return model(pixel_values=arguments["pixel_values"], pixel_mask=arguments["pixel_mask"])


@pytest.mark.parametrize(
    ("dtype", "tolerance", "for_gradients"), [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 3e-4)]
)
def test_values_losses_and_gradients_equal_transformers(transformers, dtype, tolerance, for_gradients):
    ours, theirs = (model.to(dtype) for model in pair(transformers, dropout=0.0, num_frozen_stages=0))
    images, targets = scene(dtype)
    wanted, loss, losses = run_detr(theirs, images, targets)
    found = ours(images, targets)
    near = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found["pred_logits"], wanted.logits, **near)
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes, **near)
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    names = {f"{name}{suffix}": (key, suffix) for name, key in LOSSES.items() for suffix in ("", "_0", "_1")}
    assert found["losses"].keys() == names.keys()
    for name, (key, suffix) in names.items():
        value = weights[key] * losses[key + suffix]
        torch.testing.assert_close(found["losses"][name], value, msg=name, **near)
    loss.backward()
    total = sum(found["losses"].values())
    torch.testing.assert_close(total, loss, **near)
    total.backward()
    gradients, _ = to_our_names({k: p.grad for k, p in theirs.named_parameters() if p.grad is not None}, ours.formats)
    trained = {key for key, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == gradients.keys()
    for key, parameter in ours.named_parameters():
        if key in trained:
            atol = for_gradients * max(1.0, gradients[key].abs().max().item())
            torch.testing.assert_close(parameter.grad, gradients[key], rtol=0, atol=atol, msg=key)


def test_detections_equal_transformers(transformers):
    ours, theirs = (model.double() for model in pair(transformers))
    images, targets = scene()
    with torch.no_grad():
        wanted, found = predict(theirs, images, targets), ours(images)
    processor = transformers.DetrImageProcessorPil()
    results = processor.post_process_object_detection(
        wanted, threshold=0.0, target_sizes=torch.tensor([image.shape[1:] for image in images])
    )
    for place, result in enumerate(results):
        order = result["scores"].argsort(descending=True, stable=True)
        torch.testing.assert_close(found["scores"][place].double(), result["scores"][order], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found["boxes"][place], result["boxes"][order], rtol=1e-8, atol=1e-6)
        assert torch.equal(found["labels"][place], result["labels"][order])


def test_the_dilated_stage_equals_timms(transformers):
    theirs = reference(transformers, backbone="resnet50", dilation=True).double()
    ours = DETR(TINY.replace(backbone="resnet50", dilation=True)).double().eval()
    ours.load_state_dict(to_our_names(theirs.state_dict(), ours.formats)[0])
    images, targets = scene()
    with torch.no_grad():
        wanted, found = predict(theirs, images, targets), ours(images)
    assert found["features"][-1].shape[-2:] == found["features"][-2].shape[-2:] == (6, 9)
    torch.testing.assert_close(found["pred_logits"], wanted.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes, rtol=1e-9, atol=1e-9)


def test_files_of_the_authors_load(transformers, tmp_path):
    theirs = reference(transformers).double()
    state = detr_authors_names(theirs.state_dict())
    assert "transformer.decoder.layers.2.multihead_attn.in_proj_weight" in state
    torch.save({"model": state}, tmp_path / "detr.pth")
    ours = DETR(TINY).double().eval()
    load_weights(ours, tmp_path / "detr.pth")
    images, targets = scene()
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images)["pred_boxes"], predict(theirs, images, targets).pred_boxes, rtol=1e-9, atol=1e-9
        )


def test_folders_of_the_hub_load(transformers, tmp_path):
    theirs = reference(transformers)
    theirs.save_pretrained(tmp_path)  # in the names of version 4
    ours = DETR.from_pretrained(tmp_path)
    assert ours.config == TINY
    assert ours.class_names == tuple(f"LABEL_{k}" for k in range(7))
    images, targets = scene(torch.float32)
    with torch.no_grad():
        wanted = predict(theirs, images, targets)
        torch.testing.assert_close(ours(images)["pred_logits"], wanted.logits, rtol=1e-4, atol=1e-5)


def test_published_parameter_counts():
    counts = {
        "detr_resnet50": 41_524_768,
        "detr_resnet50_dc5": 41_524_768,
        "detr_resnet101": 60_464_672,
        "detr_resnet101_dc5": 60_464_672,
    }
    for name, count in counts.items():
        with torch.device("meta"):
            model = create_model(name)
        assert model.num_parameters() == model.card.num_parameters == count
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        frozen = {key.split(".")[1] for key, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {"conv1", "layer1"}
        assert sum(isinstance(module, FrozenBatchNorm2d) for module in model.modules()) in (53, 104)


def tiny(**changes):
    torch.manual_seed(0)
    model = DETR(TINY.replace(**changes))
    nn.init.normal_(model.query_embed.weight)
    return model.eval()


def test_permuted_queries_permute_the_boxes():
    model = tiny().double()
    images, _ = scene()
    before = model(images)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        model.query_embed.weight.copy_(model.query_embed.weight[order])
    after = model(images)
    assert not torch.allclose(before["pred_boxes"], after["pred_boxes"])
    torch.testing.assert_close(after["pred_boxes"], before["pred_boxes"][:, order])
    torch.testing.assert_close(after["pred_logits"], before["pred_logits"][:, order])
    for one, other in zip(before["boxes"], after["boxes"]):
        torch.testing.assert_close(one, other)  # these are sorted by score


def test_padding_is_not_seen():
    model = tiny().double()
    images, _ = scene()
    padded = torch.zeros(2, 3, 128, 160).double()
    for place, image in zip(padded, images):
        place[:, : image.shape[1], : image.shape[2]] = image
    sizes = [(96, 130), (70, 96)]
    before = model(padded, image_sizes=sizes)
    maps = model.backbone(padded)["features"][-1]
    model.backbone.register_forward_hook(lambda module, given, outputs: _spoil(outputs))
    after = model(padded, image_sizes=sizes)
    assert not torch.equal(after["features"][-1], maps)
    torch.testing.assert_close(after["pred_boxes"], before["pred_boxes"])


def _spoil(outputs):
    """Changes the last map where neither image reaches."""
    outputs["features"][-1] = outputs["features"][-1].clone()
    outputs["features"][-1][..., 3:, :] += 100
    return outputs


def test_attention_maps_show_where_queries_look():
    model = tiny()
    images, _ = scene(torch.float32)
    outputs = model(images, output_attentions=True)
    height, width = outputs["features"][-1].shape[-2:]
    assert len(outputs["attentions"]) == 3
    for maps in outputs["attentions"]:
        assert maps.shape == (2, 4, 6, height * width)
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 6))
    padding = maps[1].unflatten(-1, (height, width))[..., :, 4:]
    assert not padding.any()  # columns from pixel 128 on: the second image has 96


def test_gradient_checkpointing_changes_nothing():
    images, targets = scene(torch.float32)
    gradients = []
    for enabled in (False, True):
        model = tiny(dropout=0.0).set_gradient_checkpointing(enabled).train()
        sum(model(images, targets)["losses"].values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (8, 500)])
def test_channels_and_classes_train_and_predict(channels, classes):
    model = tiny(in_channels=channels, num_classes=classes).train()
    images = [torch.randn(channels, 64, 40), torch.randn(channels, 33, 70)]
    many = torch.tensor([[3.0, 3, 4, 4]] * 9)  # more than there are queries, of one pixel
    targets = [
        {"boxes": many, "labels": torch.full((9,), classes - 1)},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    outputs = model(images, targets)
    assert "boxes" not in outputs
    sum(outputs["losses"].values()).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    outputs = model.eval()(images)
    assert [boxes.shape for boxes in outputs["boxes"]] == [(6, 4), (6, 4)]
    for scores, labels in zip(outputs["scores"], outputs["labels"]):
        assert (scores.diff() <= 0).all()
        assert ((labels >= 0) & (labels < classes)).all()


def test_a_batch_without_objects_trains():
    model = tiny().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = model(torch.zeros(2, 3, 64, 64), [empty, empty])["losses"]
    assert losses["box"] == losses["giou"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_weights_survive_saving_and_another_number_of_classes(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    images, _ = scene(torch.float32)
    again = DETR.from_pretrained(tmp_path)
    assert torch.equal(again(images)["pred_boxes"], model(images)["pred_boxes"])
    other = DETR.from_pretrained(tmp_path, num_classes=3)
    assert other.class_embed.out_features == 4
    assert torch.equal(other.input_proj.weight, model.input_proj.weight)


def test_export_to_a_graph():
    model = tiny()
    image = torch.randn(1, 3, 64, 96)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image)["boxes"], model(image)["boxes"])


def test_errors():
    with pytest.raises(ValueError, match="embed_dim 30 must be a multiple of 4 and of num_heads 8, such as 32"):
        DETR({"embed_dim": 30})
    with pytest.raises(ValueError, match="num_queries is 0; a detector needs at least 1"):
        DETR({"num_queries": 0})
    with pytest.raises(ValueError, match=r"num_layers is \(6, 0\)"):
        DETR({"num_layers": (6, 0)})
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        DETR({"backbone": "resnet51"})
    with pytest.raises(ValueError, match="ResNetConfig has no key 'hidden'"):
        DETR({"backbone": {"name": "resnet18", "hidden": 8}})
    with pytest.raises(ValueError, match="gives tokens; DETR reads a map"):
        DETR({"backbone": "vit_tiny_patch16_224"})
    with pytest.raises(ValueError, match="it needs a ResNet of bottlenecks"):
        DETR({"backbone": "resnet18", "dilation": True})
    model = tiny()
    target = {"boxes": torch.tensor([[3.0, 3, 30, 40]]), "labels": torch.tensor([7])}
    with pytest.raises(ValueError, match="labels of target 0 run from 7 to 7; with num_classes=7"):
        model(torch.randn(1, 3, 64, 64), [target])
    with torch.no_grad():
        model.bbox_embed.layers[2].bias.fill_(torch.nan)
    target["labels"] -= 1
    with pytest.raises(ValueError, match="matching cost holds NaN"):
        model(torch.randn(1, 3, 64, 64), [target])
    with pytest.raises(ValueError, match="names no backbone of timm"):
        DETR.config_from_hub({"model_type": "detr"})
