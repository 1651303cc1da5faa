"""RT-DETR and RT-DETR v2 against transformers, and what they owe by themselves."""

import pytest
import torch
from torch import nn

from nexus.core.formats import to_our_names
from nexus.core.weights import load_weights
from nexus.layers.frozen_norm import FrozenBatchNorm2d
from nexus.models.cv import RTDETR, RTDETRConfig
from nexus.models.cv.rt_detr_decoder import DeformableAttention, denoising_queries
from nexus.models.registry import create_model
from nexus.ops.set_prediction import Objects
from nexus.proofs.detr import default_dtype, enliven_rtdetr, hub_rtdetr, rtdetr_authors_names, rtdetr_labels

TINY = RTDETRConfig(
    num_classes=5,
    backbone="resnet18",
    backbone_norm="batch",
    num_frozen_stages=0,
    encoder_dim=32,
    encoder_hidden_dim=48,
    expansion=0.5,
    embed_dim=32,
    hidden_dim=40,
    num_layers=3,
    num_heads=4,
    num_queries=12,
    num_points=(2, 2, 2),
    num_denoising=8,
)


def reference(transformers, *, version=1, config=TINY, **changes):
    """transformers' model of the same sizes, with weights that make its answers differ."""
    torch.manual_seed(0)
    model = hub_rtdetr(transformers, config, version=version, **changes)
    enliven_rtdetr(model)
    return model


def same_weights(ours, theirs):
    state, spelling = to_our_names(theirs.state_dict(), ours.formats)
    assert spelling == "hub"
    ours.load_state_dict(state)


def scene(dtype=torch.float64):
    """Two images of one size; the second one has fewer objects."""
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=dtype)
    boxes = torch.tensor([[5, 8, 40, 44], [30, 20, 90, 60], [50, 2, 61, 15]], dtype=dtype)
    return images, [
        {"boxes": boxes, "labels": torch.tensor([0, 4, 1])},
        {"boxes": boxes[1:2], "labels": torch.tensor([2])},
    ]


def their_names(num_layers, training):
    """Ours of each loss of transformers."""
    suffixes = {"": "", **{f"_{layer}": f"_aux_{layer}" for layer in range(num_layers - 1)}}
    suffixes["_encoder"] = f"_aux_{num_layers - 1}"
    if training:
        suffixes |= {f"_denoising_{layer}": f"_dn_{layer}" for layer in range(num_layers)}
    kinds = {"classification": "loss_vfl", "box": "loss_bbox", "giou": "loss_giou"}
    return {kind + ours: name + theirs for kind, name in kinds.items() for ours, theirs in suffixes.items()}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_values_losses_and_gradients_equal_transformers(transformers, version, training):
    theirs = reference(transformers, version=version).double().train(training)
    ours = RTDETR(TINY.replace(look_forward_twice=False)).double().train(training)
    same_weights(ours, theirs)
    images, targets = scene()
    with default_dtype(torch.float64):
        torch.manual_seed(5)
        wanted = theirs(images, labels=rtdetr_labels(images, targets))
    torch.manual_seed(5)
    found = ours(images, targets)
    near = {"rtol": 1e-10, "atol": 1e-10}
    skip = wanted.logits.shape[1] - 12  # denoising queries: 2 groups of 3 to find and 3 to refuse
    assert skip == (12 if training else 0)
    torch.testing.assert_close(found["pred_logits"], wanted.logits[:, skip:], **near)
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes[:, skip:], **near)
    names = their_names(3, training)
    assert found["losses"].keys() == names.keys()
    for name, theirs_name in names.items():
        torch.testing.assert_close(found["losses"][name], wanted.loss_dict[theirs_name], msg=name, **near)
    wanted.loss.backward()
    sum(found["losses"].values()).backward()
    given = {key: p.grad for key, p in theirs.named_parameters() if p.grad is not None}
    gradients, _ = to_our_names(given, ours.formats)
    for key, parameter in ours.named_parameters():
        if key == "denoising_class_embed.weight" and not training:
            continue
        atol = 1e-10 * max(1.0, gradients[key].abs().max().item())
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=0, atol=atol, msg=key)


