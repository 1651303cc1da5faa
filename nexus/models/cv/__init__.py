"""The zoo: one file per paper. Importing this package registers every variant."""

from nexus.models.cv.clip import CLIP, CLIPConfig
from nexus.models.cv.detr import DETR, DETRConfig
from nexus.models.cv.dinov2 import DINOv2, DINOv2Config
from nexus.models.cv.efficient_net import EfficientNet, EfficientNetConfig
from nexus.models.cv.eva02 import EVA02, EVA02Config
from nexus.models.cv.grounding_dino import GroundingDINO, GroundingDINOConfig
from nexus.models.cv.hivit import HiViT, HiViTConfig
from nexus.models.cv.hivit_mae import HiViTMAE, HiViTMAEConfig
from nexus.models.cv.internvl import InternVL, InternVLConfig
from nexus.models.cv.mae import MAE, MAEConfig
from nexus.models.cv.medsam import MedSAM
from nexus.models.cv.mlp_mixer import MixerConfig, MLPMixer
from nexus.models.cv.rcnn import (
    CascadeRCNN,
    CascadeRCNNConfig,
    FasterRCNN,
    FasterRCNNConfig,
    KeypointRCNN,
    KeypointRCNNConfig,
    MaskRCNN,
    MaskRCNNConfig,
)
from nexus.models.cv.resnet import ResNet, ResNetConfig
from nexus.models.cv.rt_detr import RTDETR, RTDETRConfig
from nexus.models.cv.sam import SAM, SAMConfig
from nexus.models.cv.sam2 import SAM2, SAM2Config
from nexus.models.cv.siglip import SigLIP, SigLIPConfig
from nexus.models.cv.swin_transformer import SwinConfig, SwinTransformer
from nexus.models.cv.vgg import VGG, VGGConfig
from nexus.models.cv.vit import VisionTransformer, ViTConfig
from nexus.models.cv.yolo_world import YOLOWorld, YOLOWorldConfig
from nexus.models.cv.yolov10 import YOLOv10, YOLOv10Config

from nexus.models.cv import cards  # isort: skip  (the cards need the classes)

__all__ = [
    "CLIP",
    "DETR",
    "EVA02",
    "MAE",
    "RTDETR",
    "SAM",
    "SAM2",
    "VGG",
    "CLIPConfig",
    "CascadeRCNN",
    "CascadeRCNNConfig",
    "DETRConfig",
    "DINOv2",
    "DINOv2Config",
    "EVA02Config",
    "EfficientNet",
    "EfficientNetConfig",
    "FasterRCNN",
    "FasterRCNNConfig",
    "GroundingDINO",
    "GroundingDINOConfig",
    "HiViT",
    "HiViTConfig",
    "HiViTMAE",
    "HiViTMAEConfig",
    "InternVL",
    "InternVLConfig",
    "KeypointRCNN",
    "KeypointRCNNConfig",
    "MAEConfig",
    "MLPMixer",
    "MaskRCNN",
    "MaskRCNNConfig",
    "MedSAM",
    "MixerConfig",
    "RTDETRConfig",
    "ResNet",
    "ResNetConfig",
    "SAM2Config",
    "SAMConfig",
    "SigLIP",
    "SigLIPConfig",
    "SwinConfig",
    "SwinTransformer",
    "VGGConfig",
    "ViTConfig",
    "VisionTransformer",
    "YOLOWorld",
    "YOLOWorldConfig",
    "YOLOv10",
    "YOLOv10Config",
]
