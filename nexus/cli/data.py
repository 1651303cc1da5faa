"""`nexus data`: data sets checked, and annotations converted."""

from pathlib import Path
from typing import Annotated

import typer

from nexus.cli.options import Json, option
from nexus.cli.output import show_json, show_table
from nexus.core.text import one_line

data = typer.Typer(help="Check data sets and convert annotations of objects.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="As train takes it (folder:PATH, coco:PATH, ...), or a path.")
]


@data.command()
def check(
    source: Source,
    images: Annotated[bool, typer.Option(help="Also open every image.")] = True,
    sheet: Annotated[Path | None, option("--sheet", value="FILE", text="Also draw some images, into a .png.")] = None,
    as_json: Json = False,
) -> None:
    """Name every fault with its file: nexus data check folder:photos.

    Of objects with the annotation, too. Exit status 1 means that there are some.
    """
    from nexus.data.check import check_source

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet is {sheet}; the picture is written as .png.")
    checked = check_source(source, images=images)
    if as_json:
        rows = [fault._asdict() for fault in checked.faults]
        show_json({**checked._asdict(), "faults": rows})
    else:
        for fault in checked.faults:
            typer.echo(one_line(str(fault)))
        if checked.counts:
            show_table(list(checked.counts))
        totals = {key: value for key, value in checked._asdict().items() if key != "counts"}
        show_table([{**totals, "faults": len(checked.faults)}])
    if sheet is not None:
        from nexus.cli.sheet import draw_source

        said = f"Sheet: {sheet}" if draw_source(source, sheet) else "There is no image that can be drawn."
        typer.echo(said, err=as_json)
    if checked.faults:
        raise typer.Exit(1)


@data.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new folder, or for COCO a json file.")],
    to: Annotated[str, option("--to", value="coco|yolo|voc", text="The format to write.")],
    lossy: Annotated[bool, option("--lossy", text="Drop what YOLO cannot hold instead of refusing.")] = False,
) -> None:
    """Write annotations of objects in another format.

    With all splits; nothing is lost unless --lossy allows it.
    """
    from nexus.data.detection import convert as run

    if to not in ("coco", "yolo", "voc"):
        raise ValueError(f"--to is {to!r}; it must be coco, yolo or voc.")
    written = run(source, target, to, lossy=lossy)
    typer.echo(one_line(f"Written: {written}"))
