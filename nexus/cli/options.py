"""Options that several commands share, and those of `predict`: how they are called and what their help says."""

from pathlib import Path
from typing import Annotated

import typer


def _import_modules(names: list[str] | None) -> list[str] | None:
    """Imports what the user names before the command runs."""
    from nexus.cli.modules import import_module

    for name in names or ():
        import_module(name)
    return names


def option(
    *names: str, value: str | None = None, text: str, min: float | None = None, max: float | None = None
) -> typer.models.OptionInfo:
    """Returns an option with the word that stands for its value in the help, and the bounds of a number."""
    return typer.Option(*names, metavar=value, help=text, min=min, max=max)


Json = Annotated[bool, option("--json", text="Print JSON instead of a table.")]
Model = Annotated[
    str | None,
    option("--model", "-m", value="MODEL", text="A name, a run, a file. [default: EfficientNet-Lite0]"),
]
Tokenizer = Annotated[
    str | None,
    option("--tokenizer", value="FOLDER", text="Of a model of texts; or a hub's repository."),
]
Imported = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="With what you registered: my_models.py.",
        callback=_import_modules,
    ),
]
Device = Annotated[str | None, option("--device", value="DEVICE", text="cpu, cuda, cuda:1, mps. [default: the best]")]
Data = Annotated[
    str | None, option("--data", "-d", value="SOURCE", text="folder:PATH, coco:PATH, ... [default: its own]")
]
Split = Annotated[str, option("--split", value="PART", text="train, val or test.")]

Top = Annotated[int | None, option("--top", value="N", text="Guesses per image; 5, or all objects.", min=1)]
Written = Annotated[
    Path | None,
    option("--output", "-o", value="FILE", text="Also write a .csv, .json or .coco.json, or YOLO's folder."),
]
Long = Annotated[bool, option("--long", text="In a .csv, a row per guess, not per image.")]
Numbering = Annotated[
    str | None, option("--data", "-d", value="SOURCE", text="Numbers for .coco.json, from coco:PATH.")
]
MinScore = Annotated[
    float | None,
    option("--min-score", value="0..1", text="Least score of objects; 0.3 is shown, 0 written.", min=0, max=1),
]
Draw = Annotated[Path | None, option("--draw", value="FOLDER", text="Also draw them there, or into an .mp4.")]
Every = Annotated[int, option("--every", value="N", text="Of a video, each so many frames.", min=1)]
Tile = Annotated[int | None, option("--tile", value="PIXELS", text="Look for objects in tiles of this size, too.")]
Overlap = Annotated[
    float | None, option("--overlap", value="0..1", text="Share of a tile in the next one. [default: 0.2]")
]
Prompt = Annotated[
    list[str] | None,
    option(
        "--prompt",
        "--point",
        "--box",
        "--object",
        value="TEXT",
        text="A word, a question, X,Y, X1,Y1,X2,Y2; again for more. In videos --object 1 --point FRAME:X,Y.",
    ),
]
Classes = Annotated[str | None, option("--classes", value="WORDS", text="The same at once: 'cat, red car'.")]
Caption = Annotated[str | None, option("--caption", value="TEXT", text="In sentences: 'a cat. a red car.'")]
BatchSize = Annotated[int, option("--batch-size", "-b", value="N", text="Images at a time.", min=1)]
Strict = Annotated[bool, option("--strict", text="Stop at the first file that cannot be read.")]
