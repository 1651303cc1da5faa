"""Schedules: the seeds' one against transformers, the others by what they promise."""

import itertools

import pytest
import torch

from nexus.training import get_cosine_schedule_with_warmup
from nexus.training.recipe import ScheduleRecipe
from nexus.training.schedules import make_schedule, schedule_factor


def optimizer(lr=0.5):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(schedule, steps):
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return values


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10)])
def test_cosine_equals_transformers(transformers, warmup, total):
    ours = get_cosine_schedule_with_warmup(optimizer(), num_warmup_steps=warmup, num_training_steps=total)
    theirs = transformers.get_cosine_schedule_with_warmup(optimizer(), warmup, total)
    assert rates(ours, total + 3) == rates(theirs, total + 3)


def factors(total=100, per_epoch=10, warmup=10, **settings):
    factor = schedule_factor(ScheduleRecipe(**settings), warmup, total, per_epoch)
    return [factor(step) for step in range(total + 1)]


@pytest.mark.parametrize("name", ["cosine", "polynomial", "wsd", "constant"])
def test_warms_up_and_ends_at_the_floor(name):
    values = factors(name=name, floor=0.1)
    assert values[:11] == pytest.approx([step / 10 for step in range(11)])
    assert values[-1] == pytest.approx(1.0 if name == "constant" else 0.1)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(values[10:]))


def test_wsd_is_stable_and_then_decays():
    values = factors(name="wsd", decay=0.3)
    assert set(values[10:71]) == {1.0}
    assert values[71:] == pytest.approx([left / 30 for left in range(29, -1, -1)])


def test_step_drops_at_milestones():
    values = factors(name="step", milestones=(3, 6.5), gamma=0.5, warmup=0)
    assert (values[29], values[30], values[64], values[65]) == (1.0, 0.5, 0.5, 0.25)


def test_polynomial_of_power_two():
    assert factors(name="polynomial", power=2.0, warmup=0)[50] == pytest.approx(0.25)


def test_warmup_longer_than_the_run():
    with pytest.raises(ValueError, match=r"warmup_epochs is 5.0 and training.epochs is 4; the warm-up must be shorter"):
        make_schedule(optimizer(), ScheduleRecipe(warmup_epochs=5), steps_per_epoch=10, epochs=4)
