"""Classifiers made of words: CLIP and SigLIP compare images with a sentence for each class (CLIP, Sec. 3.1)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.core.module import NexusModule
from nexus.data.captions import Tokenize
from nexus.models.cv.image_text import ImageTextModel
from nexus.tasks.classification.task import ClassificationTask
from nexus.tasks.image_text.tokenizers import DEFAULT_TEMPLATES, Reader, load_tokenizer, templates_of
from nexus.tasks.session import Stateless
from nexus.tasks.views import Batch, Outputs


def embed_classes(
    model: ImageTextModel, class_names: Sequence[str], tokenize: Tokenize, templates: Sequence[str] = DEFAULT_TEMPLATES
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
        templates: Sentences with a `{}` for the class; their embeddings are averaged. None: those that the model was
            trained with, or "a photo of a {}.".
    """

    def __init__(
        self,
        model: ImageTextModel,
        class_names: Sequence[str],
        tokenize: Tokenize | None = None,
        templates: Sequence[str] | None = None,
    ) -> None:
        super().__init__({})
        if not isinstance(model, ImageTextModel):
            raise ValueError(f"A zero-shot classifier is made of a CLIP or SigLIP, not of a {type(model).__name__}.")
        self.model = model
        self.class_names = tuple(class_names)
        self.preprocessing = model.preprocessing
        given = templates if templates is not None else templates_of(model)
        classes = embed_classes(model.eval(), class_names, tokenize or load_tokenizer(model), given)
        self.register_buffer("classes", classes)

    classes: Tensor

    def forward(self, images: Float[Tensor, "b c h w"]) -> dict[str, Any]:
        """Returns `logits` (b, k), as the model was trained to scale them, and `embeddings` (b, d) of length 1.

        Their softmax chooses among the classes. SigLIP's sigmoid says besides whether any of them is there at all.
        """
        return class_outputs(self.model, images, self.classes)


def class_outputs(
    model: ImageTextModel, images: Float[Tensor, "b c h w"], classes: Float[Tensor, "k d"]
) -> dict[str, Any]:
    """Returns `logits` (b, k) of images and embedded classes, and the images' `embeddings` (b, d) of length 1."""
    embeddings = model.encode_image(images)
    return {"logits": model.compare(embeddings, classes), "embeddings": embeddings}


class WordSession(Stateless):
    """Images are shown to a model that compares them with words; the words are embedded once, before the first.

    Args:
        model: A CLIP or SigLIP in evaluation mode.
        class_names: The classes, in words.
        tokenize: From texts to ids.
        templates: Sentences with a `{}` for the class.
    """

    def __init__(
        self, model: ImageTextModel, class_names: Sequence[str], tokenize: Tokenize, templates: Sequence[str]
    ) -> None:
        super().__init__(ClassificationTask(tuple(class_names)), model)
        self.pair, self.classes = model, embed_classes(model, class_names, tokenize, templates)

    def outputs(self, batch: Batch) -> Outputs:
        """Returns `logits` (b, k) of the words, and `embeddings` (b, d) of length 1."""
        return class_outputs(self.pair, batch["images"], self.classes)


def checked_words(prompts: Any, tokenize: Reader) -> tuple[str, ...]:
    """Returns the classes that prompts name; spaces around them are dropped.

    Raises:
        ValueError: They are not words, one is empty, or the model never saw one.
    """
    if isinstance(prompts, str) or not all(isinstance(word, str) for word in prompts):
        raise ValueError(f"prompts are {prompts!r}; a model of words takes a list of them, such as ['cat', 'red car'].")
    names = tuple(word.strip() for word in prompts)
    if not all(names):
        raise ValueError(f"A class has no name: {', '.join(map(repr, names))}.")
    strange = [name for name in names if not tokenize.knows(name)]
    if strange:
        raise ValueError(
            f"The model never saw the words {', '.join(map(repr, strange))}: its tokenizer was made of the sentences "
            "that it was trained on. Name classes with words of theirs."
        )
    return names
