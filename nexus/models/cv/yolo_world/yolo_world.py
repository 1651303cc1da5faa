"""YOLO-World: a detector whose classes are words.

Cheng et al., "YOLO-World: Real-Time Open-Vocabulary Object Detection", 2024. https://arxiv.org/abs/2401.17270

A YOLOv8 whose neck is guided by texts, and whose head compares places with them. The words of a vocabulary are turned
into vectors once; then the text tower is not needed any more, and `fuse` leaves a plain detector.

Dims: b images, c channels, n places of all maps, k texts, t width of the shared space, r bins, h w pixels or places.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.core.formats import State
from nexus.core.parts import PartSpec
from nexus.layers.conv_norm import ConvNorm
from nexus.layers.csp import Bottleneck, CSPStage, PyramidPooling, conv_unit
from nexus.layers.detector_input import Size, Target, check_targets, fill_padding, pad_images, sizes_tensor
from nexus.models.cv.clip import TextTower
from nexus.models.cv.detector import Detector
from nexus.models.cv.image_text import check_known
from nexus.models.cv.yolo_world.config import YOLOWorldConfig, scaled
from nexus.models.cv.yolo_world.head import STRIDES, FixedContrast, Head, TextContrast
from nexus.models.cv.yolo_world.names import FORMATS
from nexus.models.cv.yolo_world.neck import Neck, TextGate
from nexus.ops.aligned import aligned_losses, boxes_from_bins, places_of
from nexus.ops.boxes import full_precision
from nexus.ops.nms import batched_nms

NOT_ASKED = -1e7
"""The logit of a text that an image is not asked about."""
ALIGNMENT_EPS = 1e-9


class Backbone(nn.Module):
    """YOLOv8's: five times half the size, with a stage that gathers its blocks after each but the first."""

    def __init__(self, config: YOLOWorldConfig) -> None:
        super().__init__()
        dims, depths = config.dims, config.depths
        self.stem = conv_unit(config.in_channels, dims[0], 3, 2)
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                conv_unit(dims[k], dims[k + 1], 3, 2),
                CSPStage(
                    dims[k + 1],
                    dims[k + 1],
                    [Bottleneck(dims[k + 1] // 2, shortcut=True) for _ in range(depths[k])],
                ),
            )
            for k in range(4)
        )
        self.stage4.append(PyramidPooling(dims[4]))


