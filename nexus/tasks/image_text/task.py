"""Images and texts: a model learns which text belongs to which image, and is measured by finding one from the other.

Where the data has classes instead of captions, templates make sentences of them, and the model is measured as a
zero-shot classifier of these classes.

Dims: b images, t texts, n tokens, e width of the shared space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.captions import CaptionTransform, Tokenize, sentences
from nexus.data.facets import Captioned, class_names_of
from nexus.data.transforms import AugmentConfig, eval_transform, train_transform
from nexus.models.cv.image_text import ImageTextModel
from nexus.tasks.classification.metrics import AnswerMetrics
from nexus.tasks.classification.prediction import Prediction
from nexus.tasks.classification.task import ClassificationTask
from nexus.tasks.image_text.retrieval import RetrievalMetrics
from nexus.tasks.image_text.tokenizers import bring_tokenizer, load_tokenizer, templates_of
from nexus.tasks.image_text.zero_shot import WordSession, checked_words
from nexus.tasks.protocol import Metrics, Task
from nexus.tasks.session import Session, Stateless
from nexus.tasks.views import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset


@dataclass(frozen=True)
class ImageTextTask(Task):
    """The model's own contrastive loss over the pairs of all processes.

    Attributes:
        class_names: Of data with classes; empty for data with captions.
        tokenize: From texts to ids; None takes what was saved with the model, or its card's.
        templates: Sentences with a `{}` for the class; None takes what was saved with the model, or a plain one.
        tokenizer: Where the tokenizer is that `tokenize` does not give yet; see `load_tokenizer`.
    """

    class_names: tuple[str, ...] = ()
    tokenize: Tokenize | None = None
    templates: tuple[str, ...] | None = None
    tokenizer: str | Path | None = None

    name = "image-text"

    @property
    def headline(self) -> str:
        """Zero-shot accuracy where there are classes, else how often the first text that is found is right."""
        return "top1" if self.class_names else "image_to_text_recall@1"

    @classmethod
    def for_model(
        cls, model: nn.Module, class_names: Sequence[str] = (), *, tokenizer: str | Path | None = None
    ) -> Self:
        """Returns the task that asks `model`, with the tokenizer that is there."""
        return cls(tuple(class_names) or super().for_model(model).class_names, tokenizer=tokenizer)

    @classmethod
    def for_data(cls, model: nn.Module, dataset: "Dataset", *, tokenizer: str | Path | None = None) -> Self:
        """Returns the task that measures the model: as a classifier by the names of classes, or on captions."""
        pair = _pair(model)
        task = cls(class_names_of(dataset), load_tokenizer(pair, tokenizer), templates_of(pair))
        task.check_data(dataset)
        return task

    @classmethod
    def for_run(cls, model: nn.Module, dataset: "Dataset", recipe: Any) -> Self:
        """Returns the task that trains the model, which is given its tokenizer.

        Raises:
            ValueError: The recipe smooths labels or shards weights; or the tokenizer does not fit.
        """
        names = super().for_run(model, dataset, recipe).class_names
        if recipe.training.sharding == "fsdp":  # FSDP gathers weights for `forward`, not for one tower alone
            raise ValueError(f"training.sharding is 'fsdp', which {type(model).__name__} cannot use; 'none' is DDP.")
        templates = recipe.data.templates
        task = cls(names, templates=templates)
        task.check_data(dataset)
        texts = (text for index in range(len(dataset)) for text in sentences(dataset, index, templates))
        return replace(task, tokenize=bring_tokenizer(_pair(model), recipe.data.tokenizer, texts, templates))

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError unless the data set has captions, or classes to make them of."""
        if self.class_names:
            ClassificationTask(self.class_names).check_data(dataset)
        elif not isinstance(dataset, Captioned):
            raise ValueError(
                f"The data set {dataset.name!r} has neither captions nor classes; use captions:PATH, or a data set of "
                "classes."
            )

    def transforms(
        self, preprocessing: Preprocessing | None, augment: AugmentConfig | None
    ) -> tuple[CaptionTransform, CaptionTransform]:
        """Returns what makes batches of images with the tokens of their sentences."""
        augment = augment or AugmentConfig()
        if augment.mixup or augment.cutmix:
            raise ValueError("augment sets mixup or cutmix, which mix no texts along; leave them out.")
        if preprocessing is None:
            raise ValueError("An image-text model needs images, and nothing says how they become its input.")
        assert self.tokenize is not None, "for_run and for_data bring the tokenizer"
        words = (self.tokenize, self.templates or ())
        return (
            CaptionTransform(train_transform(preprocessing, augment), *words, training=True),
            CaptionTransform(eval_transform(preprocessing), *words, training=False),
        )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its `contrastive` loss; text i belongs to image i.

        The scale of the logits is kept within the model's bound, as CLIP's authors do (Sec. 2.5).
        """
        pair = _pair(getattr(model, "module", model))  # DDP's is inside
        if pair.largest_scale is not None:
            with torch.no_grad():
                pair.logit_scale.clamp_(max=math.log(pair.largest_scale))
        outputs = model(batch["images"], batch["tokens"], output_features=False, output_losses=True)
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `embeddings` of images and `text_embeddings` of the batch's texts.

        Raises:
            ValueError: There are no texts.
        """
        if "tokens" not in batch:
            raise ValueError(
                f"{type(model).__name__} compares images with texts, and there is none: name the classes in words, "
                "prompts=['cat', 'red car'], or nexus predict --classes 'cat, red car'."
            )
        pair = _pair(model)
        return {
            "embeddings": pair.encode_image(batch["images"]),
            "text_embeddings": pair.encode_text(batch["tokens"]),
        }

    def metrics(self) -> Metrics:
        """Returns fresh accuracy of the zero-shot classifier, or recall of retrieval."""
        return AnswerMetrics(self.name, self.class_names) if self.class_names else RetrievalMetrics(self.name)

    def session(self, model: nn.Module, prompts: Any = None) -> Session:
        """Returns the model as a classifier of the words that prompts name, or of its own classes."""
        if prompts is None and not self.class_names:
            return Stateless(self, model)
        pair = _pair(model)
        tokenize = self.tokenize or load_tokenizer(pair, self.tokenizer)
        names = self.class_names if prompts is None else checked_words(prompts, load_tokenizer(pair, self.tokenizer))
        return WordSession(pair, names, tokenize, templates_of(pair) if self.templates is None else self.templates)

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Prediction]:
        """Returns one `Prediction` per image, among the classes."""
        return ClassificationTask(self.class_names).results(outputs, infos)

    def draw(self, image: "Image", result: Prediction) -> "Image":
        """Returns the image with the first guess written under it."""
        return ClassificationTask(self.class_names).draw(image, result)


def _pair(model: nn.Module) -> ImageTextModel:
    if not isinstance(model, ImageTextModel):
        raise ValueError(f"Images are compared with words by a CLIP or SigLIP, not by a {type(model).__name__}.")
    return model
