"""What is kept of a run: the best weights or the last, and when it stops because nothing gets better."""

import json

import pytest
import torch

from nexus.core.module import NexusModule
from nexus.training import Trainer

WORSE = {"lr": 0.5}  # so high that the first validation is not the worst


def best_step(history, name="top1"):
    figures = [(record["step"], record[name]) for record in history if record["kind"] == "val"]
    return max(figures, key=lambda pair: (pair[1], -pair[0]))[0]


def weights(folder):
    return NexusModule.from_pretrained(folder / "model").state_dict()


def saved(folder, step):
    state = torch.load(folder / "checkpoints" / f"step-{step:08d}" / "state.pt", weights_only=True)
    return state["model_ema"] or state["model"]


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_weights_are_kept_and_said(small, tmp_path, capsys, ema):
    recipe = small.recipe(optimizer=WORSE, training={"epochs": 6, "ema": ema})
    result = Trainer(recipe, tmp_path / "run", **small.data(), progress="lines").fit()
    assert result.step == best_step(result.history)
    assert result.step < 48, "the last is the best: this shows nothing"
    for name, value in saved(tmp_path / "run", result.step).items():
        assert torch.equal(weights(tmp_path / "run")[name], value)
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (told["step"], told["metrics"]) == (result.step, result.metrics)
    said = capsys.readouterr().err
    assert f"model/ holds the best weights, of epoch {result.step / 8:g}, step {result.step} of 48 (top1" in said


def test_the_last_weights_are_kept_if_asked(small, tmp_path):
    recipe = small.recipe(optimizer=WORSE, training={"epochs": 6, "keep": "last"})
    result = Trainer(recipe, tmp_path / "run", **small.data(), progress="off").fit()
    assert result.step == 48
    for name, value in saved(tmp_path / "run", 48).items():
        assert torch.equal(weights(tmp_path / "run")[name], value)


def test_a_run_stops_when_nothing_gets_better_and_can_go_on(small, tmp_path):
    impatient = small.recipe(optimizer={"lr": 1e-12}, training={"epochs": 9, "patience": 2})
    result = Trainer(impatient, tmp_path / "run", **small.data(), progress="off").fit()
    assert [record["step"] for record in result.history if record["kind"] == "val"] == [8, 16, 24]
    assert result.step == 8
    again = Trainer(impatient, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert again.history == result.history
    patient = impatient.replace(training=impatient.training.replace(patience=4))
    longer = Trainer(patient, tmp_path / "run", **small.data(), resume=True, progress="off").fit()
    assert longer.history[-1]["step"] == 40


def test_patience_needs_something_to_look_at(small, tmp_path):
    recipe = small.recipe(training={"patience": 2})
    with pytest.raises(ValueError, match=r"training\.patience is 2, and no data is held out"):
        Trainer(recipe, tmp_path / "run", train_data=small.data()["train_data"], progress="off").fit()


def test_data_that_was_given_is_not_taken_for_the_recipes(small, tmp_path):
    Trainer(small.recipe(training={"epochs": 2}), tmp_path / "run", **small.data(), progress="off").fit()
    assert "source: given" in (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match="was given in Python"):
        Trainer(small.recipe(training={"epochs": 2}, data={"source": "given"}), tmp_path / "b", progress="off").fit()
