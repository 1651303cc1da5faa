"""InternVL beside that of transformers, whose language models both use."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.models.cv.internvl import InternVLConfig
from nexus.proofs.family import Family, Oracle

IMAGE_ID = 99


def written(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a text about each image and where the image's tokens stand in it."""
    count = (images.shape[-2] // 28) * (images.shape[-1] // 28)
    tokens = torch.arange(len(images) * (count + 5)).reshape(len(images), -1) * 7 % 97
    tokens[:, 2 : 2 + count] = IMAGE_ID
    return tokens, tokens == IMAGE_ID


def transformers_internvl(transformers: ModuleType, config: InternVLConfig) -> nn.Module:
    """Returns the same model of transformers."""
    return transformers.InternVLForConditionalGeneration(
        transformers.InternVLConfig(
            vision_config={
                "hidden_size": config.embed_dim,
                "num_hidden_layers": config.num_layers,
                "num_attention_heads": config.num_heads,
                "intermediate_size": config.mlp_dim,
                "image_size": [config.image_size, config.image_size],
                "patch_size": [config.patch_size, config.patch_size],
                "attention_bias": config.qkv_bias,
                "use_qk_norm": config.qk_norm,
                "norm_type": f"{config.norm}_norm",
            },
            text_config=dict(config.language),
            image_token_id=IMAGE_ID,
            image_seq_length=config.tokens_per_tile,
            tie_word_embeddings=False,
        )
    )


def as_published(state: State) -> State:
    """Returns weights under the names that `save_pretrained` of transformers writes."""
    names = {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}
    names |= {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
    return {_named(key, names): value for key, value in state.items()}


def _named(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def _run(model: Any, images: Tensor) -> Tensor:
    tokens, _ = written(images)
    return model(input_ids=tokens, pixel_values=images).logits


def _read(model: NexusModule, images: Tensor) -> Tensor:
    return model(images, *written(images))["logits"]


def shrink(config: InternVLConfig) -> dict[str, Any]:
    """Returns what makes a variant narrow; which family its language model is of stays."""
    language = {
        **config.language,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if "head_dim" in language:
        language["head_dim"] = 16
    return {"image_size": 56, "embed_dim": 24, "num_layers": 2, "num_heads": 2, "mlp_dim": 40, "language": language}


INTERNVLS = Family(
    variants=("internvl*",),
    tiny=shrink,
    image_size=(56, 56),
    other_size=(56, 84),
    oracles=(
        Oracle(
            library="transformers",
            build=transformers_internvl,
            spelling="hub",
            publish=as_published,
            run=_run,
            read=_read,
            other_size=False,
            float32_tolerance=1e-4,
        ),
    ),
    read=_read,
    dynamic=True,
)
