"""Reference of SAM: the model of transformers, asked by points and boxes at once."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.models.cv.sam import SAMConfig
from nexus.proofs.family import Family, Oracle
from nexus.proofs.parity import randomize

SMALL: dict[str, Any] = {
    "image_size": 64,
    "encoder_embed_dim": 24,
    "encoder_depth": 3,
    "encoder_num_heads": 2,
    "encoder_global_blocks": (1,),
    "window_size": 3,
    "embed_dim": 32,
    "decoder_num_heads": 4,
    "decoder_mlp_dim": 48,
    "iou_head_dim": 40,
}


def prompts_for(images: Tensor) -> dict[str, Tensor]:
    """Returns two prompts for each image: two points, the second not of the object, and a box."""
    height, width = images.shape[-2:]
    size = images.new_tensor([width, height])
    points = images.new_tensor([[[0.3, 0.4], [0.9, 0.2]], [[0.75, 0.5], [0.1, 0.8]]]) * size
    boxes = images.new_tensor([[0.2, 0.1, 0.6, 0.7], [0.5, 0.3, 1.0, 0.9]]) * size.repeat(2)
    count = len(images)
    labels = torch.tensor([1, 0], device=images.device).expand(count, 2, 2)
    return {"points": points.expand(count, -1, -1, -1), "labels": labels, "boxes": boxes.expand(count, -1, -1)}


def ours(model: Any, images: Tensor) -> Tensor:
    """Returns masks and scores of our model in one tensor, of ambiguous prompts and of others."""
    answers = [model(images, **prompts_for(images), multimask=multimask) for multimask in (True, False)]
    return torch.cat([part.flatten() for one in answers for part in (one["low_res_masks"], one["iou_scores"])])


def theirs(model: Any, images: Tensor) -> Tensor:
    """Returns the same of transformers' model."""
    given = {f"input_{key}": value for key, value in prompts_for(images).items()}
    answers = [model(images, **given, multimask_output=multimask) for multimask in (True, False)]
    return torch.cat([part.flatten() for one in answers for part in (one.pred_masks, one.iou_scores)])


def hub_sam(transformers: ModuleType, config: SAMConfig) -> nn.Module:
    """Returns the model of transformers of a configuration."""
    side = config.image_size
    model = transformers.SamModel(
        transformers.SamConfig(
            vision_config={
                "hidden_size": config.encoder_embed_dim,
                "output_channels": config.embed_dim,
                "num_hidden_layers": config.encoder_depth,
                "num_attention_heads": config.encoder_num_heads,
                "num_channels": config.in_channels,
                "image_size": side,
                "patch_size": config.patch_size,
                "window_size": config.window_size,
                "global_attn_indexes": list(config.global_blocks),
                "num_pos_feats": config.embed_dim // 2,
                "mlp_dim": int(config.encoder_embed_dim * config.mlp_ratio),
            },
            prompt_encoder_config={
                "hidden_size": config.embed_dim,
                "image_size": side,
                "patch_size": config.patch_size,
                "mask_input_channels": config.mask_dim,
            },
            mask_decoder_config={
                "hidden_size": config.embed_dim,
                "mlp_dim": config.decoder_mlp_dim,
                "num_hidden_layers": config.decoder_depth,
                "num_attention_heads": config.decoder_num_heads,
                "num_multimask_outputs": config.num_masks,
                "iou_head_depth": config.iou_head_depth,
                "iou_head_hidden_dim": config.iou_head_dim,
                "layer_norm_eps": config.decoder_norm_eps,
            },
        )
    )
    return model.eval()


def one_matrix(model: Any) -> None:
    """Draws weights; the frequencies, which transformers holds twice, are one."""
    randomize(model)
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding


def published(state: State) -> State:
    """The hub's files hold the frequencies once. They are no parameter of ours, and have no gradient."""
    return {key: value for key, value in state.items() if not key.startswith("prompt_encoder.shared_embedding.")}


SAMS = Family(
    variants=("sam_vit_*", "medsam_vit_*"),
    tiny=SMALL,
    image_size=(64, 64),
    read=ours,
    oracles=(
        Oracle(
            library="transformers",
            build=hub_sam,
            spelling="hub",
            publish=published,
            run=theirs,
            read=ours,
            other_size=False,
            randomize=one_matrix,
        ),
    ),
)
