"""Does masked pre-training help where labels are few? Fine-tuning on 100 labelled digits, from MAE and from scratch.

A masked autoencoder learns from the 1,437 training digits without their labels, once. Then, for each seed, 100 labels
are drawn (10 of each class), and the same recipe trains its encoder and a fresh one of the same size, for as many
steps. Its rate, 3e-3 without layer decay, is best or within 0.1 % of the best for both on training digits whose labels
were not drawn (of seeds 10 to 12, `--choose`). Accuracy is that on the 360 held-out digits.

    python benchmarks/mae_digits.py
    python benchmarks/mae_digits.py --seeds 1 --epochs 5
    python benchmarks/mae_digits.py --choose
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nexus.core.module import NexusModule
from nexus.data import Dataset, Sample, load_dataset
from nexus.models.cv import MAE, VisionTransformer
from nexus.training import Recipe, Trainer, load_recipe

LAST = ("training.device=cpu", "training.keep=last")  # the best would be chosen by the digits that it is measured on
PRE_TRAINING = "digits/mae_tiny"
FINE_TUNING = "digits/mae_tiny_finetune"
CHOICES = [
    [f"optimizer.lr={lr}", f"optimizer.layer_decay={decay}"]
    for decay in ("null", "0.75")
    for lr in ("1e-3", "3e-3", "6e-3")
]
CHOOSING_SEEDS = (10, 11, 12)


@dataclass
class Few:
    """A part of a data set."""

    whole: Dataset
    places: np.ndarray

    def __post_init__(self) -> None:
        self.name, self.in_channels = f"{len(self.places)} of {self.whole.name}", self.whole.in_channels
        self.class_names, self.labels = self.whole.class_names, self.whole.labels[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[int(self.places[index])]


def draw_labels(data: Dataset, per_class: int, seed: int) -> Few:
    """Returns a part with as many samples of each class."""
    rng = np.random.default_rng(seed)
    classes = range(len(data.class_names))
    drawn = [rng.choice(np.flatnonzero(data.labels == label), per_class, replace=False) for label in classes]
    return Few(data, np.sort(np.concatenate(drawn)))


def accuracy(model: NexusModule, labelled: Few, recipe: Recipe, held_out: Dataset, folder: Path) -> float:
    """Returns the share of held-out digits that the model gets right after training on the labelled ones."""
    trainer = Trainer(recipe, folder, model=model, train_data=labelled, val_data=held_out, progress="off")
    return trainer.fit().metrics["top1"]


def rest(labelled: Few) -> Few:
    """Returns the training digits whose labels were not drawn."""
    return Few(labelled.whole, np.setdiff1d(np.arange(len(labelled.whole)), labelled.places))


def encoders(pretrained: MAE, recipe: Recipe, seed: int) -> tuple[NexusModule, NexusModule]:
    """Returns the encoder of the masked autoencoder, and a fresh one of the same size, each with a head for digits."""
    config = pretrained.config.encoder.replace(**{"num_classes": 10} | recipe.model.config)
    torch.manual_seed(seed)
    return pretrained.to_classifier(10, **recipe.model.config), VisionTransformer(config)


def recipe_of(changes: list[str], seed: int) -> Recipe:
    return load_recipe(FINE_TUNING, [*LAST, f"training.seed={seed}", *changes])


def pretrain(folder: Path, changes: list[str]) -> MAE:
    """Trains the masked autoencoder and prints how well it fills in what is hidden."""
    started = time.perf_counter()
    recipe = load_recipe(PRE_TRAINING, [*LAST, *changes])
    result = Trainer(recipe, folder, progress="off").fit()
    first = next(record["loss"] for record in result.history if record["kind"] == "train")
    print(
        f"pre-training without labels: {time.perf_counter() - started:.0f} s; loss {first:.3f} ->"
        f" {result.metrics['loss']:.3f} held out, {result.metrics['explained']:.0%} of hidden pixels explained"
    )
    return MAE.from_pretrained(folder / "model")


def choose(pretrained: MAE, train: Dataset, per_class: int, folder: Path) -> None:
    """Prints the mean accuracy of both arms on training digits whose labels were not drawn, for each choice."""
    print(f"{'settings':50} from MAE   from scratch")
    for changes in CHOICES:
        rows = []
        for seed in CHOOSING_SEEDS:
            labelled, recipe = draw_labels(train, per_class, seed), recipe_of(changes, seed)
            models = enumerate(encoders(pretrained, recipe, seed))
            place = folder / "-".join(changes).replace("/", "-") / str(seed)
            rows.append([accuracy(model, labelled, recipe, rest(labelled), place / str(arm)) for arm, model in models])
        tuned, scratch = np.mean(rows, axis=0)
        print(f"{' '.join(changes):50} {tuned:8.1%}   {scratch:12.1%}", flush=True)


def compare(pretrained: MAE, train: Dataset, per_class: int, seeds: int, folder: Path, changes: list[str]) -> None:
    """Prints the accuracy of both arms on the held-out digits, seed by seed."""
    held_out = load_dataset("digits", "val")
    print(f"\n{10 * per_class} labels, {len(held_out)} held-out digits\n")
    print(" seed   from MAE   from scratch   difference")
    rows = []
    for seed in range(seeds):
        labelled = draw_labels(train, per_class, seed)
        recipe = recipe_of(changes, seed)
        arms = zip(encoders(pretrained, recipe, seed), (f"tuned{seed}", f"scratch{seed}"))
        pair = [accuracy(model, labelled, recipe, held_out, folder / name) for model, name in arms]
        rows.append(pair)
        print(f"{seed:5d}   {pair[0]:8.1%}   {pair[1]:12.1%}   {pair[0] - pair[1]:+10.1%}", flush=True)
    tuned, scratch = np.mean(rows, axis=0)
    print(f" mean   {tuned:8.1%}   {scratch:12.1%}   {tuned - scratch:+10.1%}")
    print(f"\nfine-tuning from MAE wins {sum(a > b for a, b in rows)} of {len(rows)}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--labels", type=int, default=10, help="of each class")
    options.add_argument("--epochs", type=int, default=None, help="of pre-training; the recipe's by default")
    options.add_argument("--pretrained", type=Path, help="model/ of a run of digits/mae_tiny, instead of training one")
    options.add_argument("--choose", action="store_true", help="compare settings on labels that were not drawn")
    options.add_argument("--quick", action="store_true", help="an epoch of each, one draw: to see that it runs")
    chosen = options.parse_args()
    seeds, changes = (1, ["training.epochs=1", "schedule.warmup_epochs=0.1"]) if chosen.quick else (chosen.seeds, [])
    pretraining = [*changes, *([f"training.epochs={chosen.epochs}"] if chosen.epochs else [])]
    train = load_dataset("digits", "train")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = (
            pretrain(folder / "mae", pretraining)
            if chosen.pretrained is None
            else MAE.from_pretrained(chosen.pretrained)
        )
        if chosen.choose:
            choose(model, train, chosen.labels, folder)
        else:
            compare(model, train, chosen.labels, seeds, folder, changes)


if __name__ == "__main__":
    main()
