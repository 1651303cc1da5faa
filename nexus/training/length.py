"""How long a run is: in epochs or in steps."""

from dataclasses import dataclass

from nexus.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Length:
    """A run's length and its places.

    Attributes:
        steps: Optimizer steps of the whole run.
        per_epoch: Steps of an epoch; None where the data has no epochs, as rays have none.
        in_epochs: Whether the run is counted in epochs; else in steps.
        validate_every: In that unit; None is every epoch, or, without epochs, the end alone.
    """

    steps: int
    per_epoch: int | None
    in_epochs: bool
    validate_every: int | None

    @classmethod
    def of(cls, settings: TrainingRecipe, per_epoch: int | None) -> "Length":
        """Returns the length that a recipe asks for.

        Raises:
            ValueError: It counts epochs, and the data has none.
        """
        return cls(
            run_steps(per_epoch, settings.epochs, settings.steps),
            per_epoch,
            settings.steps is None,
            settings.validate_every,
        )

    def ends_epoch(self, batches: int) -> bool:
        """Whether an epoch is over after so many of its batches."""
        return self.per_epoch is not None and batches >= self.per_epoch

    def validates(self, step: int, epoch: int, batches: int) -> bool:
        """Whether held-out data is measured at a step: after so many batches of the epoch, counted from 0."""
        at_end, every = step >= self.steps, self.validate_every
        if self.in_epochs or every is None:
            return at_end or (self.ends_epoch(batches) and (epoch + 1) % (every or 1) == 0)
        return at_end or step % every == 0

    def epoch_at(self, step: int) -> dict[str, float]:
        """Returns what a record says of the epoch: nothing where there are none."""
        return {} if self.per_epoch is None else {"epoch": round(step / self.per_epoch, 4)}


def run_steps(per_epoch: int | None, epochs: int | None, steps: int | None) -> int:
    """Returns the steps of a run.

    Raises:
        ValueError: It counts epochs, and the data has none.
    """
    if steps is not None:
        return steps
    assert epochs is not None, "a recipe has one of both"
    if per_epoch is None:
        raise ValueError(f"training.epochs is {epochs}, and this data has no epochs; set training.steps instead.")
    return per_epoch * epochs


def in_steps(epochs: float, per_epoch: int | None, key: str) -> int:
    """Returns a number of epochs as steps.

    Raises:
        ValueError: The data has no epochs; the message names the key, and the one that counts steps.
    """
    if per_epoch is None:
        other = key.replace("_epochs", "_steps").replace("milestones", "milestone_steps")
        raise ValueError(f"schedule.{key} counts epochs, and this data has none; set schedule.{other}.")
    return round(epochs * per_epoch)
