"""Trains a small ViT on the digits and draws which places of one digit speak for the guess."""

import argparse

from nexus.data import eval_transform, load_dataset
from nexus.training import Trainer, load_recipe
from nexus.visualization import GradCAM, overlay

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--run-dir", default="runs/digits")
arguments = parser.parse_args()

recipe = load_recipe("digits/vit_tiny", [f"training.epochs={arguments.epochs}"])
result = Trainer(recipe, arguments.run_dir).fit()
print(f"top-1 on held-out digits: {result.metrics['top1']:.2%}")

model = result.model
image = eval_transform(model.preprocessing)(load_dataset("digits", "val")[0].image)[None]
heat = GradCAM(model)(image)
overlay(image[0], heat[0], preprocessing=model.preprocessing).save(result.run_dir / "gradcam.png")