class YOLOWorld(Detector):
    """Detector of what words name. `config` is a `YOLOWorldConfig` or a mapping of its fields.

    Images may have any size.

    Attributes:
        vocabulary: (num_classes, t) vectors of the words that it looks for, trainable (prompt tuning); `set_classes`
            makes them of words.
    """

    config: YOLOWorldConfig
    head_prefixes = ("vocabulary",)
    tokenizer = "openai/clip-vit-base-patch32"
    vocabulary: nn.Parameter

    def __init__(self, config: YOLOWorldConfig | Mapping[str, Any]) -> None:
        super().__init__(config)
        config = self.config
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.head = Head(config)
        self.text: nn.Module | None = TextTower(config.tower())
        width = config.projection_dim
        self.vocabulary = nn.Parameter(torch.randn(config.num_classes, width) * width**-0.5)

    def forward(
        self,
        images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _ _"]],
        targets: Sequence[Target] | None = None,
        *,
        image_sizes: Sequence[Size] | None = None,
        texts: Float[Tensor, "k t"] | Float[Tensor, "b k t"] | None = None,
        asked: Float[Tensor, "b k"] | None = None,
    ) -> dict[str, Any]:
        """Detects what the vocabulary, or `texts`, name; see `Detector.forward` for the rest.

        Args:
            images: A batch, or a list of images of different sizes.
            targets: For each image `boxes` and `labels`, which are places in its texts.
            image_sizes: (height, width) of images in a batch that is padded below and to the right.
            texts: Vectors from `encode_text` instead of the vocabulary, of all images or of each.
            asked: 0 for texts that only fill up an image's; None: each is asked about.

        Raises:
            ValueError: There are no words to look for, or something does not fit.
        """
        texts = self._texts(texts)
        batch, sizes = pad_images(
            images, self.config.in_channels, image_sizes=image_sizes, multiple_of=self.multiple_of
        )
        if len(texts) not in (1, len(batch)):
            raise ValueError(f"There are texts of {len(texts)} images and {len(batch)} images; give each its own.")
        asked = None if asked is None else torch.as_tensor(asked, device=batch.device)
        if asked is not None and tuple(asked.shape) != (len(batch), texts.shape[1]):
            raise ValueError(
                f"asked is {tuple(asked.shape)}; it has a row for each of {len(batch)} images and a column for each of"
                f" {texts.shape[1]} texts."
            )
        if targets is not None:
            check_targets(targets, len(sizes), texts.shape[1])
        return self._detect(batch, sizes, targets, texts, asked)

    def detect(
        self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size], targets: Sequence[Target] | None
    ) -> dict[str, Any]:
        """Returns `boxes`, `scores` and `labels` of the vocabulary's words; see `forward`."""
        return self._detect(batch, sizes, targets, self._texts(None), None)

    def _detect(
        self,
        batch: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Target] | None,
        texts: Float[Tensor, "_ k t"],
        asked: Tensor | None,
    ) -> dict[str, Any]:
        """Returns `pred_logits` (b, n, k), `pred_boxes` (b, n, 4) in pixels and `features`; `losses` with targets."""
        config = self.config
        if any(size != batch.shape[-2:] for size in sizes):
            batch = fill_padding(batch, sizes_tensor(sizes, batch), config.padding_value)
        features = self._backbone(batch)
        maps = self.neck(features, texts)
        logits, bins = self.head(maps, texts)
        places = places_of(maps, STRIDES)
        boxes = boxes_from_bins(bins, places)
        outputs: dict[str, Any] = {"pred_logits": silence(logits, asked), "pred_boxes": boxes, "features": features}
        if targets is not None:
            losses = aligned_losses(
                logits, bins, places, targets, top_k=config.top_k, alpha=config.alpha, beta=config.beta,
                complete=True, eps=ALIGNMENT_EPS, asked=asked,
            )  # fmt: skip
            weights = {"classification": config.class_weight, "box": config.box_weight, "bins": config.bins_weight}
            outputs["losses"] = {name: weight * getattr(losses, name) for name, weight in weights.items()}
        if targets is None or not self.training:
            found = [self._objects(*one) for one in zip(outputs["pred_logits"], boxes, sizes)]
            outputs |= dict(zip(("boxes", "scores", "labels"), map(list, zip(*found))))
        return outputs

    def _objects(self, logits: Float[Tensor, "n k"], boxes: Float[Tensor, "n 4"], size: Size) -> tuple[Tensor, ...]:
        found, scores, labels = suppress(full_precision(logits).sigmoid(), full_precision(boxes), self.config)
        height, width = size
        return found.clamp(min=0).minimum(found.new_tensor([width, height, width, height])), scores, labels

    def _texts(self, texts: Tensor | None) -> Float[Tensor, "_ k t"]:
        texts = self.vocabulary if texts is None else torch.as_tensor(texts)
        width = self.config.projection_dim
        if texts.ndim not in (2, 3) or texts.shape[-1] != width:
            raise ValueError(f"texts are {tuple(texts.shape)}; they are (k, {width}), or (images, k, {width}).")
        if not texts.shape[-2]:
            raise ValueError(
                "There are no words to look for: call model.set_classes(['cat', 'red car'], tokenize) first, or give"
                " texts."
            )
        return texts[None] if texts.ndim == 2 else texts

    def _backbone(self, x: Tensor) -> list[Tensor]:
        x = self._run(self.backbone.stage1, self.backbone.stem(x))
        c3 = self._run(self.backbone.stage2, x)
        c4 = self._run(self.backbone.stage3, c3)
        return [c3, c4, self._run(self.backbone.stage4, c4)]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)

    def encode_text(self, tokens: Int[Tensor, "k _"]) -> Float[Tensor, "k t"]:
        """Returns the vectors of texts, of length 1.

        Args:
            tokens: Ids from CLIP's tokenizer.

        Raises:
            ValueError: The model was fused, and reads no texts any more, or it does not know an id.
        """
        if self.text is None:
            raise ValueError("This YOLOWorld was fused for its words and reads no others; load it again.")
        check_known(tokens, self.config.vocab_size)
        return nn.functional.normalize(self.text(tokens, self.checkpointing), dim=-1)

    def set_classes(
        self, class_names: Sequence[str], tokenize: Callable[[Sequence[str]], Int[Tensor, "k _"]]
    ) -> "YOLOWorld":
        """Turns words into the vocabulary that the model looks for from now on, and returns itself.

        Args:
            class_names: "cat", "red car", ...; of synonyms, "sofa/couch", the first is meant.
            tokenize: From texts to ids of CLIP's tokenizer.

        Raises:
            ValueError: There is no word, one is empty or stands twice, or the model was fused.
        """
        names = tuple(class_names or ())
        if isinstance(class_names, str) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"class_names are {class_names!r}; give a list of words, such as ['cat', 'red car'].")
        empty = [name for name in names if not name.strip()]
        if empty:
            raise ValueError(f"A word is empty: {', '.join(map(repr, names))[:200]}.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(map(repr, twice))} stand twice among the words; name each once.")
        with torch.no_grad():
            tokens = torch.as_tensor(tokenize([name.split("/")[0].strip() for name in names]))
            vectors = self.encode_text(tokens.to(self.vocabulary.device))
        self.vocabulary = nn.Parameter(vectors, requires_grad=self.vocabulary.requires_grad)
        self.config, self.class_names = self.config.replace(num_classes=len(names)), names
        return self

    def fuse(self) -> "YOLOWorld":
        """Makes the model a plain detector of its vocabulary, without a text tower (Sec. 3.4, re-parameterization).

        The model is changed, cannot be trained any more, and gives the same boxes. Returns itself, in evaluation mode.

        Raises:
            ValueError: There are no words, or texts look at the image (v1), so that they differ from image to image.
        """
        if self.neck.pooling is not None:
            raise ValueError("The texts of YOLO-World v1 look at the image, and cannot be fixed; take a v2.")
        texts = self._texts(None)[0].detach()
        for module in self.modules():
            if isinstance(module, TextGate):
                module.fix(texts)
        self.head.contrast = nn.ModuleList(
            [FixedContrast(one, texts) for one in self.head.contrast if isinstance(one, TextContrast)]
        )
        for module in list(self.modules()):
            if isinstance(module, ConvNorm):
                module.fold()
        self.text = None
        return self.eval().requires_grad_(False)

    def fit_state(self, state: State) -> State:
        """Adds the vocabulary that the authors' files do not have: it is empty."""
        return {"vocabulary": self.vocabulary.new_zeros(0, self.config.projection_dim), **state}

    def part_specs(self) -> dict[str, PartSpec]:
        return {
            "backbone": PartSpec(_backbone, ("images", "image_sizes"), ("backbone",)),
            "encoder": PartSpec(_neck, BACKBONE_MAPS, ("neck", "vocabulary")),
            "head": PartSpec(_head, NECK_MAPS, ("head", "vocabulary")),
            "objects": PartSpec(_objects, ("pred_logits", "pred_boxes", "image_sizes"), (), graph=False),
        }


