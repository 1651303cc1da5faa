"""The configuration of YOLO-World."""

import math
from dataclasses import dataclass
from typing import Literal

from nexus.core.config import Config
from nexus.models.cv.clip import CLIPConfig

SIDES = ("in_channels", "num_bins", "class_dim", "max_detections", "max_candidates", "top_k", "neck_depth")


@dataclass(frozen=True, kw_only=True)
class YOLOWorldConfig(Config):
    """Defaults are YOLO-World v2 S.

    Attributes:
        num_classes: Words that the model knows now; see `YOLOWorld.set_classes`. With 0 it must be given texts.
        dims: Channels of the maps of strides 2, 4, 8, 16 and 32.
        depths: Blocks in the four stages of the backbone.
        neck_depth: Blocks in each stage of the neck.
        neck_num_heads: Heads with which texts look at the maps of strides 8, 16 and 32.
        contrast: How maps are made comparable with texts: "batch" normalizes over the batch (v2), "length" to
            length 1 (v1).
        image_pooling: Whether texts look at the image before the bottom-up path (v1, Sec. 3.3, I-pooling attention).
        pooling_dim: Width of that attention.
        pooling_num_heads: Its heads.
        class_dim: Least width of the branch that is compared with texts.
        projection_dim: Width of the space in which places and texts meet.
        text_dim: Width of the text tower, which is CLIP's.
        text_num_layers: Its blocks.
        text_num_heads: Heads of its attention.
        context_length: Tokens that a text may have.
        vocab_size: Of the tokenizer; its highest id ends every text.
        num_bins: A distance from a place to a side of its box is a distribution over 0 ... num_bins - 1 strides.
        score_threshold: Objects have a higher score.
        max_candidates: Most answers that are compared with each other, over all classes.
        nms_threshold: Of two objects of one class that overlap more, the better one stays.
        max_detections: Most objects of an image.
        many_labels: Whether a place may answer for several classes.
        top_k: Answers that learn from an object.
        alpha: Power of the score in the measure of a good answer (TOOD, Eq. 2).
        beta: Power of the overlap in it.
        class_weight: Of the classification loss.
        box_weight: Of 1 - CIoU.
        bins_weight: Of the distribution focal loss, the mean over the four sides.
        padding_value: Grey around images that do not fill a batch whose sides are multiples of 32.
    """

    in_channels: int = 3
    num_classes: int = 0
    dims: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck_depth: int = 1
    neck_num_heads: tuple[int, int, int] = (2, 4, 8)
    contrast: Literal["batch", "length"] = "batch"
    image_pooling: bool = False
    pooling_dim: int = 256
    pooling_num_heads: int = 8
    class_dim: int = 80
    projection_dim: int = 512
    text_dim: int = 512
    text_num_layers: int = 12
    text_num_heads: int = 8
    context_length: int = 77
    vocab_size: int = 49408
    num_bins: int = 16
    score_threshold: float = 0.001
    max_candidates: int = 30000
    nms_threshold: float = 0.7
    max_detections: int = 300
    many_labels: bool = True
    top_k: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    class_weight: float = 0.5
    box_weight: float = 7.5
    bins_weight: float = 1.5
    padding_value: float = 114 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in SIDES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if min(self.dims) < 4 or any(dim % 4 for dim in self.dims):
            raise ValueError(f"dims are {self.dims}; each must be a multiple of 4.")
        if min(self.depths) < 1:
            raise ValueError(f"depths are {self.depths}; each stage needs at least 1 block.")
        for stride, dim, heads in zip((8, 16, 32), self.dims[2:], self.neck_num_heads):
            if heads < 1 or dim // 2 % heads:
                raise ValueError(
                    f"neck_num_heads has {heads} for stride {stride}; they must divide half of its {dim} channels."
                )
        if self.pooling_dim % self.pooling_num_heads:
            raise ValueError(f"pooling_dim {self.pooling_dim} is not a multiple of {self.pooling_num_heads} heads.")
        if self.text_dim % self.text_num_heads:
            raise ValueError(f"text_dim {self.text_dim} is not a multiple of its {self.text_num_heads} heads.")
        if not (0 <= self.nms_threshold <= 1 and 0 <= self.score_threshold <= 1):
            raise ValueError(
                f"score_threshold is {self.score_threshold} and nms_threshold {self.nms_threshold}; both lie in 0 to 1."
            )

    def tower(self) -> CLIPConfig:
        """Returns the configuration of the text tower, as a part of CLIP's."""
        return CLIPConfig(
            text_dim=self.text_dim,
            text_num_layers=self.text_num_layers,
            text_num_heads=self.text_num_heads,
            context_length=self.context_length,
            vocab_size=self.vocab_size,
            projection_dim=self.projection_dim,
        )


def scaled(depth: float, width: float, last: int, *, version: int) -> YOLOWorldConfig:
    """Returns a variant: the plan of YOLOv8-L with its blocks and channels scaled, and so many channels at last."""
    dims = [math.ceil(dim * width / 8) * 8 for dim in (64, 128, 256, 512, last)]
    small, large = max(1, round(3 * depth)), max(1, round(6 * depth))
    first = {"contrast": "length", "image_pooling": True} if version == 1 else {}
    return YOLOWorldConfig(
        dims=tuple(dims),  # pyrefly: ignore[bad-argument-type]
        depths=(small, large, large, small),
        neck_depth=small,
        neck_num_heads=tuple(round(heads * width) for heads in (4, 8, last // 64)),  # pyrefly: ignore
        **first,  # pyrefly: ignore[bad-argument-type]
    )
