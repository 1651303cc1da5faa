"""What every classifier of images is made of: a backbone that embeds, and a head that reads the embedding."""

from collections.abc import Mapping

from torch import Tensor

from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec


class Classifier(NexusModule):
    """Base of the classifiers: `head` reads `embeddings`."""

    def part_specs(self) -> dict[str, PartSpec]:
        body = [name for name, _ in (*self.named_children(), *self.named_parameters(recurse=False)) if name != "head"]
        return {
            "backbone": PartSpec(_embed, ("images",), tuple(body)),
            "head": PartSpec(_classify, ("embeddings",), ("head",)),
        }


def _embed(model: Classifier, images: Tensor) -> Mapping[str, Tensor]:
    return {"embeddings": model(images, output_features=False)["embeddings"]}


def _classify(model: Classifier, embeddings: Tensor) -> Mapping[str, Tensor]:
    return {"logits": model.get_submodule("head")(embeddings)}
