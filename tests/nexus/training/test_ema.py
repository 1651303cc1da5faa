"""The average of the weights, by its formula."""

import pytest
import torch
from torch import nn

from nexus.training.ema import WeightAverage


def test_follows_the_formula():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.9)
    expected = model[0].weight.detach().clone()
    for step in range(1, 150):
        with torch.no_grad():
            model[0].weight.normal_()
            model[1].running_mean.fill_(step)
            model[1].num_batches_tracked.fill_(step)
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(average.values["0.weight"], expected)
    assert average.values["1.running_mean"].tolist() == [149, 149]
    assert average.values["1.num_batches_tracked"] == 149


def test_applied_and_taken_back():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5)
    average.values["bias"].fill_(7)
    own = model.bias.detach().clone()
    with pytest.raises(RuntimeError, match="shape"), average.applied(model):
        model(torch.zeros(1, 3))  # fails with the averaged weights in place
    assert torch.equal(model.bias, own)
    with average.applied(model):
        assert model.bias.tolist() == [7, 7]
