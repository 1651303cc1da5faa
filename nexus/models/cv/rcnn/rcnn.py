"""What the detectors of the R-CNN family have in common: their configuration and their flow.

A backbone with a pyramid gives maps, a first network proposes regions, a second stage classifies them and refines
their boxes, and branches say more of each detected box: its mask, its keypoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import Config
from nexus.core.parts import PartSpec
from nexus.layers.detector_input import Size, Target
from nexus.models.cv.detector import Detector
from nexus.models.cv.rcnn.fixed import part_specs
from nexus.models.cv.rcnn.parts import Branch, Detections, SecondStage
from nexus.models.cv.rcnn.pyramid import PyramidBackbone
from nexus.models.cv.rcnn.roi_heads import BoxHeadConfig, DetectConfig, SamplerConfig
from nexus.models.cv.rcnn.rpn import RegionProposalNetwork, RPNConfig


@dataclass(frozen=True, kw_only=True)
class RCNNConfig(Config):
    """Fields that all detectors of the family have. Defaults are ResNet-50 with a feature pyramid.

    Attributes:
        in_channels: Of the images.
        num_classes: Kinds of objects; labels run from 0 to `num_classes - 1`, and the background is not one of them.
        backbone: Name of a registered model that gives maps of strides 4 to 32, or tokens of stride 16; or a mapping
            with `name` and changes of that model's configuration, `{"name": "resnet18", "hidden_dim": 16}`.
        backbone_norm: "batch", or "frozen" for batch normalization that is never trained, as detectors have that
            start from ImageNet weights and see few images at a time.
        norm_eps: Of the frozen normalization. The first published files of torchvision were trained with 0.
        num_frozen_stages: How many parts of a ResNet are not trained: 1 is the stem, 2 also the first stage, ...
        pyramid_dim: Channels of every level of the pyramid.
        pyramid_norm: Batch normalization in the pyramid.
        rpn: First stage.
        box_head: Network on each proposal.
        sampler: Which proposals are trained on.
        detect: Which boxes are detections.
    """

    in_channels: int = 3
    num_classes: int = 80
    backbone: str | dict[str, Any] = "resnet50"
    backbone_norm: Literal["batch", "frozen"] = "batch"
    norm_eps: float = 1e-5
    num_frozen_stages: int = 0
    pyramid_dim: int = 256
    pyramid_norm: bool = False
    rpn: RPNConfig = RPNConfig()
    box_head: BoxHeadConfig = BoxHeadConfig()
    sampler: SamplerConfig = SamplerConfig()
    detect: DetectConfig = DetectConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; a detector needs at least 1.")
        if self.in_channels < 1:
            raise ValueError(f"in_channels is {self.in_channels}; it must be at least 1.")
        if not 0 <= self.num_frozen_stages <= 5:
            raise ValueError(f"num_frozen_stages is {self.num_frozen_stages}; it must lie in 0 to 5.")


class RCNN(Detector):
    """The flow of the family; its members pass their second stage and their branches.

    Args:
        config: Of the member.
        second_stage: From proposals to detections.
        branches: What else is said of a detection, by name.
    """

    def __init__(
        self, config: RCNNConfig, second_stage: SecondStage, branches: Mapping[str, Branch] | None = None
    ) -> None:
        super().__init__(config)
        self.backbone = PyramidBackbone(
            config.backbone,
            config.in_channels,
            config.pyramid_dim,
            norm=config.backbone_norm,
            norm_eps=config.norm_eps,
            pyramid_norm=config.pyramid_norm,
            num_frozen_stages=config.num_frozen_stages,
        )
        self.rpn = RegionProposalNetwork(config.rpn, config.pyramid_dim)
        self.second_stage = second_stage
        self.branches = nn.ModuleDict(branches or {})

    def target_keys(self) -> list[str]:
        return [branch.target_key for branch in self._branches()]

    def detect(
        self, batch: Float[Tensor, "b c h w"], sizes: Sequence[Size], targets: Sequence[Target] | None
    ) -> dict[str, Any]:
        """Returns `boxes`, `scores`, `labels` and what the branches add; `proposals` (n, 4), a list with one entry per
        image, and `features`, the levels P2 to P6; with `targets` `losses`.
        """
        levels = self.backbone(batch)
        first = self.rpn(levels, (batch.shape[-2], batch.shape[-1]))
        outputs: dict[str, Any] = {"features": levels}
        if targets is not None:
            outputs["losses"] = self.rpn.losses(first, targets)
            proposals = self.rpn.propose(first, sizes, for_training=True)
            losses, samples = self.second_stage.losses(levels, proposals, targets, sizes)
            outputs["losses"] |= losses
            for branch in self._branches():
                outputs["losses"] |= branch.losses(levels, samples, targets)
        if targets is None or not self.training:
            outputs["proposals"] = self.rpn.propose(first, sizes, for_training=False)
            detections = self.second_stage.detect(levels, outputs["proposals"], sizes)
            outputs |= {key: [getattr(found, key) for found in detections] for key in Detections._fields}
            for branch in self._branches():
                outputs |= branch.predict(levels, detections, sizes)
        return outputs

    def part_specs(self) -> dict[str, PartSpec]:
        return part_specs(list(self.branches))

    def _branches(self) -> list[Branch]:
        return [branch for branch in self.branches.values() if isinstance(branch, Branch)]
