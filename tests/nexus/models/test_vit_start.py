"""How large fresh weights of a ViT are."""

import pytest
import torch

from nexus.models.registry import create_model


def spread(**changes):
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", image_size=64, patch_size=4, num_layers=1, num_classes=0, **changes)
    return model.blocks[0].attn.qkv.weight.std().item(), model.pos_embed.std().item()


def test_fresh_weights_have_the_configured_spread():
    assert spread() == pytest.approx((0.02, 0.02), rel=0.05)
    assert spread(weight_std=0.125, position_std=0.5) == pytest.approx((0.125, 0.5), rel=0.05)
