"""Learning-rate schedules: functions from the step to a share of the peak rate."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nexus.training.length import in_steps, run_steps
from nexus.training.recipe import ScheduleRecipe

Factor = Callable[[int], float]


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """Returns a scheduler: linear from 0 to the optimizer's rate, then along a cosine to 0.

    Args:
        optimizer: Its current rates are the peak.
        num_warmup_steps: Steps of the linear rise.
        num_training_steps: All steps, the warm-up included.
        num_cycles: Waves of the cosine; one half ends at 0.
        last_epoch: The last step done when a run is continued.
    """
    factor = partial(cosine, warmup=num_warmup_steps, total=num_training_steps, cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def make_schedule(
    optimizer: Optimizer,
    recipe: ScheduleRecipe,
    steps_per_epoch: int | None,
    epochs: int | None = None,
    steps: int | None = None,
) -> LambdaLR:
    """Returns the scheduler of a recipe; it is stepped once per optimizer step.

    Args:
        optimizer: Its rates are the peak.
        recipe: The curve.
        steps_per_epoch: None where the data has no epochs.
        epochs: Length of the run;
        steps: or this, instead.

    Raises:
        ValueError: The warm-up is longer than the run, or counts epochs of data that has none.
    """
    total = run_steps(steps_per_epoch, epochs, steps)
    warmup = recipe.warmup_steps or 0
    if recipe.warmup_epochs:
        warmup = in_steps(recipe.warmup_epochs, steps_per_epoch, "warmup_epochs")
    if warmup >= total > 0 and epochs is None:
        raise ValueError(
            f"The warm-up has {warmup} steps and the run {total}; the warm-up must be shorter than the run."
        )
    if warmup >= total > 0:
        assert epochs is not None
        raise ValueError(
            f"schedule.warmup_epochs is {recipe.warmup_epochs} and training.epochs is {epochs};"
            f" the warm-up must be shorter than the run: train longer, or set schedule.warmup_epochs={epochs / 10:g}."
        )
    return LambdaLR(optimizer, schedule_factor(recipe, warmup, total, steps_per_epoch))


def schedule_factor(recipe: ScheduleRecipe, warmup: int, total: int, steps_per_epoch: int | None) -> Factor:
    """Returns the function from the step to the share of the peak rate."""
    match recipe.name:
        case "cosine":
            return partial(cosine, warmup=warmup, total=total, floor=recipe.floor)
        case "step":
            milestones = [in_steps(epoch, steps_per_epoch, "milestones") for epoch in recipe.milestones]
            milestones += recipe.milestone_steps
            return partial(steps, warmup=warmup, milestones=milestones, gamma=recipe.gamma)
        case "polynomial":
            return partial(polynomial, warmup=warmup, total=total, power=recipe.power, floor=recipe.floor)
        case "wsd":
            decay = max(1, round(recipe.decay * total))
            return partial(warmup_stable_decay, warmup=warmup, total=total, decay=decay, floor=recipe.floor)
        case "constant":
            return partial(constant, warmup=warmup)


def constant(step: int, *, warmup: int) -> float:
    """Linear rise over `warmup` steps, then 1."""
    return step / warmup if step < warmup else 1.0


def cosine(step: int, *, warmup: int, total: int, cycles: float = 0.5, floor: float = 0.0) -> float:
    """Linear rise, then along a cosine to `floor` (Loshchilov and Hutter 2017, without restarts)."""
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    wave = max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * cycles * progress)))
    return floor + (1.0 - floor) * wave


def polynomial(step: int, *, warmup: int, total: int, power: float = 1.0, floor: float = 0.0) -> float:
    """Linear rise, then `(1 - progress) ** power` to `floor`."""
    if step < warmup:
        return step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1.0 - floor) * (1.0 - progress) ** power


def steps(step: int, *, warmup: int, milestones: Sequence[int], gamma: float) -> float:
    """Linear rise, and times `gamma` from every milestone on."""
    return constant(step, warmup=warmup) * gamma ** sum(step >= milestone for milestone in milestones)


def warmup_stable_decay(step: int, *, warmup: int, total: int, decay: int, floor: float = 0.0) -> float:
    """Linear rise, constant, and linear to `floor` in the last `decay` steps (Hu et al. 2024, "MiniCPM", Sec. 4)."""
    remaining = max(0, total - step)
    if step < warmup or remaining >= decay:
        return constant(step, warmup=warmup)
    return floor + (1.0 - floor) * remaining / decay
