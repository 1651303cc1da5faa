"""`nexus explain`: one image, one model, one picture of what the model saw."""

from collections.abc import Sequence
from pathlib import Path

from nexus import visualization
from nexus.core.config import nearest
from nexus.core.module import NexusModule
from nexus.data import eval_transform, load_image
from nexus.data.images import image_size
from nexus.data.remote import fetch_image, is_address
from nexus.tasks.protocol import Explained
from nexus.tasks.question import Question
from nexus.tasks.source import as_input, open_model, preprocessing_of
from nexus.tasks.table import task_of


def explain_image(
    image: str,
    model: str,
    method: str | None,
    layer: str | None,
    target: int | str | None,
    output: Path,
    device: str | None,
    prompts: Sequence[str] = (),
) -> str:
    """Draws the explanation into `output` and returns a sentence with the model's guess. No method is the task's first.

    Raises:
        ValueError: The method is unknown, or does not fit the model; it takes no prompts; the image cannot be read.
    """
    if output.suffix.lower() != ".png":
        raise ValueError(f"{output} ends in {output.suffix!r}; the picture is written as .png.")
    module = open_model(model, device)
    if not isinstance(module, NexusModule):
        raise ValueError(f"{model} is a {type(module).__name__}; explain works on models of the zoo.")
    task = task_of(module).for_model(module)
    if not isinstance(task, Explained):
        raise ValueError(f"explain has no method for it: {model} is a model for {task.name}. Use nexus predict.")
    methods = task.explanations()
    method = method or next(iter(methods))
    if method not in methods:
        raise ValueError(f"There is no method {method!r} for {task.name}. {nearest(method, methods)}")
    loaded = load_image(fetch_image(image) if is_address(image) else image, name=image)
    pixels = eval_transform(preprocessing_of(module))(loaded).unsqueeze(0)
    asked = task.read_prompts(prompts) if prompts else None
    if asked is not None:
        task.session(module, asked)  # which refuses prompts where the kind takes none
    question = Question(module.eval(), as_input(module, pixels), layer, target, asked, image_size(loaded))
    sentence = task.answer(question)
    picture = methods[method](question)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(visualization.to_png(picture))
    return sentence


def as_target(text: str | None) -> int | str | None:
    """Returns what `--target` means: digits are a number, anything else a name."""
    return int(text) if text is not None and text.isdecimal() else text
