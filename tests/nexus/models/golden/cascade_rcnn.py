"""How cascade_rcnn.json was made: a small Cascade Mask R-CNN of mmdetection 3.3.0, run in float64.

    pip install --target DIR --no-deps mmdet==3.3.0 mmcv-lite==2.1.0 mmengine addict yapf termcolor \
        opencv-python-headless pycocotools shapely terminaltables platformdirs six
    PYTHONPATH=DIR python tests/nexus/models/golden/cascade_rcnn.py SHIM     # SHIM makes torchvision importable

mmcv's compiled operators are replaced by those of nexus.ops, which are proven by themselves. Weights and images are
drawn from a seed by name, so that the file holds results only; `draw` and `scene` are shared with the test.
"""

import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def draw(shapes: dict[str, Any]) -> dict[str, Tensor]:
    """Returns weights for mmdetection's names; NumPy promises that its RandomState never changes."""
    random, weights = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        values = random.standard_normal(tuple(shape))
        fan_in = max(1, int(np.prod(shape[1:])))
        if name.endswith("num_batches_tracked"):
            values = np.zeros(tuple(shape))
        elif name.endswith("running_var"):
            values = 1 + 0.3 * np.abs(values)
        elif name.endswith(("running_mean", ".bias")):
            values = 0.1 * values
        elif len(shape) == 1:
            values = 1 + 0.1 * values
        elif "fc_cls" in name:
            values = 0.6 * values
        elif "fc_reg" in name:
            values = 0.15 * values
        elif any(part in name for part in ("rpn_cls", "rpn_reg")):
            values = 0.05 * values
        else:
            values = values * fan_in**-0.5
        weights[name] = torch.from_numpy(np.asarray(values, dtype=np.float64))
    return weights


def scene() -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Returns two images, the target of both, and proposals around its objects."""
    random = np.random.RandomState(1)
    images = torch.from_numpy(random.standard_normal((2, 3, 64, 96)))
    boxes = torch.tensor([[8.0, 5, 44, 40], [20, 30, 80, 60]], dtype=torch.float64)
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 5:40, 8:44], masks[1, 30:60, 20:80] = 1, 1
    proposals = boxes.repeat(30, 1) + torch.from_numpy(random.standard_normal((60, 4))) * 5
    proposals = torch.minimum(proposals.clamp(min=0), torch.tensor([96.0, 64, 96, 64], dtype=torch.float64))
    return images, {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}, proposals


def stub_mmcv() -> None:
    """Puts modules of nexus.ops where mmdetection looks for mmcv's compiled ones."""
    import mmcv

    from nexus.ops.nms import batched_nms
    from nexus.ops.roi import roi_align

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (nn.Module,), {})

    class RoIAlign(nn.Module):
        def __init__(self, output_size: int, spatial_scale: float, sampling_ratio: int) -> None:
            super().__init__()
            self.output_size, self.spatial_scale = (output_size, output_size), spatial_scale
            self.options = {"spatial_scale": spatial_scale, "sampling_ratio": sampling_ratio}

        def forward(self, features: Tensor, rois: Tensor) -> Tensor:
            return roi_align(features, rois[:, 1:], rois[:, 0].long(), self.output_size, **self.options)

    def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, settings: Any, class_agnostic: bool = False) -> Any:
        kept = batched_nms(boxes, scores, groups, settings["iou_threshold"])
        return torch.cat([boxes[kept], scores[kept][:, None]], 1), kept

    def align(features: Tensor, rois: Tensor, size: Any, scale: float, ratio: int, mode: str, aligned: bool) -> Tensor:
        images = rois[:, 0].long()
        options = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
        return roi_align(features, rois[:, 1:], images, tuple(size), **options)

    mmcv.__version__ = "2.1.0"
    names = "nms roi_align carafe merge_cells point_sample multi_scale_deform_attn modulated_deform_conv deform_conv"
    for name in ("", *(f".{name}" for name in names.split())):
        module = Anything(f"mmcv.ops{name}")
        module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(module.__name__, None)
        vars(module).update(RoIAlign=RoIAlign, batched_nms=suppress, roi_align=align)
        sys.modules[module.__name__] = module


