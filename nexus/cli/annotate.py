"""`nexus annotate`: the page, or what was marked on it as a data set."""

from pathlib import Path

import typer

from nexus.app.annotate.export import FORMATS, export
from nexus.app.annotate.project import PROJECT, Project, find_images, is_video, output_of
from nexus.app.annotate.serve import open_answering, serve
from nexus.cli.output import fail
from nexus.core.config import nearest
from nexus.core.text import one_line


def run(
    source: Path,
    model: str | None,
    output: Path | None,
    classes: str | None,
    port: int,
    device: str | None,
    every: int = 1,
) -> None:
    """Serves the page until it is interrupted.

    Raises:
        ValueError: There are no images, the model does not answer clicks, or the port is taken.
    """
    if not is_video(source):
        find_images(source)
    if model is None:
        fail("The page needs a model that answers clicks: --model sam_vit_base, a run's folder, or a weight file.")
    clicker, follower = open_answering(model, device)
    names = [] if classes is None else [name.strip() for name in classes.split(",")]
    project = Project(source, output, names, every=every)
    if project.lost:
        said = f"{len(project.lost)} images with marks are not in {source} any more, such as {project.lost[0]}."
        typer.echo(one_line(f"{said} Their marks stay where they are."), err=True)
    typer.echo(one_line(f"{len(project.names)} images in {source}; what is marked is kept in {project.output}."))
    serve(project, clicker, model, port, lambda address: typer.echo(f"Open {address} (Ctrl+C ends)."), follower)
    typer.echo(one_line(f"\nEverything is kept in {project.output}."))


def write(source: Path, output: Path | None, name: str) -> None:
    """Exports what was marked before.

    Raises:
        ValueError: There is no such format, or nothing is marked.
    """
    if name not in FORMATS:
        raise ValueError(f"There is no format {name!r:.40}. {nearest(name, FORMATS)}")
    place = output or output_of(source)
    if not (place / PROJECT).is_file():
        raise ValueError(f"There is nothing marked in {place}; `nexus annotate {source} --model ...` opens the page.")
    made = export(Project(source, place), name)
    copies = f" ({made.left_out} copies of objects left out)" if made.left_out else ""
    typer.echo(one_line(f"{made.images} images, {made.objects} objects{copies}: {made.path}"))
