"""How a conversation is written for a language model: the templates that InternVL's releases were trained with.

Facts of OpenGVLab/InternVL at 2410d1d; system texts are part of what the models were trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nexus.core.config import nearest
from nexus.data.facets import IMAGE_PLACE, Turn

OPEN, TOKEN, CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
"""What an image becomes: its tokens, between two marks."""
FIRST_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
SECOND_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
GPT_SYSTEM = (
    "You are InternVL, a large language model trained by Shanghai AI Laboratory.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2025-08-06\n\nReasoning: low\n\n# Valid channels: final. Channel must be included for every message."
)


@dataclass(frozen=True)
class Template:
    """How turns are written.

    Attributes:
        system: What the model is told first.
        told: Form of that, with `{}` for it.
        user: Form of what a user says.
        assistant: Form of an answer.
        answer: What stands before the answer that is to come.
        stop: The text that ends an answer.
    """

    system: str
    told: str
    user: str
    assistant: str
    answer: str
    stop: str


def _marked(system: str, end: str) -> Template:
    start = "<|im_start|>"
    told, user, assistant = (f"{start}{role}\n{{}}{end}" for role in ("system", "user", "assistant"))
    return Template(system, told, user, assistant, f"{start}assistant\n", end.strip())


TEMPLATES = {
    "Hermes-2": _marked(FIRST_SYSTEM, "<|im_end|>"),
    "internlm2-chat": _marked(FIRST_SYSTEM, "<|im_end|>"),
    "internvl2_5": _marked(SECOND_SYSTEM, "<|im_end|>\n"),
    "phi3-chat": Template(
        FIRST_SYSTEM,
        "<|system|>\n{}<|end|>",
        "<|user|>\n{}<|end|>",
        "<|assistant|>\n{}<|end|>",
        "<|assistant|>\n",
        "<|end|>",
    ),
    "internvl_zh": Template("", "{} ", "<human>: {} ", "<bot>: {}</s>", "<bot>:", "</s>"),
    "internvl3_5_gpt_oss": Template(
        GPT_SYSTEM,
        "<|start|>system<|message|>{}<|end|>",
        "<|start|>user<|message|>{}<|end|>",
        "<|start|>assistant{}<|end|>",
        "<|start|>assistant",
        "<|return|>",
    ),
}


def find_template(name: str) -> Template:
    """Returns the template called `name`.

    Raises:
        ValueError: There is none; the nearest one is named.
    """
    if name not in TEMPLATES:
        raise ValueError(f"There is no template {name!r:.60}. {nearest(name[:60], TEMPLATES)}")
    return TEMPLATES[name]


def write_prompt(
    turns: Sequence[Turn], tiles: Sequence[int], template: Template, tokens_per_tile: int, system: str | None = None
) -> str:
    """Returns the text that the model reads, up to where its answer begins.

    Args:
        turns: Of user and assistant in turn, a user's last; the place of each image is `<image>`. With one image and
            no place for it, it stands before what the user says first.
        tiles: Of each image, in how many it is cut.
        template: How turns are written.
        tokens_per_tile: How many tokens a tile becomes.
        system: What the model is told first; None is the template's.

    Raises:
        ValueError: The turns are not in turn, a text has marks of images, or places and images differ in number.
    """
    _check_turns(turns)
    texts = [turn.text for turn in turns]
    wanted = sum(text.count(IMAGE_PLACE) for text in texts)
    if not wanted and len(tiles) == 1:
        texts[0], wanted = f"{IMAGE_PLACE}\n{texts[0]}", 1
    if wanted != len(tiles):
        raise ValueError(
            f"The texts have {wanted} places for images ({IMAGE_PLACE}), and there are {len(tiles)} images; write one"
            " for each."
        )
    given = iter(tiles)
    written = template.told.replace("{}", template.system if system is None else system)
    for turn, text in zip(turns, texts):
        form = template.user if turn.role == "user" else template.assistant
        written += form.replace("{}", _with_images(text, given, tokens_per_tile))
    return written + template.answer


def _with_images(text: str, tiles: Iterator[int], tokens_per_tile: int) -> str:
    first, *rest = text.split(IMAGE_PLACE)
    return first + "".join(f"{OPEN}{TOKEN * (tokens_per_tile * next(tiles))}{CLOSE}{piece}" for piece in rest)


def _check_turns(turns: Sequence[Turn]) -> None:
    if not turns:
        raise ValueError("Nothing is asked; give a question.")
    for place, turn in enumerate(turns):
        role = "assistant" if place % 2 else "user"
        if turn.role != role:
            raise ValueError(
                f"Turn {place} is of {turn.role!r:.40}, and {role} is next: a user begins, both take turns."
            )
        if any(mark in turn.text for mark in (OPEN, TOKEN, CLOSE)):
            raise ValueError(
                f"Turn {place} holds a mark that only images may have; write {IMAGE_PLACE} where one stands."
            )
    if turns[-1].role != "user":
        raise ValueError("The last turn is the assistant's; a question of the user is last.")
