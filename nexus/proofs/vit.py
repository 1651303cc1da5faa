"""References of the plain transformers: ViT, MAE, DINOv2, EVA-02, and of MLP-Mixer."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from nexus.models.cv.dinov2 import DINOv2Config
from nexus.models.cv.eva02 import EVA02Config
from nexus.models.cv.mae import MAE, MAEConfig
from nexus.models.cv.mlp_mixer import MixerConfig
from nexus.models.cv.vit import ViTConfig
from nexus.proofs.family import Family, Oracle
from nexus.proofs.masking import noise_of, reconstruction


def timm_vit(timm: ModuleType, config: ViTConfig, **changes: Any) -> nn.Module:
    """Returns timm's model of a configuration."""
    settings = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "global_pool": "token" if config.pool == "token" else "avg",
    }
    return timm.models.VisionTransformer(**settings | changes)


def torchvision_vit(torchvision: ModuleType, config: ViTConfig) -> nn.Module:
    """Returns torchvision's model of a configuration."""
    return torchvision.models.VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.embed_dim,
        mlp_dim=int(config.embed_dim * config.mlp_ratio),
        num_classes=config.num_classes,
    )


def _hub_encoder(config: ViTConfig | MAEConfig | DINOv2Config) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "layer_norm_eps": config.norm_eps,
    }


def hub_vit(transformers: ModuleType, config: ViTConfig, **changes: Any) -> nn.Module:
    """Returns the model of transformers of a configuration."""
    settings = {
        **_hub_encoder(config),
        "num_labels": config.num_classes,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "attn_implementation": "sdpa",
    }
    return transformers.ViTForImageClassification(transformers.ViTConfig(**settings | changes))


def timm_mixer(timm: ModuleType, config: MixerConfig, **changes: Any) -> nn.Module:
    """Returns timm's MLP-Mixer of a configuration."""
    settings = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "num_blocks": config.num_layers,
    }
    return timm.models.MlpMixer(**settings | changes)


def hub_mae(transformers: ModuleType, config: MAEConfig, **changes: Any) -> nn.Module:
    """Returns the masked autoencoder of transformers of a configuration."""
    settings = {
        **_hub_encoder(config),
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "decoder_hidden_size": config.decoder_dim,
        "decoder_num_hidden_layers": config.decoder_num_layers,
        "decoder_num_attention_heads": config.decoder_num_heads,
        "decoder_intermediate_size": int(config.decoder_dim * config.mlp_ratio),
        "mask_ratio": config.mask_ratio,
        "norm_pix_loss": config.norm_pix_loss,
    }
    return transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**settings | changes))


def _their_reconstruction(model: nn.Module, images: Tensor) -> Tensor:
    return model(images, noise=noise_of(images), interpolate_pos_encoding=True).loss


def _our_tokens(model: MAE, images: Tensor) -> Tensor:
    return model.norm(model(images, noise=noise_of(images))["features"][-1])


def _their_tokens(model: Any, images: Tensor) -> Tensor:
    return model.vit(images, noise=noise_of(images), interpolate_pos_encoding=True).last_hidden_state


def hub_dinov2(transformers: ModuleType, config: DINOv2Config, *, classes: int = 0) -> nn.Module:
    """Returns the model of transformers of a configuration; with `classes`, its classifier."""
    settings = {
        **_hub_encoder(config),
        "use_swiglu_ffn": config.ffn == "swiglu",
        "attn_implementation": "sdpa",
        "num_labels": classes,
    }
    if config.num_registers:
        described = transformers.Dinov2WithRegistersConfig(num_register_tokens=config.num_registers, **settings)
        kind = (
            transformers.Dinov2WithRegistersForImageClassification if classes else transformers.Dinov2WithRegistersModel
        )
    else:
        described = transformers.Dinov2Config(**settings)
        kind = transformers.Dinov2ForImageClassification if classes else transformers.Dinov2Model
    return kind(described)


