"""The recipe of SAM on the embedded scenes takes steps."""

import torch

from nexus.data.detection.digit_scenes import DigitScenes
from nexus.training import Trainer, load_recipe

NAME = "digit-scenes/sam_tiny"


def test_the_recipe_takes_a_few_steps(tmp_path):
    recipe = load_recipe(NAME, ["training.batch_size=2", "training.epochs=1", "schedule.warmup_epochs=0"])
    data = {"train_data": DigitScenes("train", 4), "val_data": DigitScenes("val", 2)}
    result = Trainer(recipe, tmp_path, progress="off", **data).fit()
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())
    assert result.metrics.keys() >= {"mIoU_1", "mIoU_3", "mIoU_5", "mIoU_box"}
    assert sum(parameter.numel() for parameter in result.model.parameters()) < 1_000_000
