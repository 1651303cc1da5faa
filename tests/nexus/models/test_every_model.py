"""What every model of the zoo owes, tested once over the registry: one small configuration for each class."""

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.models.registry import all_cards, model_info


class Case(NamedTuple):
    """A small model of a class.

    Attributes:
        name: A registered name.
        changes: What makes it small.
        size: Side of its images in pixels.
        other_size: Another size that it takes; None where the paper fixes the size.
        attends: Whether it has attention maps.
    """

    name: str
    changes: Mapping[str, Any]
    size: int
    other_size: tuple[int, int] | None = None
    attends: bool = False


MBCONV = (
    {"expand_ratio": 1, "stride": 2, "out_dim": 8, "num_layers": 2},
    {"expand_ratio": 4, "kernel_size": 5, "stride": 2, "out_dim": 16, "num_layers": 2},
)
FUSED = ({"block": "fused", "expand_ratio": 4, "stride": 2, "out_dim": 8, "num_layers": 2}, MBCONV[1])

# One row for each class of the zoo.
CASES = [
    Case(
        "vit_tiny_patch16_224",
        {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 3},
        32,
        (48, 40),
        attends=True,
    ),
    Case("resnet18", {"hidden_dim": 8}, 64, (45, 70)),
    Case("resnet50", {"hidden_dim": 4, "num_layers": (1, 2, 1, 1)}, 64, (45, 70)),
    Case("vgg11_bn", {"hidden_dim": 4, "embed_dim": 16}, 32, (45, 70)),
    Case(
        "swin_tiny_patch4_window7_224",
        {"image_size": 32, "embed_dim": 8, "num_layers": (2, 2), "num_heads": (2, 4), "window_size": 4},
        32,
        (36, 44),
        attends=True,
    ),
    Case("efficientnet_b0", {"stages": MBCONV, "embed_dim": 24}, 64, (45, 70)),
    Case("tf_efficientnetv2_s", {"stages": FUSED, "embed_dim": 24}, 64, (45, 70)),
    Case(
        "dinov2_vits14",
        {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 3, "num_heads": 2},
        32,
        (48, 40),
        attends=True,
    ),
    Case(
        "dinov2_vits14_reg",
        {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn": "swiglu"},
        32,
        (24, 40),
        attends=True,
    ),
    Case(
        "eva02_base_patch14_448",
        {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 2, "num_heads": 2},
        32,
        (48, 40),
        attends=True,
    ),
    Case(
        "hivit_tiny",
        {"image_size": 32, "patch_size": 8, "embed_dim": 16, "num_layers": (1, 1, 2), "num_heads": 2},
        32,
        (48, 40),
        attends=True,
    ),
    Case("mixer_b16_224", {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 2}, 32),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


def build(case: Case, **changes: Any) -> NexusModule:
    torch.manual_seed(0)
    card = model_info(case.name)
    model = card.model_class(card.config.replace(**case.changes, **{"num_classes": 5} | changes))
    with torch.no_grad():  # away from zeros and ones, so that every parameter matters
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def images(case: Case, count: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, case.size, case.size, generator=torch.Generator().manual_seed(1))


def test_every_class_has_a_case():
    built = {card.model_class for card in all_cards() if card.task == "classification"}
    missing = built - {model_info(case.name).model_class for case in CASES}
    assert not missing, f"add a row to CASES for {sorted(cls.__name__ for cls in missing)}"


def test_outputs_are_finite_and_named(case):
    outputs = build(case)(images(case))
    assert outputs["logits"].shape == (2, 5)
    assert outputs["embeddings"].shape[0] == 2
    assert len(outputs["features"]) > 1
    for value in (outputs["logits"], outputs["embeddings"], *outputs["features"]):
        assert value.isfinite().all()


def test_features_can_be_left_out(case):
    model = build(case)
    lean = model(images(case), output_features=False)
    assert lean.keys() == {"logits", "embeddings"}
    assert torch.equal(lean["logits"], model(images(case))["logits"])


def test_images_of_a_batch_do_not_mix(case):
    model, batch = build(case), images(case, 3)
    together = model(batch)["logits"]
    alone = torch.cat([model(image[None])["logits"] for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_every_parameter_gets_a_gradient(case):
    model = build(case).train()
    model(images(case, 4))["logits"].square().sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_evaluation_is_deterministic(case):
    model = build(case)
    assert torch.equal(model(images(case))["logits"], model(images(case))["logits"])


def test_weights_and_configuration_survive_saving(case, tmp_path):
    model = build(case)
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    assert again.config == model.config
    assert torch.equal(again(images(case))["logits"], model(images(case))["logits"])


def test_a_model_that_is_built_without_memory_is_the_model(case, tmp_path):
    """Parameters, buffers that are saved and that are not, ties, what is trained: all as in a model of the usual way."""
    model = build(case)
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    half = NexusModule.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for dtype, ours in ((torch.float32, again), (torch.bfloat16, half)):
        theirs = model.to(dtype)
        for kind in ("named_parameters", "named_buffers"):
            wanted, found = (dict(getattr(one, kind)(remove_duplicate=True)) for one in (theirs, ours))
            assert wanted.keys() == found.keys()
            for name, value in wanted.items():
                assert torch.equal(value, found[name]), name
                assert value.dtype == found[name].dtype
                assert value.requires_grad == found[name].requires_grad
                assert found[name].is_contiguous()
                assert value.stride() == found[name].stride()


def test_a_configuration_of_absurd_size_is_refused_at_once(case, tmp_path):
    """Whatever number of it becomes whatever: nothing is allocated, and the file is named."""
    model = build(case)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    start = time.process_time()
    for key, value in settings["config"].items():
        if type(value) not in (int, float):
            continue
        for wrong in (10**9, 10**6, 5_000, -1, 0, 1e308):
            path.write_text(json.dumps({**settings, "config": {**settings["config"], key: wrong}}))
            with contextlib.suppress(ValueError):  # a rate or a count of heads may be another without another shape
                NexusModule.from_pretrained(tmp_path)
    assert time.process_time() - start < 60


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(case, channels):
    model = build(case, in_channels=channels)
    assert model(images(case, channels=channels))["logits"].isfinite().all()
    with pytest.raises(ValueError, match=f"images have 3 channels; this model was built with in_channels={channels}"):
        model(images(case))


def test_other_sizes(case):
    if case.other_size is None:
        with pytest.raises(ValueError, match="image"):
            build(case)(torch.randn(1, 3, 2 * case.size, case.size))
    else:
        assert build(case)(torch.randn(1, 3, *case.other_size))["logits"].isfinite().all()


@pytest.mark.parametrize("num_classes", [0, 1, 7])
def test_other_numbers_of_classes(case, num_classes):
    outputs = build(case, num_classes=num_classes)(images(case))
    assert outputs["logits"].shape == (2, num_classes or outputs["embeddings"].shape[1])


def test_the_head_is_replaceable(case):
    model = build(case)
    model.head = nn.Identity()
    outputs = model(images(case))
    assert torch.equal(outputs["logits"], outputs["embeddings"])


def test_gradient_checkpointing_changes_nothing_but_memory(case):
    gradients = []
    for enabled in (False, True):
        model = build(case).set_gradient_checkpointing(enabled)
        model(images(case))["logits"].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


def test_the_token_layout_covers_the_tokens(case):
    outputs = build(case)(images(case))
    layout = build(case).token_layout((case.size, case.size))
    tokens = outputs["features"][-1]
    if layout is None:
        assert tokens.ndim == 4
    else:
        assert tokens.shape[1] == layout.prefix + layout.height * layout.width


def test_attentions_are_given_or_refused(case):
    model = build(case)
    if not case.attends:
        with pytest.raises(ValueError, match="no attention maps"):
            model(images(case), output_attentions=True)
    else:
        for maps in model(images(case), output_attentions=True)["attentions"]:
            torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))


def test_export_to_a_graph(case):
    model = build(case)
    program = torch.export.export(model, (images(case),))
    torch.testing.assert_close(program.module()(images(case))["logits"], model(images(case))["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_graph_breaks(case, training):
    """The captured graph is what is tested; the compiler behind it is torch's own."""
    model = build(case).train(training)
    if not training:
        wanted = model(images(case))["logits"]
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images(case))["logits"], wanted, rtol=1e-5, atol=1e-5)
    else:
        model.set_gradient_checkpointing()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        compiled(images(case))["logits"].sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
