"""Images and texts: a model learns which text belongs to which image, and is measured by finding one from the other.

Where the data has classes instead of captions, templates make sentences of them, and the model is measured as a
zero-shot classifier of these classes.

Dims: b images, t texts, n tokens, e width of the shared space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nexus.data.captions import Tokenize
from nexus.models.cv import CLIP, SigLIP
from nexus.tasks.classification import ClassificationTask, Prediction
from nexus.tasks.classification.metrics import ClassificationMetrics
from nexus.tasks.image_text.retrieval import RetrievalMetrics
from nexus.tasks.image_text.tokenizers import load_tokenizer, templates_of
from nexus.tasks.image_text.zero_shot import class_outputs, embed_classes
from nexus.tasks.protocol import ImageInfo, Metrics

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset

LARGEST_SCALE = 100.0  # of CLIP's cosines (Sec. 2.5)


@dataclass(frozen=True)
class ImageTextTask:
    """The model's own contrastive loss over the pairs of all processes.

    Attributes:
        class_names: Of data with classes; empty for data with captions.
        tokenize: From texts to ids; None takes what was saved with the model, or its card's.
        templates: Sentences with a `{}` for the class; None takes what was saved with the model, or a plain one.
    """

    class_names: tuple[str, ...] = ()
    tokenize: Tokenize | None = None
    templates: tuple[str, ...] | None = None

    name = "image-text"

    @property
    def headline(self) -> str:
        """Zero-shot accuracy where there are classes, else how often the first text that is found is right."""
        return "top1" if self.class_names else "image_to_text_recall@1"

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError unless the data set has captions, or classes to make them of."""
        if self.class_names:
            ClassificationTask(self.class_names).check_data(dataset)
        elif not hasattr(dataset, "captions"):
            raise ValueError(
                f"The data set {dataset.name!r} has neither captions nor classes; use captions:PATH, or a data set of "
                "classes."
            )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its `contrastive` loss; text i belongs to image i.

        CLIP's scale of the logits is kept at 100 or below, as its authors do (Sec. 2.5). SigLIP's has no bound
        (Algorithm 1).
        """
        pair = getattr(model, "module", model)  # DDP's is inside
        if isinstance(pair, CLIP):
            with torch.no_grad():
                pair.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
        outputs = model(batch["images"], batch["tokens"], output_features=False, output_losses=True)
        return outputs, outputs["losses"]

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `embeddings` of images, and `logits` of the classes, or `text_embeddings` of the batch's texts.

        Raises:
            ValueError: There are neither classes nor texts.
        """
        pair = cast("CLIP | SigLIP", model)
        if self.class_names:
            tokenize = self.tokenize or load_tokenizer(pair)
            templates = templates_of(pair) if self.templates is None else self.templates
            return class_outputs(pair, batch["images"], embed_classes(pair, self.class_names, tokenize, templates))
        if "tokens" not in batch:
            raise ValueError(
                f"{type(model).__name__} compares images with texts, and there is none: name the classes in words, "
                "nexus predict --classes 'cat, red car', or ZeroShotClassifier(model, names)."
            )
        return {
            "embeddings": pair.encode_image(batch["images"]),
            "text_embeddings": pair.encode_text(batch["tokens"]),
        }

    def metrics(self) -> Metrics:
        """Returns fresh accuracy of the zero-shot classifier, or recall of retrieval."""
        return ClassificationMetrics() if self.class_names else RetrievalMetrics()

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Prediction]:
        """Returns one `Prediction` per image, among the classes."""
        return ClassificationTask(self.class_names).results(outputs, infos)

    def draw(self, image: "Image", result: Prediction) -> "Image":
        """Returns the image with the first guess written under it."""
        return ClassificationTask(self.class_names).draw(image, result)
