"""Every command of `nexus`: its arguments and the few lines that connect them to the library."""

from pathlib import Path
from typing import Annotated

import typer

from nexus import __version__
from nexus.cli.data import data as data_commands
from nexus.cli.export import export
from nexus.cli.offered import Commands
from nexus.cli.options import (
    BatchSize,
    Caption,
    Classes,
    Data,
    Device,
    Draw,
    Every,
    Imported,
    Json,
    Long,
    MinScore,
    Model,
    Numbering,
    Overlap,
    Prompt,
    Split,
    Strict,
    Tile,
    Tokenizer,
    Top,
    Written,
    option,
)
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
    output: Annotated[Path, option("--output", "-o", value="FOLDER", text="For run and report.")] = Path("demo"),
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
            metavar="WHAT", help="A model (`nexus models`), a recipe (`--list`) or its file; with --resume, a run."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings: epochs=10 lr=3e-4 batch_size=8 patience=5 ..."),
    ] = None,
    data: Annotated[
        str | None, option("--data", "-d", value="SOURCE", text="folder:PATH, coco:PATH, ... [default: the recipe's]")
    ] = None,
    pretrained: Annotated[bool, option("--pretrained", text="Start from the published weights.")] = False,
    run_dir: Annotated[
        Path | None, option("--run-dir", "-o", value="FOLDER", text="For the run. [default: a new one under runs/]")
    ] = None,
    dry_run: Annotated[bool, option("--dry-run", text="Show what would be done and stop.")] = False,
    resume: Annotated[bool, option("--resume", text="Continue a run: nexus train --resume runs/mine.")] = False,
    allow_changes: Annotated[
        bool, option("--allow-changes", text="With --resume: go on though the data has changed.")
    ] = False,
    find_lr: Annotated[bool, option("--find-lr", text="Show which learning rate to use, and stop.")] = False,
    folds: Annotated[
        int | None, option("--folds", value="K", text="Train K times, each time another part is held out.", min=2)
    ] = None,
    show_list: Annotated[bool, option("--list", text="Show the recipes and stop.")] = False,
    imported: Imported = None,
) -> None:
    """Train a model on your data, or by a recipe.

    nexus train resnet18 --data folder:photos epochs=10 lr=3e-4

    Every setting is in docs/training.md; a wrong key is answered with the nearest right one. Several processes:
    torchrun --nproc-per-node 2 -m nexus train ...
    """
    from nexus.cli.output import fail
    from nexus.cli.train import order, run, show_folds, show_rates
    from nexus.training import list_recipes

    if show_list:
        typer.echo("\n".join(list_recipes()))
        return
    wanted = order(what, changes or [], data=data, pretrained=pretrained, run_dir=run_dir, resume=resume)
    asked = {"--dry-run": dry_run, "--find-lr": find_lr, "--folds": folds is not None}
    if len(several := [name for name, given in asked.items() if given]) > 1:
        fail(f"{' and '.join(several)} do different things; give one of them.")
    if find_lr:
        show_rates(wanted)
    elif folds is not None:
        show_folds(wanted, folds, resume=resume)
    else:
        run(wanted, resume=resume, allow_changes=allow_changes, dry_run=dry_run)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a name, or saved weights.")],
    data: Annotated[
        str | None,
        option("--data", "-d", value="SOURCE", text="folder:PATH, coco:PATH, ... [default: the run's own, or digits]"),
    ] = None,
    split: Split = "val",
    batch_size: BatchSize = 64,
    probe: Annotated[
        str | None, option("--probe", value="knn|linear", text="Measure frozen features: what learns on top of them.")
    ] = None,
    flip: Annotated[bool, option("--flip", text="Also see each image mirrored; the mean of both counts.")] = False,
    output: Annotated[
        Path | None,
        option("--output", "-o", value="FILE", text="Also write the figures (.json), or the objects (.coco.json)."),
    ] = None,
    draw: Annotated[Path | None, option("--draw", value="FOLDER", text="Also draw the worst errors there.")] = None,
    tokenizer: Tokenizer = None,
    imported: Imported = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure a model on a data set: nexus eval runs/mine.

    With --probe, a classifier on top of the model's frozen features learns from the data's "train" and is measured.
    """
    from nexus.cli.run_report import NO_ERROR, draw_worst
    from nexus.cli.runs import own_data
    from nexus.data import load_dataset
    from nexus.evaluation import evaluate as run
    from nexus.evaluation import probe as run_probe

    data, root = (data, None) if data is not None else own_data(model) or ("digits", None)
    if probe is not None and draw is not None:
        fail("--draw shows the errors of the model itself, and --probe measures a classifier on top of it; choose one.")
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
    drawn = [] if draw is None else draw_worst(report, load_dataset(data, split, root=root), draw)
    if as_json:
        show_json(report.to_json())
        return
    for rows in report.tables().values():
        show_table(rows)
    if draw is not None:
        typer.echo(f"{len(drawn)} images with errors, the worst first, drawn into {draw}." if drawn else NO_ERROR)


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as runs/mine.")],
    data: Data = None,
    split: Split = "val",
    output: Annotated[
        Path | None, option("--output", "-o", value="FILE", text="The page. [default: report.html in the run]")
    ] = None,
    imported: Imported = None,
    device: Device = None,
) -> None:
    """Write one page about a run: figures, mistakes, predictions."""
    from nexus.cli.run_report import report_run

    typer.echo(f"Report: {report_run(run, data=data, split=split, output=output, device=device)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two runs or more: runs/a runs/b.")],
    as_json: Json = False,
) -> None:
    """Show runs side by side: settings that differ, and figures."""
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
        list[str] | None, typer.Argument(metavar="IMAGES", help="Files, folders, 'patterns*', addresses or videos.")
    ] = None,
    model: Model = None,
    top: Top = None,
    output: Written = None,
    long: Long = False,
    data: Numbering = None,
    min_score: MinScore = None,
    draw: Draw = None,
    every: Every = 1,
    tile: Tile = None,
    overlap: Overlap = None,
    prompt: Prompt = None,
    classes: Classes = None,
    caption: Caption = None,
    tokenizer: Tokenizer = None,
    imported: Imported = None,
    batch_size: BatchSize = 16,
    strict: Strict = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Ask a model about images: nexus predict cat.png --top 3.

    It answers with classes, objects, words, whatever its kind gives; -o writes them to a file.
    """
    from nexus.cli.onnx_predict import is_exported, predict_exported

    if model is not None and is_exported(model):
        others = (output, data, draw, tile, overlap, prompt, classes, tokenizer, device, every > 1, strict, long)
        predict_exported(model, images, batch_size, top, min_score, as_json=as_json, others=others)
        return

    from nexus.cli.predict import predict_images, read_tiles, show_predictions
    from nexus.predict import DEFAULT_MODEL, Predictor, write_predictions

    predictor = Predictor(
        model or DEFAULT_MODEL,
        device=device,
        batch_size=batch_size,
        strict=strict,
        tiles=read_tiles(tile, overlap),
        tokenizer=tokenizer,
    )
    texts = [*(prompt or []), *(classes.split(",") if classes is not None else [])]
    if caption is not None:
        texts.append(f"{caption.rstrip(' .')}.")
    predictions = predict_images(predictor, images, prompts=texts, draw=draw, every=every, min_score=min_score)
    if output is not None:
        write_predictions(predictions, output, top=top, data=data, long=long)
    show_predictions(predictions, top, min_score, as_json=as_json)
    if draw is not None and not as_json:
        typer.echo(f"Drawn into {draw}.")