def test_values_equal_transformers_in_single_precision(transformers):
    theirs, ours = reference(transformers), RTDETR(TINY).eval()
    same_weights(ours, theirs)
    images, _ = scene(torch.float32)
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    torch.testing.assert_close(found["pred_logits"], wanted.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs_changes", "ours_changes"),
    [
        ({"version": 2, "decoder_method": "discrete"}, {"sampling": "nearest"}),
        ({}, {"backbone": "resnet50", "backbone_norm": "frozen", "expansion": 1.0}),
    ],
    ids=["nearest", "resnet50"],
)
def test_variants_equal_transformers(transformers, theirs_changes, ours_changes):
    config = TINY.replace(**ours_changes)
    theirs, ours = reference(transformers, config=config, **theirs_changes).double(), RTDETR(config).double()
    same_weights(ours.eval(), theirs)
    images, _ = scene()
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    torch.testing.assert_close(found["pred_logits"], wanted.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes, rtol=1e-9, atol=1e-9)


def test_detections_equal_transformers(transformers):
    theirs, ours = reference(transformers).double(), RTDETR(TINY).double().eval()
    same_weights(ours, theirs)
    images, _ = scene()
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    sizes = torch.tensor([[64, 96]] * 2)
    processor = transformers.RTDetrImageProcessorPil()
    results = processor.post_process_object_detection(wanted, threshold=0.0, target_sizes=sizes)
    for place, result in enumerate(results):
        torch.testing.assert_close(found["scores"][place], result["scores"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found["boxes"][place], result["boxes"], rtol=1e-8, atol=1e-6)
        assert torch.equal(found["labels"][place], result["labels"])


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_the_authors_load(transformers, tmp_path, version):
    theirs = reference(transformers, version=version).double()
    state = rtdetr_authors_names(theirs.state_dict(), version)
    assert "backbone.res_layers.1.blocks.0.short.conv.conv.weight" in state
    assert "decoder.decoder.layers.0.self_attn.in_proj_bias" in state
    state |= {"decoder.anchors": torch.zeros(1, 8400, 4), "decoder.valid_mask": torch.ones(1, 8400, 1)}
    torch.save({"ema": {"module": state, "updates": 3}}, tmp_path / "rtdetr.pth")
    ours = RTDETR(TINY).double().eval()
    load_weights(ours, tmp_path / "rtdetr.pth")
    images, _ = scene()
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["pred_boxes"], theirs(images).pred_boxes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("version", [1, 2])
def test_folders_of_the_hub_load(transformers, tmp_path, version):
    theirs = reference(transformers, version=version)
    theirs.save_pretrained(tmp_path)  # in the names of version 4
    ours = RTDETR.from_pretrained(tmp_path)
    assert ours.config == TINY
    images, _ = scene()
    with torch.no_grad():  # in double precision, where rounding does not choose other queries
        torch.testing.assert_close(ours.double()(images)["pred_logits"], theirs.double()(images).logits)


def test_published_parameter_counts():
    counts = {"r18": 20_184_464, "r34": 31_441_668, "r50_m": 36_593_772, "r50": 42_891_372, "r101": 76_556_268}
    buffers = {"r18": 0, "r34": 0, "r50_m": 53_248, "r50": 53_248, "r101": 105_472}
    for version in ("", "v2_"):
        for size, count in counts.items():
            with torch.device("meta"):
                model = create_model(f"rtdetr_{version}{size}")
            assert model.num_parameters() == model.card.num_parameters == count
            frozen = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
            assert sum(m.weight.numel() + m.bias.numel() for m in frozen) == buffers[size]


def test_seeds_code_runs():
    rtdetr = RTDETR({"num_classes": 80, "backbone": "resnet50"}).eval()
    with torch.no_grad():
        outputs = rtdetr(torch.rand(1, 3, 96, 96))
    boxes, scores = outputs["boxes"], outputs["scores"]
    assert outputs["pred_boxes"].shape == (1, 189, 4)  # the image has no more places: 144 + 36 + 9
    assert boxes[0].shape == (300, 4)  # the likeliest of 189 * 80 pairs of a query and a class
    assert scores[0].shape == outputs["labels"][0].shape == (300,)


def tiny(**changes):
    torch.manual_seed(0)
    model = RTDETR(TINY.replace(**changes))
    with torch.no_grad():  # boxes that move
        for head in [model.enc_bbox_head, *model.decoder.bbox_embed]:
            nn.init.normal_(head.last.weight, std=0.3)
    return model.eval()


def test_permuted_queries_permute_the_boxes():
    decoder = tiny().double().decoder
    memory, sizes = torch.randn(2, 84, 32).double(), [(8, 8), (4, 4), (2, 2)]
    query, boxes = torch.randn(2, 6, 32).double(), torch.randn(2, 6, 4).double()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    before, after = decoder(query, boxes, memory, sizes), decoder(query[:, order], boxes[:, order], memory, sizes)
    torch.testing.assert_close(after.boxes, before.boxes[:, :, order])
    torch.testing.assert_close(after.logits, before.logits[:, :, order])


def test_fewer_blocks_outside_training_give_the_answers_of_the_last_of_them():
    model = tiny()
    images, targets = scene(torch.float32)
    inner = model(images, targets)["losses"]
    short = tiny(eval_layers=2)
    outputs = short(images, targets)
    torch.testing.assert_close(outputs["losses"]["box"], inner["box_1"])
    assert "box_1" not in outputs["losses"]
    assert "box_1" in short.train()(images, targets)["losses"]


def test_denoising_queries_are_hidden_and_near_their_objects():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.1, 0.1]])
    objects = [Objects(boxes, torch.tensor([1, 0])), Objects(boxes[:0], torch.tensor([], dtype=torch.long))]
    noisy = denoising_queries(objects, 3, 5, num_denoising=6, label_noise=0.0, box_noise=1.0)
    assert noisy.num_groups == 3
    assert noisy.labels[0].tolist() == [1, 0] * 6
    assert noisy.labels[1].tolist() == [3] * 12
    assert noisy.pairs.query.tolist() == [0, 1, 4, 5, 8, 9]
    shift = (noisy.box_logits[0].sigmoid() - boxes.repeat(6, 1)).abs() / boxes[:, 2:].repeat(6, 2)
    near = torch.tensor([True, True, False, False]).repeat(3)
    assert (shift[near] <= 1.0).all()
    assert (shift[near, :2] <= 0.5 + 1e-4).all()
    blocks = torch.block_diag(*[torch.ones(4, 4)] * 3).bool()
    assert torch.equal(noisy.mask[:12, :12], blocks)
    assert not noisy.mask[12:, :12].any()
    assert noisy.mask[:, 12:].all()
    assert denoising_queries(objects[1:], 3, 5, num_denoising=6, label_noise=0.0, box_noise=1.0) is None


