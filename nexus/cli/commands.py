"""Every command of `nexus`: its arguments and the few lines that connect them to the library."""

from pathlib import Path
from typing import Annotated

import typer

from nexus import __version__
from nexus.cli.data import data as data_commands
from nexus.cli.offered import Commands
from nexus.cli.output import fail, show_json, show_table

app = typer.Typer(
    name="nexus",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_commands, name="data")


def _import_modules(names: list[str] | None) -> list[str] | None:
    """Imports what the user names before the command runs."""
    from nexus.cli.modules import import_module

    for name in names or ():
        import_module(name)
    return names


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[str, typer.Option("--model", "-m", help="A registered name, a run's folder, or saved weights.")]
Asked = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A registered name, a run's folder, or saved weights; by default EfficientNet-Lite0 (ImageNet).",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Of a model that reads texts: its folder, or a repository of the hub."),
]
Imported = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="A module of yours, which registers models, data or kinds of model: my_package, or my_models.py.",
        callback=_import_modules,
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; the best there is by default.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nexus {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
    imported: Imported = None,
) -> None:
    """Train, evaluate, explain and use vision models."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the run and the report go.")] = Path("demo"),
) -> None:
    """Run the whole tour on handwritten digits.

    Trains a small ViT, evaluates it on held-out digits, predicts and explains a few, and writes one HTML report.
    """
    from nexus.cli.demo import run_demo

    run_demo(output)


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A model's name, or a recipe's name or YAML file (`--list`); with --resume, a run's folder."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings: epochs=10 lr=3e-4 batch_size=8 data.num_workers=4 ...")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="folder:PATH, coco:PATH, ... instead of the recipe's.")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the published weights.")] = False,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", "-o", help="Default: a folder under runs/, called by data and model.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run, its folder named here or in -o.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="With --resume: go on though the data has changed.")
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the recipes and stop.")] = False,
    imported: Imported = None,
) -> None:
    """Train a model on your data, or by a recipe: nexus train resnet18 --data folder:photos epochs=10 lr=3e-4.

    Start it with torchrun to use several processes: `torchrun --nproc-per-node 2 -m nexus train ...`.
    """
    from nexus.cli.train import order, run
    from nexus.training import list_recipes

    if show_list:
        typer.echo("\n".join(list_recipes()))
        return
    wanted = order(what, changes or [], data=data, pretrained=pretrained, run_dir=run_dir, resume=resume)
    run(wanted, resume=resume, allow_changes=allow_changes, dry_run=dry_run)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A registered name, a run's folder, or saved weights.")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="folder:PATH, coco:PATH, ...; a run's own, else digits, by default."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1)] = 64,
    probe: Annotated[
        str | None, typer.Option("--probe", help="Measure frozen features instead: knn, or linear.")
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Also look at each image mirrored, and take the mean of both answers.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the figures (.json), or a detector's results (.coco.json)."),
    ] = None,
    tokenizer: Tokenizer = None,
    imported: Imported = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure a model on a data set.

    With --probe, a classifier on top of the model's frozen features learns from the data's "train" and is measured.
    """
    from nexus.cli.runs import own_data
    from nexus.evaluation import evaluate as run
    from nexus.evaluation import probe as run_probe

    data, root = (data, None) if data is not None else own_data(model) or ("digits", None)
    if probe is not None:
        measured = run_probe(model, data, probe, split=split, root=root, batch_size=batch_size, device=device)
        figures = {**measured.metrics, **measured.settings, "train images": measured.num_train}
        rows = [{"figure": name, "value": value} for name, value in figures.items()]
        show_json(measured.to_json()) if as_json else show_table(rows)
        return
    report = run(
        model, data, split=split, root=root, batch_size=batch_size, device=device, tokenizer=tokenizer, flip=flip
    )
    if output is not None:
        report.write(output)
    if as_json:
        show_json(report.to_json())
        return
    for rows in report.tables().values():
        show_table(rows)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="The folder of a finished run.")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="Instead of the run's own.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: report.html in the run.")] = None,
    imported: Imported = None,
    device: Device = None,
) -> None:
    """Write one page about a run: curves, figures, mistakes, predictions, settings."""
    from nexus.cli.run_report import report_run

    typer.echo(f"Report: {report_run(run, data=data, split=split, output=output, device=device)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two runs or more.")],
    as_json: Json = False,
) -> None:
    """Show runs side by side: the settings that differ, and the figures."""
    from nexus.cli.compare import compare_runs

    tables = compare_runs(runs)
    if as_json:
        show_json(tables)
        return
    for rows in tables.values():
        show_table(rows)