def timm_dinov2(timm: ModuleType, config: DINOv2Config) -> nn.Module:
    """Returns timm's model of a configuration."""
    settings: dict[str, Any] = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "num_classes": 0,
        "embed_dim": config.embed_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
    }
    if config.ffn == "swiglu":
        ratio = 2 * config.hidden_dim / config.embed_dim
        settings |= {"mlp_ratio": ratio, "mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    if config.num_registers:
        settings |= {"reg_tokens": config.num_registers, "no_embed_class": True}
    return timm.models.vision_transformer.VisionTransformer(init_values=1.0, global_pool="token", **settings)


def timm_eva(timm: ModuleType, config: EVA02Config, **changes: Any) -> nn.Module:
    """Returns timm's EVA-02 of a configuration."""
    settings = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "swiglu_mlp": True,
        "scale_mlp": config.sub_norm,
        "qkv_fused": not config.sub_norm,
        "use_rot_pos_emb": True,
        "ref_feat_shape": config.rope_grid,
    }
    return timm.models.Eva(**settings | changes)


_TINY: dict[str, Any] = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 3, "num_heads": 2}

VIT = Family(
    variants=("vit_*",),
    tiny={**_TINY, "num_classes": 5, "mlp_ratio": 2.0},
    other_size=(48, 40),
    oracles=(
        Oracle(
            library="timm",
            build=lambda timm, config: timm_vit(timm, config, dynamic_img_size=True),
            spelling="nexus",
            other_tolerance=1e-7,
        ),
        Oracle(library="torchvision", build=torchvision_vit, spelling="torchvision", other_size=False),
        Oracle(
            library="transformers",
            build=hub_vit,
            spelling="hub",
            run=lambda model, images: model(images, interpolate_pos_encoding=True).logits,
            other_size=False,  # it resamples with another rule than the authors and timm
        ),
    ),
)
MIXER = Family(
    variants=("mixer_*",),
    tiny={**{key: value for key, value in _TINY.items() if key != "num_heads"}, "num_classes": 5},
    oracles=(Oracle(library="timm", build=timm_mixer, spelling="timm"),),
)
MASKED = Family(
    variants=("mae_vit_*",),
    tiny={
        **_TINY,
        "num_layers": 2,
        "mlp_ratio": 2.0,
        "decoder_dim": 16,
        "decoder_num_layers": 1,
        "decoder_num_heads": 4,
    },
    other_size=(16, 24),
    oracles=(
        Oracle(
            library="transformers",
            build=hub_mae,
            spelling="hub",
            run=_their_reconstruction,
            read=reconstruction,
            other_size=False,  # it stretches the decoder's positions along one line, not over the image
        ),
        Oracle(
            library="transformers",
            build=hub_mae,
            spelling="hub",
            run=_their_tokens,
            read=_our_tokens,
            gradients=False,  # the decoder has none here
        ),
    ),
    read=reconstruction,
)


def _pooled(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).pooler_output


_DINOV2: dict[str, Any] = {
    "tiny": {**_TINY, "image_size": 28, "patch_size": 7},
    "image_size": (28, 28),
    "other_size": (42, 35),
}
_HUB = {"library": "transformers", "build": hub_dinov2, "spelling": "hub", "run": _pooled, "other_tolerance": 2e-6}
DINO = Family(
    variants=("dinov2_vit[sbl]14", "dinov2_vitg14"),
    oracles=(
        Oracle(**{**_HUB, "other_size": False}),  # it leaves out the offset with which the authors resample positions
        Oracle(library="timm", build=timm_dinov2, spelling="nexus", other_size=False, gradients=False),
    ),
    **_DINOV2,
)
DINO_REGISTERS = Family(
    variants=("dinov2_*_reg",),
    oracles=(
        Oracle(**_HUB),
        # timm has folded the class token's position into the token, so gradients are of other things.
        Oracle(library="timm", build=timm_dinov2, spelling="timm", other_size=False, gradients=False),
    ),
    **_DINOV2,
)

EVA = Family(
    variants=("eva02_*",),
    tiny={
        **_TINY,
        "image_size": 28,
        "patch_size": 7,
        "num_layers": 2,
        "num_classes": 5,
        "rope_grid": (3, 3),
        "interpolate_antialias": True,  # as timm resamples positions; the authors' way is the default
    },
    image_size=(28, 28),
    other_size=(42, 35),
    oracles=(
        Oracle(library="timm", build=timm_eva, spelling="eva", other_size=False),
        Oracle(  # made for any size it resamples positions in float32, even to the size that they have
            library="timm",
            build=lambda timm, config: timm_eva(timm, config, dynamic_img_size=True),
            spelling="eva",
            tolerance=1e-8,
            other_tolerance=2e-6,
        ),
    ),
)
