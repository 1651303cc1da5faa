"""Every shipped recipe of images takes steps on digits: its optimizer, schedule, augmentation and precision, a narrow model.

Recipes of detectors are in `test_detection_recipes.py`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from nexus.data import Sample, load_dataset
from nexus.models.registry import model_info
from nexus.training import Trainer, list_recipes, load_recipe
from nexus.training.assembly import make_model
from nexus.training.schedules import make_schedule

DETECTION = ("coco/", "digit-scenes/", "digit-videos/")
NAMES = [name for name in list_recipes() if not name.startswith(DETECTION)]
VIT = {"embed_dim": 16, "num_layers": 2, "num_heads": 2}
TEXTS = {"text_dim": 16, "text_num_layers": 1, "text_num_heads": 2, "context_length": 12, "vocab_size": 40}
NARROW = {
    "ViT": VIT,
    "MAE": {**VIT, "decoder_dim": 8, "decoder_num_layers": 1, "decoder_num_heads": 2},
    "HiViT": {**VIT, "num_layers": [1, 1, 2]},
    "HiViTMAE": {**VIT, "num_layers": [1, 1, 2], "decoder_dim": 8, "decoder_num_layers": 1, "decoder_num_heads": 2},
    "CLIP": {**TEXTS, **VIT},
    "SigLIP": {**TEXTS, **VIT, "hidden_dim": 16, "text_hidden_dim": 16},
    "Mixer": {"embed_dim": 16, "num_layers": 2},
    "Swin": {"embed_dim": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "VGG": {"hidden_dim": 8, "embed_dim": 16, "num_layers": [1, 1, 1, 1, 1]},
    "ResNet": {"hidden_dim": 8, "num_layers": [1, 1, 1, 1]},
    "EfficientNet": {},  # has no width to choose; B0 is small
}
"""What makes a recipe's model small, by the name of its configuration; patches, pooling and stochastic depth stay."""


@dataclass
class Part:
    """The first digits of a split, so that an epoch is a step or two."""

    split: str
    count: int

    def __post_init__(self) -> None:
        self.whole = load_dataset("digits", self.split)
        self.name, self.class_names, self.in_channels = "digits", self.whole.class_names, self.whole.in_channels
        self.labels: np.ndarray = self.whole.labels[: self.count]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.whole[index]


def small_recipe(name, changes=()):
    """The recipe, with a narrow model and fresh weights, two steps of eight digits, 32 pixels where it has more."""
    steps = ["training.epochs=2", "training.batch_size=8", "training.num_threads=1", "schedule.warmup_epochs=1"]
    steps.append("training.keep=last")  # the best of two epochs may be the one that only warms up
    fresh = ["model.pretrained=false", "model.checkpoint=null", "data.num_workers=0", "training.device=cpu"]
    recipe = load_recipe(name, [*steps, *fresh, *changes])
    assert recipe.data.preprocessing is not None
    assert recipe.model.name is not None
    family = type(model_info(recipe.model.name).config).__name__.removesuffix("Config")
    side = min(32, *recipe.data.preprocessing.image_size)
    fitted = recipe.data.preprocessing.fitted({"image_size": side}).replace(resize="squash", resize_size=None)
    recipe = recipe.replace(data=recipe.data.replace(preprocessing=fitted))
    config = {key: value for key, value in recipe.model.config.items() if key != "image_size"}
    narrow = NARROW[family]
    if name.endswith("rn50"):  # a ResNet's width is that of its last map, and its heads follow from it
        narrow = {**narrow, "embed_dim": 256, "num_layers": [1, 1, 1, 1], "num_heads": 4}
    data = recipe.data.replace(tokenizer="words") if family in ("CLIP", "SigLIP") else recipe.data
    return recipe.replace(data=data, model=recipe.model.replace(config={**config, **narrow}))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_takes_steps_on_digits(name, tmp_path):
    recipe = small_recipe(name)
    train = Part("train", 8)
    torch.manual_seed(0)
    model = make_model(recipe, train)
    before = {key: value.clone() for key, value in model.named_parameters()}
    result = Trainer(recipe, tmp_path, model=model, train_data=train, val_data=Part("val", 5), progress="off").fit()
    assert result.model is not None
    after = dict(result.model.named_parameters())
    moved = {key for key, value in after.items() if not torch.equal(value.detach(), before[key])}
    assert all(torch.isfinite(value).all() for value in after.values())
    if recipe.training.linear_probe:
        assert moved == {key for key in after if key.startswith(("fc.", "head."))} != set()
    else:
        assert len(moved) > len(after) / 2
    assert 0 <= result.metrics.get("top1", 0) <= 1
    assert np.isfinite(result.metrics["loss"])


@pytest.mark.parametrize("name", [name for name in NAMES if load_recipe(name).schedule.warmup_epochs >= 1])
def test_a_run_shorter_than_its_warmup_is_refused_with_a_value_that_works(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = load_recipe(name, ["training.epochs=1"]).schedule
    with pytest.raises(ValueError, match=r"the warm-up must be shorter than the run: .* schedule\.warmup_epochs=0\.1"):
        make_schedule(optimizer, schedule, steps_per_epoch=1, epochs=1)
    make_schedule(optimizer, schedule.replace(warmup_epochs=0.1), steps_per_epoch=1, epochs=1)
