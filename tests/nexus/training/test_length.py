"""Runs that are counted in steps, of data that has epochs too."""

import pytest

from nexus.training import Recipe, Trainer, load_recipe
from nexus.training.length import Length
from nexus.training.recipe import TrainingRecipe


class Stop(Exception):
    pass


def steps_recipe(small, **changes):
    changes = {"epochs": None, "steps": 19, "checkpoint_every": 4, "log_every": 3, **changes}
    return small.recipe(training=changes)


def test_a_run_of_steps_ends_in_the_middle_of_an_epoch(small, tmp_path):
    result = Trainer(steps_recipe(small, validate_every=6), tmp_path / "run", **small.data(), progress="off").fit()
    lines = result.history
    assert [line["step"] for line in lines if line["kind"] == "val"] == [6, 12, 18, 19]
    assert [line["epoch"] for line in lines if line["kind"] == "val"] == [0.75, 1.5, 2.25, 2.375]
    assert lines[-2]["step"] == 19
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_without_an_interval_every_epoch_is_validated_and_the_end(small, tmp_path):
    result = Trainer(steps_recipe(small), tmp_path / "run", **small.data(), progress="off").fit()
    assert [line["step"] for line in result.history if line["kind"] == "val"] == [8, 16, 19]


@pytest.mark.parametrize("at", [5, 6, 8, 12])
def test_a_run_of_steps_goes_on_exactly(small, tmp_path, at):
    recipe = steps_recipe(small, validate_every=6, checkpoint_every=1)
    whole = Trainer(recipe, tmp_path / "whole", **small.data(), progress="off").fit()

    def stop(record):
        if record["step"] >= at:
            raise Stop

    with pytest.raises(Stop):
        Trainer(recipe, tmp_path / "parts", **small.data(), progress="off", callbacks=[stop]).fit()
    parts = Trainer(recipe, tmp_path / "parts", **small.data(), progress="off", resume=True).fit()
    assert parts.history == whole.history


def test_steps_and_epochs_give_the_same_run(small, tmp_path):
    by_epochs = Trainer(small.recipe(), tmp_path / "a", **small.data(), progress="off").fit()
    recipe = small.recipe(training={"epochs": None, "steps": 24})
    by_steps = Trainer(recipe, tmp_path / "b", **small.data(), progress="off").fit()
    assert [line["loss"] for line in by_steps.history] == [line["loss"] for line in by_epochs.history]
    assert by_steps.metrics == by_epochs.metrics


def test_a_run_has_one_length():
    assert (TrainingRecipe().epochs, TrainingRecipe().steps) == (10, None)
    with pytest.raises(ValueError, match="epochs is 3 and steps is 4; a run has one length"):
        TrainingRecipe(epochs=3, steps=4)
    recipe = load_recipe("digits/vit_tiny", ["training.steps=100"])
    assert (recipe.training.epochs, recipe.training.steps) == (None, 100)
    with pytest.raises(ValueError, match=r"training.epochs is 3 and steps is 4"):
        load_recipe("digits/vit_tiny", ["training.steps=4", "training.epochs=3"])
    with pytest.raises(ValueError, match="warmup_epochs and warmup_steps, which are one thing"):
        Recipe.from_mapping({"schedule": {"warmup_epochs": 1.0, "warmup_steps": 3}})


def test_where_a_run_is_measured():
    epochs = Length.of(TrainingRecipe(epochs=3, validate_every=2), 4)
    assert [epochs.validates(4 * (e + 1), e, 4) for e in range(3)] == [False, True, True]
    rays = Length.of(TrainingRecipe(steps=5), None)
    assert [rays.validates(step, 0, step) for step in range(1, 6)] == [False] * 4 + [True]
