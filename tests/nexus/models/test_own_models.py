"""Models of one's own: registered with a plain mapping, created, saved, and hints in other libraries' words."""

import pytest
import torch
from torch import nn

import nexus
from nexus import NexusModule, create_model
from nexus.core.card import ModelCard
from nexus.models import registry
from nexus.models.cv import ResNetConfig, ViTConfig


class Small(NexusModule):
    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(config["width"], config["num_classes"])

    def forward(self, images):
        embeddings = images.mean(dim=(2, 3))[:, :1].expand(-1, self.config["width"])
        return {"logits": self.head(embeddings), "embeddings": embeddings}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    registry.register(ModelCard(name="small_one", model_class=Small, config={"width": 4, "num_classes": 10}))


def test_a_card_may_have_a_plain_mapping(small, tmp_path):
    assert create_model("small_one").head.weight.shape == (10, 4)
    model = create_model("small_one", num_classes=3)
    assert model.head.weight.shape == (3, 4)
    assert model.config == {"width": 4, "num_classes": 3}
    assert nexus.model_info("small_one").config == {"width": 4, "num_classes": 10}
    assert model.preprocessing.image_size == (224, 224)
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    assert type(again) is Small
    assert torch.equal(again.head.weight, model.head.weight)


def test_a_recipe_trains_it_by_its_name(small, tmp_path):
    result = nexus.fit("small_one", "digits", epochs=1, batch_size=512, run_dir=tmp_path / "run", progress="off")
    assert result.model.head.weight.shape == (10, 4)


@pytest.mark.parametrize(
    ("config", "theirs", "ours"),
    [
        (ViTConfig, "drop_rate", "dropout"),
        (ResNetConfig, "drop_rate", "dropout"),
        (ViTConfig, "in_chans", "in_channels"),
        (ViTConfig, "img_size", "image_size"),
        (ViTConfig, "depth", "num_layers"),
        (ViTConfig, "attn_drop_rate", "attention_dropout"),
    ],
)
def test_words_of_timm_are_answered_with_ours(config, theirs, ours):
    with pytest.raises(ValueError, match=rf"has no key '{theirs}'\. Did you mean '{ours}'\?"):
        config.from_mapping({theirs: 1})


def test_what_is_printed_is_short(tmp_path):
    card = nexus.model_info("resnet50")
    assert len(repr(card)) < 300
    assert "ModelCard(resnet50: ResNet for classification, 25,557,032 parameters" in repr(card)
    assert "25557032" in card._repr_html_()
    small = {"patch_size": 4, "embed_dim": 16, "num_layers": 1, "num_heads": 2, "image_size": 8, "in_channels": 1}
    result = nexus.fit(
        "vit_tiny_patch16_224",
        "digits",
        config=small,
        epochs=1,
        schedule={"warmup_epochs": 0},
        batch_size=512,
        run_dir=tmp_path / "<b>",
        progress="off",
    )
    assert len(repr(result)) < 300 + len(str(tmp_path))
    assert "VisionTransformer of" in repr(result)
    html = result._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>:" not in html
    assert 'src="data:image/png;base64,' in html
    report = nexus.evaluate(result.model, "digits")
    assert len(repr(report)) < 400
    assert "<table>" in report._repr_html_()
    digit = torch.rand(8, 8).numpy()
    prediction = nexus.Predictor(result.model)([digit])[0]
    assert prediction._repr_png_().startswith(b"\x89PNG")
