"""Names, cards and what is created from them."""

from dataclasses import dataclass

import pytest
import torch

import nexus
from nexus import Config, NexusModule, Preprocessing, create_model, list_models, model_info
from nexus.core.card import ModelCard
from nexus.models.registry import all_cards, register, split_name
from nexus.models.selection import recommend
from nexus.training.starting import recipe_for


def test_names_are_listed_by_pattern_and_task():
    assert list_models("resnet1?") == ["resnet18"]
    assert list_models("resnet1??") == ["resnet101", "resnet152"]
    assert "resnet50" in list_models(task="classification")
    assert list_models("resnet*", task="no such task") == []


def test_a_task_is_one_thing_under_both_its_names():
    assert list_models(task="object-detection") == list_models(task="detection") != []
    assert recommend(task="image-classification") == recommend(task="classification")
    for card in all_cards():
        model_class = card.model_class
        assert card.task == model_class.task, card.name
        with torch.device("meta"):
            assert model_class(card.config).task == card.task, card.name


def test_unknown_names_and_fields_are_named():
    with pytest.raises(ValueError, match=r"There is no model 'resnet51'\. Did you mean 'resnet50'\?"):
        create_model("resnet51")
    with pytest.raises(ValueError, match=r"ViTConfig has no key 'num_class'\. Did you mean 'num_classes'\?"):
        create_model("vit_tiny_patch16_224", num_class=3)
    with pytest.raises(ValueError, match=r"resnet50 has no weights 'tv3_in1k'\. Did you mean 'tv"):
        model_info("resnet50").find_weights("tv3_in1k")
    with pytest.raises(ValueError, match=r"vit_large_patch14_224 has no published weights; train it"):
        create_model("vit_large_patch14_224", pretrained=True)


def test_names_with_a_dot_have_tags_too():
    assert split_name("sam2.1_hiera_tiny") == ("sam2.1_hiera_tiny", "")
    assert split_name("sam2.1_hiera_tiny.sav_hub") == ("sam2.1_hiera_tiny", "sav_hub")
    assert split_name("resnet50.tv_in1k") == ("resnet50", "tv_in1k")
    assert split_name("resnet5.tv.in1k") == ("resnet5", "tv.in1k")
    assert model_info("sam2.1_hiera_tiny.sav").name == "sam2.1_hiera_tiny"
    with pytest.raises(ValueError, match=r"There is no model 'sam2.1_hiera_tinny'. Did you mean 'sam2.1_hiera_tiny'\?"):
        model_info("sam2.1_hiera_tinny")
    with pytest.raises(ValueError, match=r"There is no model 'sam2.1_hiera_tinny'. Did you mean 'sam2.1_hiera_tiny'\?"):
        NexusModule.from_pretrained("sam2.1_hiera_tinny")
    with pytest.raises(ValueError, match=r"sam2.1_hiera_tiny has no weights 'sa1b'"):
        NexusModule.from_pretrained("sam2.1_hiera_tiny.sa1b")
    assert recipe_for("sam2.1_hiera_tiny").model.name == "sam2.1_hiera_tiny"


def test_a_created_model_has_its_card_and_preprocessing():
    model = create_model("resnet18", num_classes=4, in_channels=1)
    assert model.card is model_info("resnet18.tv_in1k")
    assert model.task == "classification"
    assert model.preprocessing.in_channels == 1
    assert model.preprocessing.image_size == model_info("resnet18").preprocessing.image_size
    small = create_model("vit_tiny_patch16_224", image_size=32, patch_size=4, in_channels=1, num_classes=10)
    assert small.preprocessing.image_size == (32, 32)
    assert small.preprocessing.resize_size == 35
    assert small.eval()(torch.zeros(1, 1, 32, 32))["logits"].shape == (1, 10)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="The model name 'resnet50' is registered twice"):
        register(model_info("resnet50"))


def test_cards_are_complete():
    for card in all_cards():
        assert card.paper.startswith("https://"), card.name
        assert card.num_parameters, card.name
        tags = [weights.tag for weights in card.weights]
        assert len(set(tags)) == len(tags), card.name
        for weights in card.weights:
            assert weights.url.startswith(("hf-hub:", "https://", "package:", "by-hand:https://")), (
                card.name,
                weights.tag,
            )
            assert weights.licence != "unknown", (card.name, weights.tag)
            assert all(metric.source for metric in weights.metrics), (card.name, weights.tag)
            card.config.replace(**weights.changes)


def test_preprocessing_follows_changes():
    preprocessing = Preprocessing(resize_size=256)
    assert preprocessing.fitted({}) == preprocessing
    changed = preprocessing.fitted({"image_size": (112, 224), "in_channels": 4, "num_classes": 3})
    assert changed.image_size == (112, 224)
    assert changed.resize_size == 128
    assert changed.mean == pytest.approx((0.449,) * 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (0.5,)}, "mean has 1 channels and std has 3; they must agree"),
        ({"std": (0.5, 0.5, 0.0)}, "every value must be above 0"),
        ({"image_size": (0, 4)}, "both sides must be at least 1 pixel"),
        ({"interpolation": "cubic"}, "must be one of 'nearest', 'bilinear', 'bicubic', 'lanczos'"),
    ],
)
def test_preprocessing_rules(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**fields)


@dataclass(frozen=True, kw_only=True)
class LineConfig(Config):
    width: int = 2


class Line(NexusModule):
    config: LineConfig
    task = "lines"

    def __init__(self, config):
        super().__init__(config)
        self.line = torch.nn.Linear(self.config.width, 1)


def test_a_module_takes_its_own_configuration_or_a_mapping():
    assert Line({"width": 3}).num_parameters() == 4
    assert Line.from_config(LineConfig()).config.width == 2
    with pytest.raises(ValueError, match="Line takes a LineConfig, not a Preprocessing"):
        Line(Preprocessing())
    model = Line({})
    model.line.bias.requires_grad_(False)
    assert model.num_parameters(trainable=True) == 2
    assert model.task == "lines"
    card = ModelCard(name="line", model_class=Line, config=LineConfig())
    assert card.task == "lines"
    assert card.preprocessing.image_size == (224, 224)


def test_lazy_names_of_the_package():
    assert set(nexus.__all__) <= set(dir(nexus))
    with pytest.raises(AttributeError, match="module 'nexus' has no attribute 'nothing'"):
        _ = nexus.nothing
