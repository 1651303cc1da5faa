"""`nexus chat`: a conversation about images at the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nexus.tasks.conversation.session import Chat

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="What it is about.")]
Question = Annotated[str | None, typer.Argument(metavar="QUESTION", help="One question; without, a conversation.")]
Model = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="A name, or saved weights.")]
More = Annotated[list[Path] | None, typer.Option("--image", metavar="IMAGE", help="A further image; again for more.")]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", metavar="FOLDER", help="Instead of the model's own.")]
Tokens = Annotated[int, typer.Option("--max-new-tokens", metavar="N", help="Most tokens of an answer.", min=1)]
Temperature = Annotated[float, typer.Option("--temperature", metavar="T", help="Above 0: words are drawn.", min=0)]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, mps. [default: the best]")]


def chat(
    image: Image,
    question: Question = None,
    model: Model = "internvl3_1b",
    more: More = None,
    tokenizer: Tokenizer = None,
    max_new_tokens: Tokens = 1024,
    temperature: Temperature = 0.0,
    device: Device = None,
) -> None:
    """Ask a model about an image: nexus chat photo.jpg "How many cats are there?"

    Without a question it is a conversation; an empty line ends it.
    """
    from nexus.tasks.conversation.session import Chat, Writing, as_model
    from nexus.tasks.source import open_model

    pair = as_model(open_model(model, device))
    talk = Chat(pair, [image, *(more or [])], tokenizer=tokenizer, writing=Writing(max_new_tokens, temperature))
    if question is not None:
        _answer(talk, question)
        return
    while line := typer.prompt("You", default="", show_default=False).strip():
        _answer(talk, line)


def _answer(talk: "Chat", question: str) -> None:
    talk.ask(question, on_text=lambda piece: typer.echo(piece, nl=False))
    typer.echo()
