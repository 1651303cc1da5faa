"""Parts of every model: run one after another they give what the model gives, and each is a graph of its own."""

import pytest
import torch
from torch import nn

from nexus.core.module import NexusModule
from nexus.core.parts import Part, run_parts
from nexus.models.cv.detector import Detector
from nexus.models.cv.grounding_dino import GroundingDINO
from nexus.models.cv.internvl import InternVL
from nexus.models.cv.masked_autoencoder import MaskedAutoencoder
from nexus.models.cv.sam import SAM
from nexus.models.cv.sam2 import SAM2
from tests.small_models import EVERY_KIND, small


@pytest.fixture(scope="module", params=EVERY_KIND)
def made(request) -> tuple[NexusModule, dict[str, Part], dict[str, torch.Tensor]]:
    model, size = small(request.param)
    return model, model.parts(size), model.example_inputs(size)


def test_parts_compose_to_the_model(made):
    model, parts, inputs = made
    if isinstance(model, (SAM, SAM2)):
        inputs = {**inputs, "has_mask_prompts": torch.zeros_like(inputs["has_mask_prompts"])}
    with torch.no_grad():
        found = run_parts(parts, **inputs)
        if isinstance(model, Detector):
            wanted = model(inputs["images"])
            for name in ("boxes", "scores", "labels"):
                assert found["count"].tolist() == [len(one) for one in wanted[name]]
                for row, count, one in zip(found[name], found["count"].tolist(), wanted[name]):
                    torch.testing.assert_close(row[:count], one, rtol=1e-5, atol=1e-5)
            return
        if isinstance(model, (SAM, SAM2)):  # a graph gives all masks, and the end of the points is one of them
            wanted = model(inputs["images"], inputs["points"][:, :, :2], inputs["labels"][:, :, :2])
            found |= {name: found[name][:, :, 1:] for name in ("masks", "iou_scores", "low_res_masks")}
        else:
            wanted = model(**inputs)
    own = {
        MaskedAutoencoder: ("predictions", "mask"),
        SAM: ("masks", "iou_scores", "low_res_masks"),
        SAM2: ("masks", "iou_scores", "low_res_masks"),
        GroundingDINO: ("pred_logits", "pred_boxes"),
    }
    names = {"embeddings", *next((own[kind] for kind in own if isinstance(model, kind)), ("logits",))}
    if isinstance(model, InternVL):  # what it embeds goes on into its language model
        names = {"logits"}
    for name in names:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_parts_hold_the_weights_that_they_need_and_share_them(made):
    model, parts, _ = made
    own = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in own for part in parts.values() for parameter in part.parameters())
    numbers = [sum(p.numel() for p in part.parameters()) for part in parts.values()]
    assert sum(numbers) <= model.num_parameters()


def test_each_part_is_a_graph(made):
    model, parts, _ = made
    for name, part in parts.items():
        if not model.part_specs()[name].graph:
            continue
        exported = torch.export.export(part, part.example_inputs, strict=False).module()
        outputs = exported(*part.example_inputs)
        assert tuple(outputs) == part.output_names
        for key, value in part.example_outputs.items():
            torch.testing.assert_close(outputs[key], value, rtol=1e-4, atol=1e-4)


def test_names_of_the_parts():
    assert list(small("resnet18")[0].parts((64, 64))) == ["backbone", "head"]
    assert list(small("clip_vit_base_patch32_224")[0].parts()) == ["image_encoder", "text_encoder", "head"]


def test_sizes_of_images_in_a_padded_batch_count():
    for name in ("detr_resnet50", "yolov10n", "fasterrcnn_resnet50_fpn"):
        model, size = small(name)
        images = torch.rand(2, 3, *size)
        images[0, :, :, 40:] = 0
        sizes = [(size[0], 40), size]
        with torch.no_grad():
            found = run_parts(model.parts(size), images=images, image_sizes=torch.tensor(sizes))
            wanted = model(images, image_sizes=sizes)
        for place in (0, 1):
            count = int(found["count"][place])
            torch.testing.assert_close(found["boxes"][place, :count], wanted["boxes"][place], rtol=1e-5, atol=1e-4)


def test_what_is_missing_is_named():
    model, size = small("clip_vit_base_patch32_224")
    inputs = model.example_inputs(size)
    with pytest.raises(ValueError, match="The part 'text_encoder' takes tokens, which is not given"):
        run_parts(model.parts(size), images=inputs["images"])


def test_a_model_of_ones_own_is_one_part():
    class Mine(NexusModule):
        def __init__(self, config):
            super().__init__(config)
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, images):
            return {"map": self.layer(images), "features": [images]}

    parts = Mine({}).parts((4, 4))
    assert list(parts) == ["model"]
    assert parts["model"].output_names == ("map",)
