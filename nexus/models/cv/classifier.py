"""What every classifier of images is made of: a backbone that embeds, and a head that reads the embedding.

Beside `forward`, the verbs that timm's users know: `forward_features`, `forward_head`, `reset_classifier`, ...

Dims: b batch, c channels, h w places of a map, n tokens, d width, k classes.
"""

from abc import abstractmethod
from collections.abc import Mapping

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.initialization import init_vision_layer
from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.models.features import FeatureInfo


class Classifier(NexusModule):
    """Base of the classifiers: `head` reads `embeddings`."""

    head: nn.Module

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Width of what `forward_features` returns."""

    @property
    def head_hidden_size(self) -> int:
        """Width of `embeddings`, which the head reads."""
        return self.num_features

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 if there is none."""
        return self.config.num_classes

    @property
    @abstractmethod
    def feature_info(self) -> FeatureInfo:
        """Channels, stride and module of each map of `forward_maps`."""

    @abstractmethod
    def forward_stages(self, images: Float[Tensor, "b c h w"], count: int | None = None) -> list[Tensor]:
        """Returns the first `count` of what the outputs call `features`; all by default."""

    @abstractmethod
    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Returns what is pooled before the head, in timm's shape: all tokens, or a map, after the last norm."""

    @abstractmethod
    def pool_features(self, features: Tensor) -> Float[Tensor, "b d"]:
        """Returns `embeddings`, one vector for each image, from what `forward_features` returns."""

    def classify(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Returns `logits` from `embeddings`."""
        return self.head(embeddings)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Float[Tensor, "b _"]:
        """Returns the logits of what `forward_features` gave, or with `pre_logits` the embeddings before the head."""
        embeddings = self.pool_features(features)
        return embeddings if pre_logits else self.classify(embeddings)

    def forward_maps(
        self, images: Float[Tensor, "b c h w"], count: int | None = None
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Returns the maps that `feature_info` lists, or the first `count` of them; tokens on their grid of patches."""
        layout = self.token_layout(images.shape[-2:])
        stages = self.forward_stages(images, count)
        if layout is None:
            return stages
        return [rearrange(x[:, layout.prefix :], "b (h w) d -> b d h w", h=layout.height) for x in stages]

    def get_classifier(self) -> nn.Module:
        """Returns the head: a linear layer, or the identity if there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a fresh head of `num_classes` outputs in place of the old one; 0 leaves it out.

        The configuration follows, and names of the old classes are forgotten.

        Raises:
            ValueError: `num_classes` is negative.
        """
        self.config = self.config.replace(num_classes=num_classes)
        like = next(self.parameters())
        head = make_head(self.head_hidden_size, num_classes).to(like.device, like.dtype)
        self.init_head(head)
        self.head = head.train(self.training)
        self.class_names = ()

    def init_head(self, head: nn.Module) -> None:
        """Draws the weights of a fresh head."""
        init_vision_layer(head)

    def part_specs(self) -> dict[str, PartSpec]:
        body = [name for name, _ in (*self.named_children(), *self.named_parameters(recurse=False)) if name != "head"]
        return {
            "backbone": PartSpec(_embed, ("images",), tuple(body)),
            "head": PartSpec(_classify, ("embeddings",), ("head",)),
        }


def make_head(width: int, num_classes: int) -> nn.Module:
    """Returns a linear layer, or the identity if there are no classes."""
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


def _embed(model: Classifier, images: Tensor) -> Mapping[str, Tensor]:
    return {"embeddings": model(images, output_features=False)["embeddings"]}


def _classify(model: Classifier, embeddings: Tensor) -> Mapping[str, Tensor]:
    return {"logits": model.get_submodule("head")(embeddings)}