BACKBONE_MAPS, NECK_MAPS = ("c3", "c4", "c5"), ("p3", "p4", "p5")


def _backbone(model: YOLOWorld, images: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(BACKBONE_MAPS, model._backbone(fill_padding(images, sizes, model.config.padding_value))))


def _neck(model: YOLOWorld, *features: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(NECK_MAPS, model.neck(features, model._texts(None))))


def _head(model: YOLOWorld, *maps: Tensor) -> Mapping[str, Tensor]:
    logits, bins = model.head(maps, model._texts(None))
    return {"pred_logits": logits, "pred_boxes": boxes_from_bins(bins, places_of(maps, STRIDES))}


def _objects(model: YOLOWorld, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Mapping[str, Tensor]:
    found = [model._objects(*one) for one in zip(logits, boxes, [(int(h), int(w)) for h, w in sizes])]
    columns = zip(("boxes", "scores", "labels"), zip(*found))
    count = torch.tensor([len(scores) for _, scores, _ in found], device=logits.device)
    return {**{name: nn.utils.rnn.pad_sequence(list(rows), batch_first=True) for name, rows in columns}, "count": count}


def silence(logits: Float[Tensor, "b n k"], asked: Float[Tensor, "b k"] | None) -> Float[Tensor, "b n k"]:
    """Returns logits that are very low for texts that an image is not asked about."""
    return logits if asked is None else logits.masked_fill(asked[:, None] == 0, NOT_ASKED)


def suppress(
    scores: Float[Tensor, "n k"], boxes: Float[Tensor, "n 4"], config: YOLOWorldConfig
) -> tuple[Float[Tensor, "m 4"], Float[Tensor, " m"], Int[Tensor, " m"]]:
    """Returns the boxes, scores and labels of an image's objects, best first: class by class the best of those that
    overlap."""
    if not config.many_labels or scores.shape[1] == 1:
        best, labels = scores.max(dim=1)
        place = (best > config.score_threshold).nonzero()[:, 0]
        values, labels = best[place], labels[place]
    else:
        place, labels = (scores > config.score_threshold).nonzero().unbind(1)
        values = scores[place, labels]
    values, order = values.sort(descending=True, stable=True)
    values, order = values[: config.max_candidates], order[: config.max_candidates]
    place, labels = place[order], labels[order]
    kept = batched_nms(boxes[place], values, labels, config.nms_threshold, max_boxes=config.max_detections)
    return boxes[place][kept], values[kept], labels[kept]


YOLOWorld.formats = FORMATS

_SIZES = {"s": (1 / 3, 0.5, 1024), "m": (2 / 3, 0.75, 768), "l": (1.0, 1.0, 512), "x": (1.0, 1.25, 512)}
VARIANTS = {
    f"yolo_world_v{version}_{size}": scaled(*plan, version=version)
    for version in (1, 2)
    for size, plan in _SIZES.items()
}
