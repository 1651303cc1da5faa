"""Recipes of YOLOv10: each takes a few steps on small scenes, and the model that is left loads and predicts."""

import pytest
import torch

from nexus import Predictor
from nexus.data.detection.digit_scenes import DigitScenes
from nexus.training import Trainer, list_recipes, load_recipe

RECIPES = [name for name in list_recipes() if "yolo" in name]
NARROW = {"dims": [8, 8, 16, 16, 32], "depths": [1, 1, 1, 1]}
"""What makes a recipe small enough to be run here; all else stays."""
FEW_STEPS = ["data.num_workers=0", "training.batch_size=2", "training.epochs=1", "training.num_threads=1"]
SMALL = ["data.preprocessing.image_size=[64, 64]", "data.preprocessing.resize=squash", "schedule.warmup_epochs=0"]
SMALL.append("data.preprocessing.resize_size=null")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_take_a_few_steps_and_predict(name, tmp_path):
    recipe = load_recipe(name, [*FEW_STEPS, *SMALL])
    recipe = recipe.replace(model=recipe.model.replace(config={**recipe.model.config, **NARROW}))
    train, held_out = DigitScenes("train", 4), DigitScenes("val", 2)
    result = Trainer(recipe, tmp_path, progress="off", train_data=train, val_data=held_out).fit()
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert 0 <= result.metrics["AP50"] <= 1
    found = Predictor(tmp_path)(held_out[0].image)[0]
    assert len(found) > 0
    assert {one.label for one in found.top()} <= set(train.class_names)
