"""Does masked pre-training help where labels are few? Fine-tuning on 100 labelled digits, from MAE and from scratch.

A masked autoencoder learns from the 1,437 training digits without their labels, once. Then, for each seed, 100 labels
are drawn (10 of each class), and the same recipe trains its encoder and a fresh one of the same size. Accuracy is that
on the 360 held-out digits.

    python benchmarks/mae_digits.py
    python benchmarks/mae_digits.py --seeds 1 --epochs 5
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

PRE_TRAINING = "digits/mae_tiny"
FINE_TUNING = "digits/mae_tiny_finetune"


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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--labels", type=int, default=10, help="of each class")
    options.add_argument("--epochs", type=int, default=None, help="of pre-training; the recipe's by default")
    chosen = options.parse_args()
    started = time.perf_counter()
    train, held_out = load_dataset("digits", "train"), load_dataset("digits", "val")
    changes = ["training.device=cpu", *([f"training.epochs={chosen.epochs}"] if chosen.epochs else [])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = Trainer(load_recipe(PRE_TRAINING, changes), folder / "mae", progress="off").fit()
        pretrained = MAE.from_pretrained(folder / "mae" / "model")
        first = next(record["loss"] for record in result.history if record["kind"] == "train")
        seconds = time.perf_counter() - started
        print(
            f"pre-training: {len(train)} digits without labels, {seconds:.0f} s; loss {first:.3f} ->"
            f" {result.metrics['loss']:.3f} held out, {result.metrics['explained']:.0%} of hidden pixels explained"
        )
        print(f"\n{10 * chosen.labels} labels, {len(held_out)} held-out digits\n")
        print(" seed   from MAE   from scratch   difference")
        rows = []
        for seed in range(chosen.seeds):
            labelled = draw_labels(train, chosen.labels, seed)
            seeded = ["training.device=cpu", f"training.seed={seed}"]
            recipe = load_recipe(FINE_TUNING, seeded)
            config = pretrained.config.encoder.replace(**{"num_classes": 10} | recipe.model.config)
            torch.manual_seed(seed)
            models = pretrained.to_classifier(10, **recipe.model.config), VisionTransformer(config)
            arms = zip(models, (f"tuned{seed}", f"scratch{seed}"))
            pair = [accuracy(model, labelled, recipe, held_out, folder / name) for model, name in arms]
            rows.append(pair)
            print(f"{seed:5d}   {pair[0]:8.1%}   {pair[1]:12.1%}   {pair[0] - pair[1]:+10.1%}", flush=True)
    tuned, scratch = np.mean(rows, axis=0)
    wins = sum(a > b for a, b in rows)
    print(f" mean   {tuned:8.1%}   {scratch:12.1%}   {tuned - scratch:+10.1%}")
    print(f"\nfine-tuning from MAE wins {wins} of {len(rows)}; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
