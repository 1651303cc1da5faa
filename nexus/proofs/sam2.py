"""Reference of SAM 2: the video model of transformers, whose stages are gone through as ours are."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.models.cv.sam2 import SAM2Config
from nexus.models.cv.sam2.tracking import Pointed, Remembered, answer, first_sight, recall, remember
from nexus.proofs.family import Family, Oracle
from nexus.proofs.sam import one_matrix, prompts_for, published

SMALL: dict[str, Any] = {
    "image_size": 64,
    "trunk_embed_dim": 8,
    "trunk_num_heads": 1,
    "trunk_depths": (1, 1, 2, 1),
    "trunk_global_blocks": (3,),
    "trunk_windows": (8, 6, 4, 2),
    "trunk_background": (3, 3),
    "embed_dim": 128,
    "decoder_num_heads": 4,
    "decoder_mlp_dim": 48,
    "iou_head_dim": 40,
    "memory_dim": 64,  # which transformers takes for granted
    "memory_depth": 2,
    "memory_mlp_dim": 40,
    "fuser_depth": 1,
}


def ours(model: Any, images: Tensor) -> Tensor:
    """Returns the answers of our model about images, then of each as a frame that is remembered and looked at again."""
    answers = [model(images, **prompts_for(images), multimask=multimask) for multimask in (True, False)]
    parts = [part for one in answers for part in (one["low_res_masks"], one["iou_scores"], one["object_scores"])]
    embedding = model.encode(images)
    found = answer(model, first_sight(model, embedding), embedding)
    memories = [remember(model, embedding, found, prompted=prompted) for prompted in (True, False)]
    frames = [Remembered(None, memories[0]), Remembered(2, memories[1])]
    tokens = recall(model, embedding, frames, [Pointed(3, found.pointers), Pointed(1, 2 * found.pointers)], 16)
    return torch.cat([part.flatten() for part in (*parts, found.logits, *memories, tokens)])


def images_of(model: Any, images: Tensor) -> Tensor:
    """Returns the answers of our model about images."""
    return model(images, **prompts_for(images))["low_res_masks"]


def theirs(model: Any, images: Tensor) -> Tensor:
    """Returns the same of transformers' model."""
    maps = [_maps(model, image[None]) for image in images]
    parts: list[Tensor] = []
    for multimask in (True, False):
        answered = [_asked(model, one, image[None], multimask) for one, image in zip(maps, images, strict=True)]
        parts += [torch.cat(part) for part in zip(*answered, strict=True)]
    seen = [_remembered(model, *one) for one in maps]
    parts += [torch.cat(part) for part in zip(*seen, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def _maps(model: Any, image: Tensor) -> list[Tensor]:
    """The maps of an image from the finest on, without what is added to images alone."""
    maps = model.get_image_features(image, return_dict=True).fpn_hidden_states
    sizes = model.backbone_feature_sizes
    return [one.permute(1, 2, 0).reshape(1, -1, *size) for one, size in zip(maps, sizes, strict=True)]


def _asked(model: Any, maps: list[Tensor], image: Tensor, multimask: bool) -> tuple[Tensor, Tensor, Tensor]:
    given = {f"input_{key}": value for key, value in prompts_for(image).items()}
    sparse, dense = model.prompt_encoder(**given, input_masks=None)
    masks, iou, _, scores = model.mask_decoder(
        image_embeddings=maps[2] + model.no_memory_embedding[0, :, :, None, None],
        image_positional_embeddings=model.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        high_resolution_features=maps[:2],
    )
    return masks, iou, scores


def _remembered(model: Any, quarters: Tensor, eighths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first = tokens + model.no_memory_embedding[0, :, :, None, None]
    found = model._single_frame_forward(image_embeddings=[quarters, eighths, first], multimask_output=True)
    logits, score, pointer = found.pred_masks[0], found.object_score_logits[0], found.object_pointer[0]
    large = nn.functional.interpolate(logits[None], size=model.image_size, mode="bilinear", align_corners=False)
    encoded = [model.memory_encoder(tokens, 20 * mask - 10) for mask in ((large > 0).to(large), large.sigmoid())]
    lack = getattr(model, "occlusion_spatial_embedding_parameter", None)
    absent = 0 if lack is None else (score <= 0).to(tokens) * lack[..., None, None]
    memories = [memory + absent for memory, _ in encoded]
    times = model.memory_temporal_positional_encoding
    positions = [_in_row(place) + times[slot] for (_, place), slot in zip(encoded, (-1, 1), strict=True)]
    parts = tokens.shape[1] // memories[0].shape[1]
    pointers = torch.cat([pointer, 2 * pointer]).reshape(2 * parts, 1, -1)
    known = model.memory_attention(
        current_vision_features=_in_row(tokens),
        current_vision_position_embeddings=_in_row(_sine(model, tokens)),
        memory=torch.cat([*map(_in_row, memories), pointers]),
        memory_posision_embeddings=torch.cat([*positions, _times(model, tokens, parts)]),
        num_object_pointer_tokens=len(pointers),
    )
    return logits, memories[0], memories[1], known.reshape(len(known.flatten()) // tokens.shape[1], -1).T.contiguous()


def _in_row(one: Tensor) -> Tensor:
    return one.flatten(2).permute(2, 0, 1)


def _sine(model: Any, tokens: Tensor) -> Tensor:
    return model.vision_encoder.neck.position_encoding(tokens.shape, tokens.device, tokens.dtype)


def _times(model: Any, tokens: Tensor, parts: int) -> Tensor:
    """What pointers of three frames and of one frame ago say of it."""
    from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

    if not model.config.enable_temporal_pos_encoding_for_object_pointers:
        return tokens.new_zeros(2 * parts, 1, model.config.memory_encoder_output_channels)
    shares = tokens.new_tensor([3, 1]) / 15
    places = get_1d_sine_pe(shares, dim=tokens.shape[1]).to(tokens)
    return model.temporal_positional_encoding_projection_layer(places).repeat_interleave(parts, dim=0)[:, None]


def calm(model: Any) -> None:
    """Draws weights with which roundings do not grow on the way through masks and memories."""
    one_matrix(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ("hypernetworks_mlps" in name and "proj_out" in name) or "mask_downsampler.final_conv" in name:
                weight.mul_(0.1)


def hub_sam2(transformers: ModuleType, config: SAM2Config) -> nn.Module:
    """Returns the video model of transformers of a configuration; of one without videos, the image model."""
    shared = hub_sections(config)
    if not config.video:
        return transformers.Sam2Model(transformers.Sam2Config(**shared)).eval()
    side, width = int(config.grid[0]) * 16, config.embed_dim
    return transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig(
            **shared,
            image_size=side,
            num_maskmem=config.num_memories,
            max_object_pointers_in_encoder=config.num_pointers,
            enable_occlusion_spatial_embedding=config.absent_memory,
            enable_temporal_pos_encoding_for_object_pointers=config.pointer_times,
            memory_attention_hidden_size=width,
            memory_attention_num_layers=config.memory_depth,
            memory_attention_feed_forward_hidden_size=config.memory_mlp_dim,
            memory_attention_rope_feat_sizes=list(config.grid),
            memory_encoder_hidden_size=width,
            memory_encoder_output_channels=config.memory_dim,
            mask_downsampler_embed_dim=width,
            memory_fuser_num_layers=config.fuser_depth,
            memory_fuser_embed_dim=width,
            memory_fuser_intermediate_dim=4 * width,
        )
    ).eval()


def hub_sections(config: SAM2Config) -> dict[str, Any]:
    """Returns the sections that both of transformers' configurations have."""
    width, side = config.embed_dim, int(config.grid[0]) * 16
    widths = [config.trunk_embed_dim << stage for stage in range(4)]
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": config.trunk_embed_dim,
                "num_attention_heads": config.trunk_num_heads,
                "num_channels": config.in_channels,
                "image_size": [side, side],
                "window_positional_embedding_background_size": list(config.trunk_background),
                "blocks_per_stage": list(config.trunk_depths),
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [config.trunk_num_heads << stage for stage in range(4)],
                "window_size_per_stage": list(config.trunk_windows),
                "global_attention_blocks": list(config.trunk_global_blocks),
                "mlp_ratio": config.mlp_ratio,
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[side // scale] * 2 for scale in (4, 8, 16)],
            "fpn_hidden_size": width,
        },
        "prompt_encoder_config": {
            "hidden_size": width,
            "image_size": side,
            "mask_input_channels": config.mask_dim,
        },
        "mask_decoder_config": {
            "hidden_size": width,
            "mlp_dim": config.decoder_mlp_dim,
            "num_hidden_layers": config.decoder_depth,
            "num_attention_heads": config.decoder_num_heads,
            "num_multimask_outputs": config.num_masks,
            "iou_head_depth": config.iou_head_depth,
            "iou_head_hidden_dim": config.iou_head_dim,
        },
    }


SAM2S = Family(
    variants=("sam2_hiera_*", "sam2.1_hiera_*"),
    tiny=SMALL,
    image_size=(64, 64),
    read=images_of,
    oracles=(
        Oracle(
            library="transformers",
            build=hub_sam2,
            spelling="hub",
            publish=published,
            run=theirs,
            read=ours,
            other_size=False,
            tolerance=1e-4,  # transformers enlarges the coarsest map in float32, also of a model in float64
            float32_tolerance=1e-3,  # roundings grow on the way through a memory
            randomize=calm,
        ),
    ),
)
