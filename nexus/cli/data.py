"""`nexus data`: annotation files checked and converted."""

from pathlib import Path
from typing import Annotated

import typer

from nexus.cli.output import show_json, show_table

data = typer.Typer(help="Check and convert annotations of detection data.", no_args_is_help=True)


@data.command()
def check(
    path: Annotated[Path, typer.Argument(help="A COCO json file, a YOLO folder or a VOC folder.")],
    images: Annotated[bool, typer.Option(help="Also open every image.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Name every fault with its file and annotation. Exit status 1 means that there are some."""
    from nexus.data.detection import check_annotations

    annotations, faults = check_annotations(path, images=images)
    scenes = () if annotations is None else annotations.scenes
    count = sum(len(scene.objects) for scene in scenes)
    if as_json:
        rows = [fault._asdict() for fault in faults]
        show_json({"images": len(scenes), "objects": count, "faults": rows})
    else:
        for fault in faults:
            typer.echo(str(fault))
        classes = 0 if annotations is None else len(annotations.class_names)
        show_table([{"images": len(scenes), "objects": count, "classes": classes, "faults": len(faults)}])
    if faults:
        raise typer.Exit(1)


@data.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A COCO json file, a YOLO folder or a VOC folder.")],
    target: Annotated[Path, typer.Argument(help="A json file for COCO, else a folder.")],
    to: Annotated[str, typer.Option("--to", help="coco, yolo or voc.")],
    lossy: Annotated[bool, typer.Option("--lossy", help="Drop what YOLO cannot hold instead of refusing.")] = False,
) -> None:
    """Write annotations in another format; nothing is lost unless --lossy allows it."""
    from nexus.data.detection.files import convert as run

    if to not in ("coco", "yolo", "voc"):
        raise ValueError(f"--to is {to!r}; it must be coco, yolo or voc.")
    typer.echo(f"Written: {run(source, target, to, lossy=lossy)}")
