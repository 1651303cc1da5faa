"""The configuration of Grounding DINO."""

import math
from dataclasses import dataclass
from typing import Any

from nexus.core.config import Config
from nexus.layers import check_heads
from nexus.models.cv.rcnn.pyramid import backbone_parts


@dataclass(frozen=True, kw_only=True)
class GroundingDINOConfig(Config):
    """Defaults are Grounding DINO T (Sec. 4.1 and Appendix).

    Attributes:
        backbone: Name of a registered model that gives feature maps, or a mapping with `name` and changes of its
            configuration. Swin's small maps are padded to whole windows, unless `pad_windows` says otherwise.
        embed_dim: Width of the enhancer and of the decoder; a multiple of 4 and of `num_heads`.
        num_layers: Layers of the feature enhancer and of the decoder.
        num_heads: Of attention; the enhancer's text and fusion have half as many.
        hidden_dim: Width inside the MLPs; the enhancer's MLPs of text and its fusion have half of it.
        num_levels: Maps that are read: those of strides 8, 16 and 32, and beyond these halved ones.
        num_points: Places that a head reads on each level.
        num_queries: Most places that become queries.
        num_detections: Most pairs of a query and a class that are an image's detections.
        fusion_drop_path: Of the fusion of images and text, in training.
        text_dim: Width of BERT.
        text_num_layers: Blocks of BERT.
        text_num_heads: Heads of BERT's attention.
        text_hidden_dim: Width inside BERT's MLPs.
        text_dropout: Inside BERT, in training.
        text_norm_eps: Of BERT's layer norms.
        vocab_size: Of the tokenizer.
        text_positions: Places that BERT has embeddings for.
        max_text_len: Most tokens of a caption.
        pad_id: The token that fills up shorter captions.
        separator_ids: Tokens that end a phrase: [CLS], [SEP], "." and "?" of BERT's vocabulary.
        inverse_sigmoid_eps: How near to 0 and 1 a box may come before its logit is taken: 1e-3 in the authors' code,
            1e-5 in transformers'.
        class_cost: Of the words in the cost of matching.
        class_weight: Of the words in the loss.
        box_weight: Of the L1 distance of boxes, in the cost and in the loss.
        giou_weight: Of their GIoU, likewise.
    """

    in_channels: int = 3
    backbone: str | dict[str, Any] = "swin_tiny_patch4_window7_224"
    embed_dim: int = 256
    num_layers: tuple[int, int] = (6, 6)
    num_heads: int = 8
    hidden_dim: int = 2048
    num_levels: int = 4
    num_points: int = 4
    num_queries: int = 900
    num_detections: int = 300
    dropout: float = 0.0
    fusion_drop_path: float = 0.1
    text_dim: int = 768
    text_num_layers: int = 12
    text_num_heads: int = 12
    text_hidden_dim: int = 3072
    text_dropout: float = 0.1
    text_norm_eps: float = 1e-12
    vocab_size: int = 30522
    text_positions: int = 512
    max_text_len: int = 256
    pad_id: int = 0
    separator_ids: tuple[int, ...] = (101, 102, 1012, 1029)
    inverse_sigmoid_eps: float = 1e-3
    class_cost: float = 1.0
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        step = math.lcm(4, self.num_heads, 32)
        if self.num_heads % 2 or self.embed_dim % step:
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of {step} with num_heads {self.num_heads}, which must"
                " be even: normalization has 32 groups, and text has half the heads."
            )
        check_heads(self.hidden_dim // 2, self.num_heads // 2)
        check_heads(self.text_dim, self.text_num_heads)
        if min(*self.num_layers, self.num_points, self.num_queries, self.num_detections, self.text_num_layers) < 1:
            raise ValueError("num_layers, num_points, num_queries, num_detections and text_num_layers are at least 1.")
        if self.num_levels < 3:
            raise ValueError(f"num_levels is {self.num_levels}; the maps of strides 8, 16 and 32 are always read.")
        if not 2 <= self.max_text_len <= self.text_positions:
            raise ValueError(
                f"max_text_len is {self.max_text_len}; it must lie in 2 to text_positions, {self.text_positions}."
            )
        if any(not 0 <= number < self.vocab_size for number in (self.pad_id, *self.separator_ids)):
            raise ValueError(
                f"pad_id {self.pad_id} and separator_ids {self.separator_ids} must be ids of the vocabulary, 0 to"
                f" {self.vocab_size - 1}."
            )
        if not 0 < self.inverse_sigmoid_eps < 0.5:
            raise ValueError(f"inverse_sigmoid_eps is {self.inverse_sigmoid_eps}; it must lie between 0 and 0.5.")

    @property
    def body(self) -> dict[str, Any]:
        """The backbone as a mapping of its name and all its changes."""
        name, changes = backbone_parts(self.backbone)
        padded = {"pad_windows": True} if name.startswith("swin_") else {}
        return {"name": name, **padded, **changes}
