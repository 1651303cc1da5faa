"""Classifiers made of words: CLIP and SigLIP compare images with a sentence for each class (CLIP, Sec. 3.1)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nexus.core.download import offline
from nexus.core.hub import PREFIX
from nexus.core.module import NexusModule
from nexus.models.cv import CLIP, SigLIP

Tokenize = Callable[[Sequence[str]], Int[Tensor, "t n"]]

CLIP_TOKENIZER = "openai/clip-vit-base-patch32"  # all of OpenAI's models have one vocabulary
DEFAULT_TEMPLATES = ("a photo of a {}.",)


def load_tokenizer(model: CLIP | SigLIP, source: str | Path | None = None) -> Tokenize:
    """Returns a function from texts to the ids that `model` reads, with the tokenizer of transformers.

    Args:
        model: Says how long its texts are and which ids it knows.
        source: A folder with the tokenizer's files, or a repository of the hub. None: the one of the model's card.

    Raises:
        ValueError: The tokenizer cannot be had, or has ids that the model does not know.
        ImportError: transformers is not installed.
    """
    name = str(source) if source is not None else _published_tokenizer(model)
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ImportError("Tokenizers come from transformers: pip install transformers.") from None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=offline() or Path(name).is_dir())
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"There is no tokenizer at {name!r} ({reason}). Pass a folder that holds its files, such as "
            "tokenizer.json, or a repository of the hub that can be reached."
        ) from None
    known, length = model.config.vocab_size, model.config.context_length
    if len(tokenizer) > known:
        raise ValueError(
            f"The tokenizer {name!r} has {len(tokenizer)} ids and the model knows {known}: it is that of another model."
        )
    lower = isinstance(model, SigLIP)  # trained on texts in lower case

    def tokenize(texts: Sequence[str]) -> Int[Tensor, "t n"]:
        given = [text.lower() for text in texts] if lower else list(texts)
        return tokenizer(given, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids

    return tokenize


def _published_tokenizer(model: NexusModule) -> str:
    if isinstance(model, CLIP):
        return CLIP_TOKENIZER
    urls = [weights.url for weights in model.card.weights] if model.card else []
    for url in urls:
        if url.startswith(PREFIX):
            return url.removeprefix(PREFIX)
    raise ValueError(
        f"This {type(model).__name__} has no card that names its tokenizer; pass its folder or repository."
    )


def embed_classes(
    model: CLIP | SigLIP, class_names: Sequence[str], tokenize: Tokenize, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> Float[Tensor, "k d"]:
    """Returns a vector of length 1 for each class: the mean over its sentences, as CLIP's authors ensemble prompts.

    Raises:
        ValueError: There is no class, or a template has no place for it.
    """
    if not class_names or not templates:
        raise ValueError("A zero-shot classifier needs at least one class and one template.")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"The template {template!r} has no {{}} where the class is written.")
    device = model.logit_scale.device
    rows = []
    with torch.no_grad():
        for name in class_names:
            tokens = tokenize([template.replace("{}", name) for template in templates])
            rows.append(model.encode_text(tokens.to(device)).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


class ZeroShotClassifier(NexusModule):
    """An image classifier whose classes are words. It can be evaluated and asked as any other classifier.

    Args:
        model: A CLIP or SigLIP.
        class_names: The classes, in words.
        tokenize: From texts to ids; None loads the model's own tokenizer (see `load_tokenizer`).
        templates: Sentences with a `{}` for the class; their embeddings are averaged.
    """

    def __init__(
        self,
        model: CLIP | SigLIP,
        class_names: Sequence[str],
        tokenize: Tokenize | None = None,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
    ) -> None:
        super().__init__({})
        if not isinstance(model, CLIP | SigLIP):
            raise ValueError(f"A zero-shot classifier is made of a CLIP or SigLIP, not of a {type(model).__name__}.")
        self.model = model
        self.class_names = tuple(class_names)
        self.preprocessing = model.preprocessing
        classes = embed_classes(model.eval(), class_names, tokenize or load_tokenizer(model), templates)
        self.register_buffer("classes", classes)

    classes: Tensor

    def forward(self, images: Float[Tensor, "b c h w"]) -> dict[str, Any]:
        """Returns `logits` (b, k), as the model was trained to scale them, and `embeddings` (b, d) of length 1.

        Their softmax chooses among the classes. SigLIP's sigmoid says besides whether any of them is there at all.
        """
        embeddings = self.model.encode_image(images)
        logits = self.model.logit_scale.exp() * embeddings @ self.classes.T
        if isinstance(self.model, SigLIP):
            logits = logits + self.model.logit_bias
        return {"logits": logits, "embeddings": embeddings}


def classifier_of(
    source: str | Path, class_names: Sequence[str], tokenizer: str | Path | None = None
) -> ZeroShotClassifier:
    """Returns a classifier of words with trained weights.

    Args:
        source: A registered CLIP or SigLIP, or a folder of one (see `NexusModule.from_pretrained`).
        class_names: The classes, in words; spaces around them are dropped.
        tokenizer: See `load_tokenizer`.

    Raises:
        ValueError: The model is neither CLIP nor SigLIP, a class has no name, or model or tokenizer cannot be had.
    """
    model = NexusModule.from_pretrained(source)
    names = [name.strip() for name in class_names]
    if not all(names):
        raise ValueError(f"A class has no name: {', '.join(map(repr, names))}.")
    if not isinstance(model, CLIP | SigLIP):
        raise ValueError(f"A zero-shot classifier is made of a CLIP or SigLIP, not of a {type(model).__name__}.")
    return ZeroShotClassifier(model, names, load_tokenizer(model, tokenizer))