@app.command()
def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="One image file, or its address.")],
    model: Model = None,
    method: Annotated[
        str | None,
        option(
            "--method",
            value="METHOD",
            text="gradcam, features; attention, rollout of transformers. [default: the first that the kind has]",
        ),
    ] = None,
    layer: Annotated[str | None, option("--layer", value="PATH", text="A module's, such as blocks.11.")] = None,
    target: Annotated[
        str | None,
        option("--target", value="CLASS", text="A name or number, or which object. [default: the guess]"),
    ] = None,
    output: Annotated[Path, option("--output", "-o", value="FILE", text="The picture to write, a .png.")] = Path(
        "explanation.png"
    ),
    prompt: Prompt = None,
    imported: Imported = None,
    device: Device = None,
) -> None:
    """Draw what a model looked at: nexus explain cat.png."""
    from nexus.cli.explain import as_target, explain_image
    from nexus.predict import DEFAULT_MODEL

    title = explain_image(image, model or DEFAULT_MODEL, method, layer, as_target(target), output, device, prompt or ())
    typer.echo(f"{title} Picture: {output}")


@app.command()
def annotate(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="With images; one image; or a video.")],
    model: Annotated[
        str | None, option("--model", "-m", value="MODEL", text="sam_vit_base, a run, a weight file, ...")
    ] = None,
    output: Annotated[
        Path | None, option("--output", "-o", value="FOLDER", text="What is kept. [default: FOLDER-annotations]")
    ] = None,
    classes: Annotated[str | None, option("--classes", value="WORDS", text="To begin with: 'cat, red car'.")] = None,
    export: Annotated[
        str | None, option("--export", value="FORMAT", text="Write coco, yolo, yolo-boxes or png, and stop.")
    ] = None,
    port: Annotated[int, option("--port", value="N", text="Of the page; 0 takes a free one.", min=0, max=65535)] = 8910,
    every: Every = 1,
    imported: Imported = None,
    device: Device = None,
) -> None:
    """Mark objects by clicks on a page: nexus annotate photos.

    The page is for a browser on this machine; a model that answers clicks (--model) draws the masks. Each change is
    kept at once, and who calls the command again goes on.
    """
    from nexus.cli.annotate import run, write

    if export is not None and (model, classes, device) != (None, None, None):
        fail("--export writes what was marked before, without a model or a page; give it --output alone.")
    if export is not None:
        write(source, output, export)
    else:
        run(source, model, output, classes, port, device, every)


