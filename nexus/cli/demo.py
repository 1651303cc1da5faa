"""`nexus demo`: the whole way once, on real images that need no download, ending in one HTML report."""

import platform
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import typer
from PIL.Image import Image

from nexus import visualization
from nexus.cli.demo_photos import photo_sections
from nexus.cli.report import write_report
from nexus.core.module import NexusModule
from nexus.data import Dataset, eval_transform, load_dataset
from nexus.deploy import to_backend
from nexus.evaluation import evaluate
from nexus.predict import Predictor
from nexus.tasks.source import evaluating, preprocessing_of
from nexus.training import FitResult, Trainer, load_recipe
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECIPE = "digits/vit_tiny"
SHOWN = 8
FRAMEWORKS = {"numpy": ("NumPy", "numpy"), "jax": ("JAX", "jax"), "mlx": ("MLX", "mlx")}
"""By backend: name and package of the frameworks that the model is brought to, where they are installed."""


def run_demo(folder: Path) -> Path:
    """Trains, evaluates, predicts and explains; returns the path of the report.

    A demo that was run before in this folder is replaced; any other content of the folder is left alone.
    """
    run_dir = folder / "run"
    if run_dir.exists():
        shutil.rmtree(run_dir)
    typer.echo(f"Training {RECIPE} on scikit-learn's handwritten digits.")
    result = Trainer(load_recipe(RECIPE), run_dir).fit()
    held_out = load_dataset("digits", "val")
    evaluation = evaluate(run_dir, held_out)
    model = NexusModule.from_pretrained(run_dir / "model")
    report = write_report(
        folder / "report.html",
        title="A small Vision Transformer on handwritten digits",
        summary=(
            f"Trained in {result.seconds:.0f} seconds on this machine, measured on {len(held_out)} digits that it"
            " never saw, and asked what it looked at."
        ),
        figures_of_merit={
            "held-out accuracy": f"{evaluation.metrics['top1']:.2%}",
            "training time": f"{result.seconds:.0f} s",
            "parameters": f"{model.num_parameters():,}",
            "images to train on": f"{len(load_dataset('digits', 'train')):,}",
        },
        sections=[
            _curves(run_dir),
            *evaluation.sections(held_out),
            _predictions(run_dir, held_out, folder / "images"),
            _explanations(model, held_out),
            _other_frameworks(model, held_out, folder),
            *photo_sections(),
            _settings(result),
        ],
    )
    typer.echo(f"Held-out accuracy: {evaluation.metrics['top1']:.2%} on {len(held_out)} digits.")
    typer.echo(f"Report: {report}")
    return report


def _curves(run_dir: Path) -> Section:
    figure = visualization.plot_training_curves(run_dir)
    return Section(
        title="Training",
        text="Loss, held-out accuracy and learning rate over the steps of the run.",
        pictures=[_picture(figure, "curves of loss, accuracy and learning rate")],
    )


def _predictions(run_dir: Path, data: Dataset, images: Path) -> Section:
    """Writes a few held-out digits as files and predicts them as a user would."""
    images.mkdir(parents=True, exist_ok=True)
    for i in range(SHOWN):
        to_picture(data[i].image).convert("L").save(images / f"digit-{i}.png")
    predictions = Predictor(run_dir)(images)
    sheet = visualization.contact_sheet(
        [prediction.load_image() for prediction in predictions],
        [f"{prediction.label} ({prediction.score:.0%})" for prediction in predictions],
    )
    return Section(
        title="Predictions",
        text=f"Held-out digits, saved as files and given to the predictor: nexus predict {images} --model {run_dir}",
        pictures=[_picture(sheet, "digits with the predicted label")],
    )


def _explanations(model: NexusModule, data: Dataset) -> Section:
    preprocessing = preprocessing_of(model)
    transform = eval_transform(preprocessing)
    pixels = torch.stack([transform(data[i].image) for i in range(SHOWN)])
    layout = model.token_layout(pixels.shape[-2:])
    with evaluating(model):
        attentions = model(pixels, output_attentions=True)["attentions"]
    heat = visualization.GradCAM(model)(pixels)
    rollout = visualization.attention_map(visualization.attention_rollout(attentions), layout)
    rollout = rollout - rollout.amin(dim=(1, 2), keepdim=True)
    rollout = rollout / rollout.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    pictures = [to_picture(image, preprocessing) for image in pixels]
    maps = visualization.plot_attention_maps(
        attentions, num_layers=len(attentions), image=pixels[0], layout=layout, preprocessing=preprocessing
    )
    return Section(
        title="What it looked at",
        text=(
            "First row: the digits. Second: GradCAM, the pixels that speak for the guessed class. Third: attention"
            " rollout, the patches whose content reaches the class token. Below: its attention, layer by layer."
        ),
        pictures=[
            _picture(_explanation_sheet(pictures, heat, rollout), "digits, GradCAM and attention rollout"),
            _picture(maps, "attention maps of each layer"),
        ],
    )


def _explanation_sheet(pictures: Sequence[Image], heat: torch.Tensor, rollout: torch.Tensor) -> Image:
    laid_over = [visualization.overlay(p, h, side=112) for maps in (heat, rollout) for p, h in zip(pictures, maps)]
    spoken = ["GradCAM" if one.any() else "nothing speaks for it" for one in heat]
    captions = ["image"] * len(pictures) + spoken + ["rollout"] * len(pictures)
    return visualization.contact_sheet([*pictures, *laid_over], captions, columns=len(pictures))


def _other_frameworks(model: NexusModule, data: Dataset, folder: Path) -> Section:
    """Runs the model's import on every framework that is there, and writes the programs beside the report."""
    transform = eval_transform(preprocessing_of(model))
    pixels = torch.stack([transform(data[i].image) for i in range(len(data))])
    with evaluating(model):
        expected = model(pixels)["logits"].numpy()
    rows, links = [], {}
    for name, (title, package) in FRAMEWORKS.items():
        if find_spec(package) is None:
            continue
        brought = to_backend(model, name)
        logits = brought(pixels)["logits"]
        program = f"vit_on_{name}.py"
        brought.save_source(folder / program)
        same = int((logits.argmax(axis=1) == expected.argmax(axis=1)).sum())
        rows.append(
            {
                "framework": title,
                "same digit as PyTorch": f"{same} of {len(data)}",
                "largest difference of a logit": f"{abs(logits - expected).max():.1e}",
                "largest logit": f"{abs(expected).max():.1f}",
                "lines of the program": len(brought.compiled.source.splitlines()),
            }
        )
        links[program] = f"the program for {title}, written by mithril; it needs {title} alone"
    return Section(
        title="The same model without PyTorch",
        text=(
            "The trained model, imported by ml.from_torch, compiled for other frameworks, and asked about all"
            f" {len(data)} held-out digits."
        ),
        rows=rows,
        links=links,
    )


def _settings(result: FitResult) -> Section:
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    lines = [f"# {name} {value}" for name, value in versions.items()]
    lines += [f"# threads {torch.get_num_threads()}", (result.run_dir / "recipe.yaml").read_text(encoding="utf-8")]
    return Section(
        title="Settings of the run",
        text=f"The same run again: nexus train {RECIPE}",
        code="\n".join(lines),
    )


def _picture(picture: "Figure | Image", alt: str) -> Picture:
    return Picture(data=visualization.to_data_uri(picture), alt=alt)