def test_looking_forward_twice_trains_the_block_before():
    images, targets = scene(torch.float32)
    gradients = []
    for twice in (False, True):
        model = tiny(look_forward_twice=twice, num_denoising=0).train()
        model(images, targets)["losses"]["box"].backward()
        gradients.append([block.last.weight.grad for block in model.decoder.bbox_embed])
    once, twice = gradients
    assert not once[0].any()
    assert not once[1].any()
    assert not twice[0].any()
    assert twice[1].any()
    torch.testing.assert_close(once[2], twice[2])


def test_fresh_heads_look_around_the_box():
    attention = DeformableAttention(32, 4, (2, 2, 2), "bilinear")
    offsets = attention.sampling_offsets.bias.detach().reshape(4, 3, 2, 2)
    wanted = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(offsets[:, 0, 0], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets[:, 2, 1], 2 * wanted, atol=1e-6, rtol=0)


def test_gradient_checkpointing_changes_nothing():
    images, targets = scene(torch.float32)
    gradients = []
    for enabled in (False, True):
        model = tiny(backbone_norm="frozen").set_gradient_checkpointing(enabled).train()
        torch.manual_seed(3)
        sum(model(images, targets)["losses"].values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (8, 500)])
def test_channels_and_classes_train_and_predict(channels, classes):
    model = tiny(in_channels=channels, num_classes=classes).train()
    images = [torch.rand(channels, 64, 40), torch.rand(channels, 33, 70)]
    many = torch.tensor([[3.0, 3, 4, 4], [30, 40, 90, 80]] * 8)  # more than there are queries; beyond the border
    targets = [
        {"boxes": many, "labels": torch.full((16,), classes - 1)},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    outputs = model(images, targets)
    assert "boxes" not in outputs
    sum(outputs["losses"].values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    outputs = model.eval()(images)
    for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"]):
        assert boxes.shape == (12, 4)
        assert (scores.diff() <= 0).all()
        assert ((labels >= 0) & (labels < classes)).all()


def test_a_batch_without_objects_trains():
    model = tiny().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = model(torch.rand(2, 3, 64, 64), [empty, empty])["losses"]
    assert losses["box"] == losses["giou_encoder"] == 0
    assert losses.keys() == their_names(3, False).keys()
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_registered_backbone_trains_and_predicts():
    model = tiny(backbone="swin_tiny_patch4_window7_224").train()
    images, targets = scene(torch.float32)
    sum(model(images, targets)["losses"].values()).backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    outputs = model.eval()(images)
    assert [tuple(x.shape[-2:]) for x in outputs["features"]] == [(8, 12), (4, 6), (2, 3)]


def test_a_mapping_makes_a_slim_backbone():
    model = tiny(backbone={"name": "resnet18", "hidden_dim": 8}).train()
    assert model.backbone.dims == (16, 32, 64)
    images, targets = scene(torch.float32)
    sum(model(images, targets)["losses"].values()).backward()
    assert tiny(backbone={"name": "efficientnet_b0", "drop_path_rate": 0.0}).backbone.dims == (40, 112, 320)


def test_weights_survive_saving_and_another_number_of_classes(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    images, _ = scene(torch.float32)
    again = RTDETR.from_pretrained(tmp_path)
    assert torch.equal(again(images)["pred_boxes"], model(images)["pred_boxes"])
    frozen = RTDETR.from_pretrained(tmp_path, backbone_norm="frozen", num_frozen_stages=1)
    torch.testing.assert_close(frozen(images)["pred_boxes"], model(images)["pred_boxes"])
    other = RTDETR.from_pretrained(tmp_path, num_classes=3)
    assert other.decoder.class_embed[2].out_features == 3
    assert torch.equal(other.decoder.bbox_embed[2].last.weight, model.decoder.bbox_embed[2].last.weight)


def test_export_to_a_graph():
    model = tiny()
    image = torch.rand(1, 3, 64, 96)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image)["boxes"], model(image)["boxes"])


def test_errors():
    with pytest.raises(ValueError, match="encoder_dim 30 must be a multiple of 8 with num_heads 8, such as 32"):
        RTDETR({"encoder_dim": 30})
    with pytest.raises(ValueError, match="num_queries is 0; a detector needs at least 1"):
        RTDETR({"num_queries": 0})
    with pytest.raises(ValueError, match="eval_layers is 7; it must lie in 1 to num_layers, 6"):
        RTDETR({"eval_layers": 7})
    with pytest.raises(ValueError, match="every level needs at least 1"):
        RTDETR({"num_points": (4, 0, 4)})
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        RTDETR({"backbone": "resnet51"})
    with pytest.raises(ValueError, match="backbone sets num_layers; of the ResNet-vd resnet18 only hidden_dim can"):
        RTDETR({"backbone": {"name": "resnet18", "num_layers": [1, 1, 1, 1]}})
    with pytest.raises(ValueError, match="backbone sets hidden_dim to 7; the stem halves it"):
        RTDETR({"backbone": {"name": "resnet18", "hidden_dim": 7}})
    with pytest.raises(ValueError, match="gives tokens; RT-DETR reads three maps"):
        RTDETR({"backbone": "vit_tiny_patch16_224"})
    with pytest.raises(ValueError, match="learn_initial_query is True; RT-DETR is built with False"):
        RTDETR.config_from_hub({"learn_initial_query": True})
    with pytest.raises(ValueError, match=r"backbone_config has the blocks \(1, 1, 1, 1\)"):
        RTDETR.config_from_hub({"backbone_config": {"depths": [1, 1, 1, 1]}})
    target = {"boxes": torch.tensor([[3.0, 3, 30, 40]]), "labels": torch.tensor([5])}
    with pytest.raises(ValueError, match="labels of target 0 run from 5 to 5; with num_classes=5"):
        tiny()(torch.rand(1, 3, 64, 64), [target])
