"""Fine-tunes a ResNet on a folder of images: FOLDER/train/<class>/*.jpg and FOLDER/val/<class>/*.jpg."""

import argparse

import nexus

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder")
parser.add_argument("--model", default="resnet50")
parser.add_argument("--from-scratch", action="store_true", help="Do not load published weights (no network needed).")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--run-dir", default="runs/finetuned")
arguments = parser.parse_args()

result = nexus.fit(
    arguments.model,
    f"folder:{arguments.folder}",
    run_dir=arguments.run_dir,
    pretrained=not arguments.from_scratch,
    epochs=arguments.epochs,
    batch_size=arguments.batch_size,
    lr=1e-4,
)
print(f"top-1 on held-out images: {result.metrics['top1']:.2%}; the model is in {result.run_dir / 'model'}")
