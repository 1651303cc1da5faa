"""`nexus scan`: objects in a CT or MR volume, from a box in one of their slices."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nexus.data.medical import Window
    from nexus.tasks.clicks import Clicker
    from nexus.tasks.promptable.volumes import Carrying

Scan = Annotated[Path, typer.Argument(metavar="SCAN", help="A .nii, a .nii.gz, or the folder of a DICOM series.")]
Boxes = Annotated[list[str], typer.Option("--box", metavar="SLICE:X1,Y1,X2,Y2", help="In voxels; again for more.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The mask, a .nii or .nii.gz.")]
Model = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="A name, a run, or saved weights.")]
View = Annotated[
    str | None,
    typer.Option("--window", metavar="WINDOW", help="soft_tissue, lung, bone, ..., LEVEL,WIDTH, or mr. [by the file]"),
]
Axis = Annotated[int, typer.Option("--axis", metavar="0|1|2", help="Across which the slices lie.", min=0, max=2)]
Slices = Annotated[str | None, typer.Option("--slices", metavar="FIRST-LAST", help="Where it may be. [default: all]")]
Margin = Annotated[int, typer.Option("--margin", metavar="N", help="Voxels around a mask for the next box.", min=0)]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, mps. [default: the best]")]


def scan(
    scan: Scan,
    box: Boxes,
    output: Output,
    model: Model = "medsam_vit_base",
    window: View = None,
    axis: Axis = 2,
    slices: Slices = None,
    margin: Margin = 3,
    device: Device = None,
) -> None:
    """Find objects in a scan: nexus scan ct.nii.gz --box 40:95,255,190,350 --window soft_tissue -o mask.nii.gz

    A box goes around an object in one slice; from there it is followed up and down.
    """
    from nexus.data.medical import is_nifti, read_volume, write_mask
    from nexus.tasks.promptable.volumes import read_slice_box, segment_volume

    if not is_nifti(output):
        raise ValueError(f"--output is {output}; a mask of a volume is written to .nii or .nii.gz.")
    boxes, carrying = [read_slice_box(text) for text in box], _carrying(axis, slices, margin)
    volume = read_volume(scan)
    seen = _window(window, volume.modality)
    mask = segment_volume(_clicker(model, device), volume, boxes, window=seen, carrying=carrying)
    write_mask(output, mask, volume)
    for name in range(1, len(boxes) + 1):
        voxels = int((mask == name).sum())
        typer.echo(f"object {name}: {voxels:,} voxels, {voxels * math.prod(volume.spacing_mm) / 1000:.2f} ml")
    typer.echo(f"Written to {output}.")


def _window(text: str | None, modality: str) -> "Window | None":
    from nexus.data.medical import find_window

    if text is not None:
        return find_window(text)
    if modality in ("MR", "CT"):
        return find_window("mr" if modality == "MR" else "soft_tissue")
    raise ValueError(
        "The file does not say whether it is a CT or an MR; say what to see: --window soft_tissue (lung, bone, brain,"
        " mediastinum, liver, or LEVEL,WIDTH) of a CT, --window mr for all else."
    )


def _carrying(axis: int, slices: str | None, margin: int) -> "Carrying":
    from nexus.tasks.promptable.volumes import Carrying

    if slices is None:
        return Carrying(axis, margin)
    first, dash, last = slices.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--slices is {slices[:40]!r}; write the first and the last one, such as 30-60.")
    return Carrying(axis, margin, int(first), int(last))


def _clicker(model: str, device: str | None) -> "Clicker":
    from nexus.tasks.promptable.task import PromptableTask
    from nexus.tasks.source import open_model

    opened = open_model(model, device)
    if getattr(opened, "task", "") != PromptableTask.name:
        raise ValueError(f"A {type(opened).__name__} answers no boxes; take medsam_vit_base, or a SAM.")
    return PromptableTask.for_model(opened).clicker(opened)