app.command()(export)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Of names, such as 'vit_*'.")] = "*",
    task: Annotated[str | None, option("--task", value="TASK", text="classification, detection, ...")] = None,
    imported: Imported = None,
    as_json: Json = False,
) -> None:
    """List the models: nexus models 'resnet*'."""
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
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A name of `nexus models`, such as resnet50.")],
    as_json: Json = False,
) -> None:
    """Show a model's card and its weights: nexus info resnet50."""
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
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Of names, such as 'vit_*'.")] = "*",
    page: Annotated[Path | None, option("--page", value="FILE", text="Also write the tables as Markdown.")] = None,
    everywhere: Annotated[bool, option("--everywhere", text="Also try ONNX Runtime, NumPy, JAX and MLX.")] = False,
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
    task: Annotated[str | None, option("--task", value="TASK", text="classification, pose-estimation, ...")] = None,
    constraint: Annotated[
        str | None, option("--constraint", value="NEED", text="real-time, mobile, few-shot, zero-shot, ...")
    ] = None,
    data: Annotated[str | None, option("--data", value="N", text="Labelled images there are: none, 5000, ...")] = None,
    as_json: Json = False,
) -> None:
    """Recommend models: nexus recommend --task detection.

    By task, constraint and amount of data; without options it shows all that is known.
    """
    from nexus.cli.cards import recommendation_row
    from nexus.models.selection import recommend as query

    rows = query(task=task, constraint=constraint, data=data)
    if as_json:
        show_json(rows)
        return
    show_table([recommendation_row(row) for row in rows])