@app.command()
def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, patterns, addresses or videos; none for a model that sees no image."),
    ] = None,
    model: Asked = None,
    top: Annotated[
        int | None, typer.Option("--top", help="Guesses per image; 5, or all objects of a detector.", min=1)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write a .csv, .json or .coco.json file, or YOLO's folder."),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Of a .csv: a line per guess with its rank, not a column per class.")
    ] = False,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Of a .coco.json: take image and class numbers from coco:PATH.")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            help="Objects of a detector: 0.3 in the table and in pictures, 0 in files and JSON by default.",
            min=0,
            max=1,
        ),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Also write pictures into this folder, or frames into this .mp4.")
    ] = None,
    every: Annotated[int, typer.Option("--every", help="Of a video, use each so many frames.", min=1)] = 1,
    tile: Annotated[
        int | None, typer.Option("--tile", help="Let a detector look at large images in tiles of so many pixels.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option("--overlap", help="Share of a tile that the next one repeats; 0.2 by default.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="What the model is asked: a word, a question, a point; may be given again."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="The same for words, all at once: 'cat, red car'.")
    ] = None,
    tokenizer: Tokenizer = None,
    imported: Imported = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1)] = 16,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be read.")] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Ask a model about images: classes, objects, answers, whatever its kind gives."""
    from nexus.cli.predict import predict_images, show_predictions
    from nexus.predict import DEFAULT_MODEL, Predictor, write_predictions
    from nexus.tasks import Tiling

    if tile is None and overlap is not None:
        fail("--overlap is for --tile; give both, or leave it out.")
    tiles = None if tile is None else Tiling(size=tile, overlap=0.2 if overlap is None else overlap)
    predictor = Predictor(
        model or DEFAULT_MODEL,
        device=device,
        batch_size=batch_size,
        strict=strict,
        tiles=tiles,
        tokenizer=tokenizer,
    )
    texts = [*(prompt or []), *(classes.split(",") if classes is not None else [])]
    predictions = predict_images(predictor, images, prompts=texts, draw=draw, every=every, min_score=min_score)
    if output is not None:
        write_predictions(predictions, output, top=top, data=data, long=long)
    limit = {} if top is None else {"count": top}
    if as_json:
        show_json([prediction.to_json(**limit) for prediction in predictions])
        return
    show_predictions(predictions, limit, min_score)
    if draw is not None:
        typer.echo(f"Drawn into {draw}.")


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="One image file, or its address.")],
    model: Asked = None,
    method: Annotated[str, typer.Option("--method", help="gradcam, attention, rollout or features.")] = "gradcam",
    layer: Annotated[str | None, typer.Option("--layer", help="A module's path, such as blocks.11.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="The class to explain, a name or number, the guess by default; of a detector, which object.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("explanation.png"),
    imported: Imported = None,
    device: Device = None,
) -> None:
    """Draw what a model looked at in an image."""
    from nexus.cli.explain import as_target, explain_image
    from nexus.predict import DEFAULT_MODEL

    title = explain_image(image, model or DEFAULT_MODEL, method, layer, as_target(target), output, device)
    typer.echo(f"{title} Picture: {output}")


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'vit_*'.")] = "*",
    task: Annotated[str | None, typer.Option("--task", help="classification, detection, ...")] = None,
    imported: Imported = None,
    as_json: Json = False,
) -> None:
    """List the registered models."""
    from nexus.cli.listing import kept_rows, live_rows

    rows = ([] if imported else kept_rows(pattern, task)) or live_rows(pattern, task)
    if as_json:
        show_json(rows)
        return
    if not rows:
        from nexus.cli.cards import no_match

        fail(no_match(pattern, task))
    show_table(rows)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A registered name.")],
    as_json: Json = False,
) -> None:
    """Show a model's card and its weights."""
    from nexus.cli.cards import card_details, weight_rows
    from nexus.models.registry import model_info

    card = model_info(name)
    if as_json:
        show_json({**card_details(card), "weights": weight_rows(card)})
        return
    show_table([{"field": key, "value": value} for key, value in card_details(card).items()])
    if card.weights:
        show_table(weight_rows(card))


@app.command()
def verify(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'vit_*'.")] = "*",
    page: Annotated[Path | None, typer.Option("--page", help="Also write the page of tables (Markdown).")] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Also try ONNX Runtime, NumPy, JAX and MLX.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove on this machine that models equal their references.

    Compares each variant, as a small model of its kind, with timm, torchvision or transformers where they are
    installed, counts its parameters, and compiles and exports it. Exit status 1 means that a proof failed.
    """
    from nexus.cli.cards import no_match
    from nexus.deploy.places import PLACES
    from nexus.proofs import verify as run
    from nexus.proofs.page import page as write
    from nexus.proofs.page import summary, table_row

    verdicts = []
    for verdict in run(pattern, PLACES if everywhere else None):
        typer.echo(f"{verdict.name}: {summary(verdict)}", err=True)
        verdicts.append(verdict)
    if not verdicts:
        fail(no_match(pattern))
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(write(verdicts), encoding="utf-8")
    if as_json:
        show_json([verdict.to_json() for verdict in verdicts])
    else:
        show_table([table_row(verdict) for verdict in verdicts])
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def recommend(
    task: Annotated[str | None, typer.Option("--task", help="What the model shall do.")] = None,
    constraint: Annotated[str | None, typer.Option("--constraint", help="What it must respect.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="How many labelled images there are.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend models for a need.

    By task, constraint and amount of data; without options it shows all that is known.
    """
    from nexus.cli.cards import recommendation_row
    from nexus.models.selection import recommend as query

    rows = query(task=task, constraint=constraint, data=data)
    if as_json:
        show_json(rows)
        return
    show_table([recommendation_row(row) for row in rows])
