"""Models of timm and transformers that the zoo does not have, small, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

TIMM: dict[str, tuple[str, int, dict[str, Any]]] = {
    "convnext": ("convnext_atto", 32, {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}),
    "convnext_v2": ("convnextv2_atto", 32, {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}),
    "mobilenet_v3": ("mobilenetv3_small_050", 32, {}),
    "mobilenet_v2": ("mobilenetv2_035", 32, {}),
    "mobilenet_v4": ("mobilenetv4_conv_small_035", 32, {}),
    "regnet_y": ("regnety_002", 32, {}),
    "regnet_x": ("regnetx_002", 32, {}),
    "densenet": ("densenet121", 32, {"growth_rate": 4, "block_config": (2, 2, 2, 2)}),
    "maxvit": ("maxvit_rmlp_pico_rw_256", 64, {"img_size": 64}),
    "coatnet": ("coatnet_0_rw_224", 64, {"img_size": 64, "embed_dim": (32, 32, 64, 64), "depths": (1, 1, 2, 1)}),
    "pvt_v2": ("pvt_v2_b0", 64, {"depths": (1, 1, 1, 1)}),
    "levit": ("levit_128s", 64, {"img_size": 64}),
    "efficientformer": ("efficientformer_l1", 224, {"depths": (1, 1, 1, 2), "num_vit": 1}),
    "efficientformer_v2": ("efficientformerv2_s0", 64, {"img_size": 64}),
    "hiera": ("hiera_tiny_224", 64, {"img_size": 64, "embed_dim": 24, "stages": (1, 1, 2, 1)}),
    "inception_v3": ("inception_v3", 96, {}),
    "inception_next": ("inception_next_atto", 32, {}),
    "res2net": ("res2net50_26w_4s", 32, {"layers": [1, 1, 1, 1]}),
    "resnest": ("resnest14d", 32, {}),
    "senet": ("seresnet18", 32, {}),
    "ghostnet": ("ghostnet_050", 32, {}),
    "mnasnet": ("mnasnet_050", 32, {}),
    "xception": ("xception41", 64, {}),
    "dpn": ("dpn48b", 32, {}),
    "vovnet": ("ese_vovnet19b_slim_dw", 32, {}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "nfnet": ("nf_regnet_b0", 64, {}),
    "darknet": ("cspdarknet53", 64, {}),
    "repvgg": ("repvgg_a0", 32, {}),
    "poolformer": ("poolformer_s12", 64, {}),
    "gmlp": ("gmlp_ti16_224", 32, {"img_size": 32}),
    "resmlp": ("resmlp_12_224", 32, {"img_size": 32}),
    "cait": ("cait_xxs24_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}),
    "xcit": ("xcit_nano_12_p16_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 24}),
    "crossvit": ("crossvit_9_240", 240, {}),
    "tnt": ("tnt_s_legacy_patch16_224", 32, {"img_size": 32, "depth": 2}),
    "twins": ("twins_svt_small", 64, {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dims": (16, 24, 32, 48)}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "repvit": ("repvit_m0_9", 32, {}),
    "beit": ("beit_base_patch16_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}),
    "eva02": ("eva02_tiny_patch14_224", 28, {"img_size": 28, "depth": 2, "embed_dim": 24, "num_heads": 2}),
    "davit": ("davit_tiny", 64, {"depths": (1, 1, 1, 1), "embed_dims": (16, 24, 32, 48), "num_heads": (2, 2, 2, 2)}),
    "gcvit": ("gcvit_xxtiny", 64, {"img_size": 64}),
    "nest": ("nest_tiny", 64, {"img_size": 64}),
    "starnet": ("starnet_s050", 32, {}),
    "hgnet": ("hgnetv2_b0", 32, {}),
    "tiny_vit": ("tiny_vit_5m_224", 224, {}),
}  # fmt: skip
"""By name: timm's model, image size, and changes that make it small."""


def _segformer(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = t.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16, num_attention_heads=[1, 2, 2, 4]
    )
    return t.SegformerForSemanticSegmentation(config), {"pixel_values": torch.randn(2, 3, 64, 64)}


def _dinov2(t: Any, **changes: Any) -> Any:
    sizes = {"image_size": 28, "patch_size": 14, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    return t.Dinov2Config(**sizes, **changes)


def _depth_anything(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    names = ["stage1", "stage2", "stage3", "stage4"]
    backbone = _dinov2(t, out_features=names, reshape_hidden_states=False)
    config = t.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, patch_size=14, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    module = t.DepthAnythingForDepthEstimation(config)
    nn.init.constant_(module.head.conv3.bias, 1)  # below zero the depth is cut off
    return module, {"pixel_values": torch.randn(2, 3, 28, 28)}


def _dpt(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = t.DPTConfig(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False,
        num_labels=4, auxiliary_channels=8,
    )  # fmt: skip
    return t.DPTForDepthEstimation(config), {"pixel_values": torch.randn(2, 3, 32, 32)}


def _glpn(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = t.GLPNConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16, num_attention_heads=[1, 2, 2, 4]
    )
    return t.GLPNForDepthEstimation(config), {"pixel_values": torch.randn(2, 3, 64, 64)}


def _bert(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = t.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=50
    )
    return t.BertForMaskedLM(config), {"input_ids": torch.randint(0, 50, (2, 7))}


def _upernet(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=stages)
    config = t.UperNetConfig(backbone_config=backbone, hidden_size=16, auxiliary_in_channels=24, num_labels=4)
    return t.UperNetForSemanticSegmentation(config), {"pixel_values": torch.randn(2, 3, 64, 64)}


def _vitpose(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    backbone = t.VitPoseBackboneConfig(
        image_size=[32, 32], patch_size=[8, 8], hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        out_features=["stage2"],
    )  # fmt: skip
    config = t.VitPoseConfig(backbone_config=backbone, num_labels=5)
    return t.VitPoseForPoseEstimation(config), {"pixel_values": torch.randn(2, 3, 32, 32)}


def _blip_vision(t: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = t.BlipVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    return t.BlipVisionModel(config), {"pixel_values": torch.randn(2, 3, 32, 32)}


TRANSFORMERS: dict[str, Callable[[Any], tuple[nn.Module, dict[str, torch.Tensor]]]] = {
    "segformer": _segformer,
    "depth_anything": _depth_anything,
    "dpt": _dpt,
    "glpn": _glpn,
    "bert": _bert,
    "upernet": _upernet,
    "vitpose": _vitpose,
    "blip_vision": _blip_vision,
}


def make(name: str, timm: Any, transformers: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode with random weights and statistics, and an example of its inputs by name."""
    torch.manual_seed(0)
    if name in TIMM:
        architecture, size, changes = TIMM[name]
        module = timm.create_model(architecture, num_classes=5, **changes)
        inputs = {"x": torch.randn(2, 3, size, size)}
    else:
        module, inputs = TRANSFORMERS[name](transformers)
    return with_random_state(module), inputs


def with_random_state(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, away from zeros and ones that would hide mistakes."""
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.02 * torch.randn_like(value))
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.8, 1.2)
    return module.eval()