def settings() -> dict[str, Any]:
    """Returns mmdetection's configs/_base_/models/cascade-mask-rcnn_r50_fpn.py, made small."""

    def coder(deviations: list[float]) -> dict[str, Any]:
        return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": deviations}

    def head(deviations: list[float]) -> dict[str, Any]:
        return {
            "type": "Shared2FCBBoxHead",
            "in_channels": 16,
            "fc_out_channels": 12,
            "roi_feat_size": 7,
            "num_classes": 3,
            "bbox_coder": coder(deviations),
            "reg_class_agnostic": True,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0},
        }

    def pool(size: int) -> dict[str, Any]:
        layer = {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0}
        levels = {"out_channels": 16, "featmap_strides": [4, 8, 16, 32]}
        return {"type": "SingleRoIExtractor", "roi_layer": layer, **levels}

    def training(iou: float) -> dict[str, Any]:
        limits = {"pos_iou_thr": iou, "neg_iou_thr": iou, "min_pos_iou": iou, "match_low_quality": False}
        sampler = {"type": "RandomSampler", "num": 4000, "pos_fraction": 0.25, "add_gt_as_proposals": True}
        assigner = {"type": "MaxIoUAssigner", "ignore_iof_thr": -1, **limits}
        return {"assigner": assigner, "sampler": sampler, "mask_size": 28, "pos_weight": -1, "debug": False}

    nms = {"type": "nms", "iou_threshold": 0.7}
    return {
        "type": "CascadeRCNN",
        "backbone": {"type": "ResNet", "depth": 18, "frozen_stages": -1, "norm_cfg": {"type": "BN"}},
        "neck": {"type": "FPN", "in_channels": [64, 128, 256, 512], "out_channels": 16, "num_outs": 5},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 16,
            "feat_channels": 16,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": coder([1.0] * 4),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9},
        },
        "roi_head": {
            "type": "CascadeRoIHead",
            "num_stages": 3,
            "stage_loss_weights": [1, 0.5, 0.25],
            "bbox_roi_extractor": pool(7),
            "mask_roi_extractor": pool(14),
            "bbox_head": [head([0.1, 0.1, 0.2, 0.2]), head([0.05, 0.05, 0.1, 0.1]), head([0.033, 0.033, 0.067, 0.067])],
            "mask_head": {
                "type": "FCNMaskHead",
                "num_convs": 1,
                "in_channels": 16,
                "conv_out_channels": 8,
                "num_classes": 3,
                "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
            },
        },
        "train_cfg": {"rpn": training(0.7), "rcnn": [training(iou) for iou in (0.5, 0.6, 0.7)]},
        "test_cfg": {
            "rpn": {"nms_pre": 60, "max_per_img": 20, "nms": nms, "min_bbox_size": 0},
            "rcnn": {"score_thr": 0.01, "nms": {**nms, "iou_threshold": 0.5}, "max_per_img": 9},
        },
    }


def main() -> None:
    spec = importlib.util.spec_from_file_location("tvshim", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    stub_mmcv()
    import mmdet.models  # noqa: F401  (fills the registry)
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import bbox2roi
    from mmdet.structures.mask import BitmapMasks
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    model = MODELS.build(ConfigDict(settings())).double().eval()
    model.load_state_dict(draw({name: value.shape for name, value in model.state_dict().items()}))
    images, target, proposals = scene()
    size = {"img_shape": (64, 96), "ori_shape": (64, 96), "scale_factor": (1.0, 1.0)}
    samples = [DetDataSample(metainfo=size) for _ in images]
    with torch.no_grad():
        levels, roi_head = model.extract_feat(images), model.roi_head
        proposed = model.rpn_head.predict(levels, samples, rescale=False)
        detections = roi_head.predict_bbox(levels, [size] * 2, proposed, rcnn_test_cfg=roi_head.test_cfg)
        rois, labels = bbox2roi([d.bboxes for d in detections]), torch.cat([d.labels for d in detections])
        masks = sum(roi_head._mask_forward(stage, levels, rois)["mask_preds"].sigmoid() for stage in range(3)) / 3
        for sample in samples:
            bitmaps = BitmapMasks(target["masks"].numpy(), 64, 96)
            sample.gt_instances = InstanceData(bboxes=target["boxes"], labels=target["labels"], masks=bitmaps)
        given = [
            InstanceData(bboxes=proposals.clone(), scores=torch.ones(60), labels=labels.new_zeros(60)) for _ in images
        ]
        losses = roi_head.loss(levels, given, samples)
    result = {
        "boxes": [d.bboxes.tolist() for d in detections],
        "scores": [d.scores.tolist() for d in detections],
        "labels": [d.labels.tolist() for d in detections],
        "mask_means": masks[torch.arange(len(labels)), labels].mean((1, 2)).tolist(),
        "mask_centres": masks[torch.arange(len(labels)), labels][:, 9, 17].tolist(),
        "losses": {name: float(value) for name, value in losses.items() if "loss" in name},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
