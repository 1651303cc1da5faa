"""The range test of learning rates: a curve with the right shape, a suggestion on its slope, nothing left behind."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import nexus
from nexus.cli.commands import app
from nexus.training.rates import suggested

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X[:, :, None, None], (X[:, 0] > 0).long())


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2))


def test_the_curve_rises_through_the_range_and_ends_where_the_loss_diverges():
    test = nexus.find_lr(
        linear(), DATA, steps=60, lowest=1e-5, highest=1e4, batch_size=32, optimizer={"name": "sgd", "momentum": 0.0}
    )
    ratios = np.diff(np.log(test.rates))
    assert test.rates[0] == pytest.approx(1e-5)
    assert np.allclose(ratios, math.log(1e9) / 59)
    assert len(test.rates) < 60
    assert 1e-3 < test.suggestion < 1e2
    assert min(test.losses) < 0.5 < test.losses[0]
    assert f"lr={test.suggestion:.2g}" in repr(test)
    assert test._repr_png_().startswith(b"\x89PNG")


def test_the_suggestion_lies_where_the_loss_falls_fastest():
    rates = np.logspace(-6, 0, 61)
    losses = 1 - 1 / (1 + np.exp(-(np.log10(rates) + 3) * 4))  # steepest at 1e-3
    losses[55:] += np.linspace(0, 3, 6)
    assert 3e-4 < suggested(rates, losses) < 1e-2  # the mean over some steps lags
    assert suggested(rates, np.linspace(0, 5, 61)) is None
    assert suggested(rates[:5], losses[:5]) is None


def test_the_model_is_left_as_it_was_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = linear()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    nexus.find_lr(model, DATA, steps=20, batch_size=32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_layers_of_different_rates_rise_together():
    test = nexus.find_lr(
        linear(), DATA, steps=20, batch_size=32, lr=1e-2, lr_factors={"1.": 0.1}, highest=1e-3, lowest=1e-5
    )
    assert max(test.rates) <= 1e-3


@pytest.mark.parametrize(
    "settings", [{"lowest": 0.0}, {"lowest": 1.0, "highest": 0.1}, {"steps": 1}, {"highest": math.inf}]
)
def test_an_empty_range_is_refused(settings):
    with pytest.raises(ValueError, match="give 0 < lowest < highest, 2 steps"):
        nexus.find_lr(linear(), DATA, **settings)


def test_the_command_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["train", "digits/vit_tiny", "--find-lr", "training.batch_size=32", "--run-dir", "runs/a"]
    )
    assert result.exit_code == 0, result.output
    assert "Train with lr=" in result.output or "The loss falls at no rate" in result.output
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a-lr.png"]
