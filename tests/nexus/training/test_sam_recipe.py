"""The recipe of SAM on the embedded scenes: it takes steps, and learns what a click means."""

import pytest
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_part_of_the_recipe_already_learns_what_a_click_means(tmp_path):
    changes = [
        "training.epochs=2",
        "data.source=digit-scenes:800",
        "training.batch_size=4",
        "training.validate_every=2",
    ]
    result = Trainer(load_recipe(NAME, [*changes, "schedule.warmup_epochs=0.2"]), tmp_path, progress="off").fit()
    assert result.metrics["mIoU_1"] > 0.4
    assert result.metrics["mIoU_box"] > 0.4
