"""`nexus export`: opens a model, writes it for ONNX Runtime, and tells how near the files come to torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexus.cli.options import Imported, Json, option
from nexus.cli.output import fail, show_json, show_table

if TYPE_CHECKING:
    from nexus.deploy.onnx_files import Stage


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a name, or saved weights.")],
    output: Annotated[
        Path, option("--output", "-o", value="PATH", text="NAME.onnx: one file. A folder: a file for each stage.")
    ],
    image_size: Annotated[
        str | None, option("--image-size", value="N|HxW", text="Pixels. [default: what the model is made for]")
    ] = None,
    open_size: Annotated[bool, option("--open-size", text="Leave the size of images open.")] = False,
    opset: Annotated[int, option("--opset", value="N", text="Version of ONNX's operators.", min=18)] = 18,
    imported: Imported = None,
    as_json: Json = False,
) -> None:
    """Write a model for ONNX Runtime: nexus export M -o m.onnx.

    The files are run and compared with torch, at several numbers and sizes of images, before they get their names.
    """
    size = read_size(image_size)
    if size is not None and open_size:
        fail("--image-size fixes what --open-size leaves open; give one of them.")
    stages = export_model(model, output, size, open_size=open_size, opset=opset)
    if as_json:
        show_json([_as_json(stage) for stage in stages])
        return
    show_table([row for stage in stages for row in _rows(stage)])
    typer.echo(summary(stages))


def read_size(text: str | None) -> tuple[int, int] | None:
    """Returns (height, width) of `224` or `480x640`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and int(side) for side in sides):
        fail(f"--image-size is {text!r}; give a side such as 224, or height and width such as 480x640.")
    return int(sides[0]), int(sides[-1])


def export_model(
    source: str, output: Path, image_size: tuple[int, int] | None, *, open_size: bool, opset: int
) -> "list[Stage]":
    """Writes the model that `source` means; see `nexus.deploy.export_onnx`."""
    from nexus.core.module import NexusModule
    from nexus.deploy.onnx_files import export_onnx
    from nexus.tasks.source import open_model, preprocessing_of

    model: Any = open_model(source, "cpu")
    if isinstance(model, NexusModule) and model.preprocessing is None and model.card is not None:
        model.preprocessing = preprocessing_of(model)
    return export_onnx(model.float(), output, image_size=image_size, open_size=open_size, opset=opset)


def summary(stages: "list[Stage]") -> str:
    """Returns one sentence about what was compared."""
    worst = max(value for stage in stages for value in stage.differences.values())
    files = "1 file" if len(stages) == 1 else f"{len(stages)} files"
    return (
        f"{files}, run in ONNX Runtime at {len(stages[0].cases)} sizes of the inputs: the largest difference from torch"
        f" is {worst:.1e} of an output's largest value."
    )


def _rows(stage: "Stage") -> list[dict[str, Any]]:
    """Returns a line of a table for each output of a file."""
    inputs = ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, shape in stage.inputs.items())
    return [
        {"file": str(stage.path), "inputs": inputs, "output": name, "difference": f"{value:.1e}"}
        for name, value in stage.differences.items()
    ]


def _as_json(stage: "Stage") -> dict[str, Any]:
    return {
        "file": str(stage.path),
        "stage": stage.name,
        "inputs": {name: list(shape) for name, shape in stage.inputs.items()},
        "differences": dict(stage.differences),
        "compared": [dict(case) for case in stage.cases],
    }
