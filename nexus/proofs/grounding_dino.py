"""Reference of Grounding DINO: the model of transformers, its losses, and its weights under the authors' names.

What the reference computes in float32 whatever its weights are is computed in their own type here. Its loss of the
first stage is left out: it compares the text with the learned content of the queries, and has no gradient in their
boxes; the answers of that stage themselves are compared.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.models.cv.grounding_dino import GroundingDINOConfig
from nexus.proofs.detr import default_dtype, detr_arguments
from nexus.proofs.family import Family, Oracle
from nexus.proofs.parity import randomize

TOKENS = torch.tensor(
    [[101, 7, 1012, 8, 9, 10, 1012, 11, 1029, 102, 0], [101, 12, 13, 1012, 7, 1012, 14, 15, 16, 1012, 102]]
)
"""Two captions of three phrases each; the first is a token shorter."""
SMALL: dict[str, Any] = {
    "backbone": {
        "name": "swin_tiny_patch4_window7_224",
        "embed_dim": 8,
        "num_layers": (1, 1, 2, 1),
        "num_heads": (1, 1, 2, 2),
        "window_size": 4,
        "image_size": 64,
    },
    "embed_dim": 64,
    "num_layers": (2, 3),
    "num_heads": 4,
    "hidden_dim": 48,
    "num_points": 2,
    "num_queries": 12,
    "num_detections": 20,
    "text_dim": 24,
    "text_num_layers": 2,
    "text_num_heads": 2,
    "text_hidden_dim": 40,
    "vocab_size": 1030,
    "text_positions": 32,
    "max_text_len": 16,
    "inverse_sigmoid_eps": 1e-5,  # as transformers has it
}


@contextmanager
def own_precision(module: ModuleType, dtype: torch.dtype) -> Iterator[None]:
    """What a module of the reference calls `torch.float32` is `dtype` meanwhile, and so is what its loss wants.

    torch's binary cross-entropy of float64 with a float32 target is off by 1e-6.
    """

    class Torch:
        float32 = dtype

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    losses = importlib.import_module("transformers.loss.loss_grounding_dino")
    focal = losses.sigmoid_focal_loss
    vars(module)["torch"] = Torch()
    vars(losses)["sigmoid_focal_loss"] = lambda inputs, targets, **given: focal(inputs, targets.to(dtype), **given)
    try:
        with default_dtype(dtype):
            yield
    finally:
        vars(module)["torch"], vars(losses)["sigmoid_focal_loss"] = torch, focal


def hub_grounding_dino(transformers: ModuleType, config: GroundingDINOConfig) -> nn.Module:
    """Returns the model of transformers of a configuration.

    Its text model must not attend eagerly: there a mask of yes and no is added to the scores, and hides nothing.
    """
    body = config.body
    model = transformers.GroundingDinoForObjectDetection(
        transformers.GroundingDinoConfig(
            backbone_config={
                "model_type": "swin",
                "embed_dim": body["embed_dim"],
                "depths": list(body["num_layers"]),
                "num_heads": list(body["num_heads"]),
                "window_size": body["window_size"],
                "image_size": body["image_size"],
                "out_indices": [2, 3, 4],
            },
            text_config={
                "model_type": "bert",
                "hidden_size": config.text_dim,
                "num_hidden_layers": config.text_num_layers,
                "num_attention_heads": config.text_num_heads,
                "intermediate_size": config.text_hidden_dim,
                "vocab_size": config.vocab_size,
                "max_position_embeddings": config.text_positions,
            },
            d_model=config.embed_dim,
            encoder_layers=config.num_layers[0],
            decoder_layers=config.num_layers[1],
            encoder_attention_heads=config.num_heads,
            decoder_attention_heads=config.num_heads,
            encoder_ffn_dim=config.hidden_dim,
            decoder_ffn_dim=config.hidden_dim,
            encoder_n_points=config.num_points,
            decoder_n_points=config.num_points,
            num_queries=config.num_queries,
            max_text_len=config.max_text_len,
            disable_custom_kernels=True,
            auxiliary_loss=True,
        )
    )
    model.model.text_backbone.set_attn_implementation("sdpa")
    return model.eval()


def targets_for(images: Tensor) -> list[dict[str, Tensor]]:
    """Returns two objects in each of two images; labels are phrases of `TOKENS`."""
    boxes = images.new_tensor([[5, 8, 40, 44], [30, 20, 80, 60]])
    return [
        {"boxes": boxes, "labels": torch.tensor([2, 0])},
        {"boxes": boxes / 2 + 4, "labels": torch.tensor([1, 1])},
    ]


def images_of(images: Tensor) -> list[Tensor]:
    """Returns two images of different sizes."""
    return [images[0], images[1, :, :-20, :-28]]


def ours(model: Any, images: Tensor) -> Tensor:
    """Returns the answers of our model and its losses in one tensor."""
    outputs = model(images_of(images), TOKENS, targets_for(images))
    losses = [value for name, value in outputs["losses"].items() if not name.endswith("_encoder")]
    parts = [outputs[key] for key in ("pred_logits", "pred_boxes", "encoder_logits", "encoder_boxes")]
    return _joined([*parts, torch.stack(losses).sum()])


def theirs(model: Any, images: Tensor) -> Tensor:
    """Returns the same of transformers' model."""
    batch, targets = images_of(images), targets_for(images)
    arguments = detr_arguments(batch, targets)
    canvas = images.new_tensor([images.shape[3], images.shape[2]] * 2)
    for label, image in zip(arguments["labels"], batch):
        sides = images.new_tensor([image.shape[2], image.shape[1]] * 2)
        label["boxes"] = label["boxes"] * sides / canvas  # it reads them as shares of the padded batch
    with own_precision(sys.modules[type(model).__module__], images.dtype):
        outputs = model(input_ids=TOKENS, attention_mask=(TOKENS != 0).long(), **arguments)
    best = outputs.enc_outputs_class.amax(-1).topk(outputs.logits.shape[1], dim=1).indices[..., None]
    first = outputs.enc_outputs_class.gather(1, best.expand(-1, -1, outputs.enc_outputs_class.shape[-1]))
    boxes = outputs.enc_outputs_coord_logits.gather(1, best.expand(-1, -1, 4)).sigmoid()
    config, losses = model.config, images.new_zeros(())
    weights = {"ce": 2.0, "bbox": config.bbox_loss_coefficient, "giou": config.giou_loss_coefficient}
    for name, value in outputs.loss_dict.items():
        kind, _, stage = name.removeprefix("loss_").partition("_")
        if kind in weights and stage != "enc":
            losses = losses + weights[kind] * value
    width = TOKENS.shape[1]
    return _joined([outputs.logits[..., :width], outputs.pred_boxes, first[..., :width], boxes, losses])


def _joined(parts: list[Tensor]) -> Tensor:
    """Padding has a logit of minus infinity, which nothing could be compared with."""
    return torch.cat([part.masked_fill(part.isinf(), 0).flatten() for part in parts])


def enliven(model: Any) -> None:
    """Draws weights that make the answers differ; `bbox_embed` is one head in several places."""
    randomize(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "sampling_offsets" in name or ("layers.2" in name and "bbox" in name):
                value.normal_(std=0.3 if "sampling" in name else 0.05)


def published(state: State) -> State:
    """Returns the reference's tensors as its files have them: the box head once."""
    head = "model.decoder.bbox_embed.0."
    return {
        key.replace(head, "bbox_embed.0."): value
        for key, value in state.items()
        if not re.match(r"(model\.decoder\.)?bbox_embed\.[1-9]", key)
        and not (key.startswith(head) and key.replace(head, "bbox_embed.0.") in state)
        and ".swin.layernorm." not in key
    }


_AUTHORS = {
    r"^model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage2\.": "backbone.0.norm1.",
    r"^model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage3\.": "backbone.0.norm2.",
    r"^model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage4\.": "backbone.0.norm3.",
    r"^model\.backbone\.conv_encoder\.model\.swin\.": "backbone.0.",
    r"^backbone\.0\.embeddings\.patch_embeddings\.projection\.": "backbone.0.patch_embed.proj.",
    r"^backbone\.0\.embeddings\.norm\.": "backbone.0.patch_embed.norm.",
    r"^backbone\.0\.encoder\.": "backbone.0.",
    r"^(backbone\.0\..*)\.layernorm_before\.": r"\1.norm1.",
    r"^(backbone\.0\..*)\.layernorm_after\.": r"\1.norm2.",
    r"^(backbone\.0\..*)\.attention\.(relative_position_bias\.)?": r"\1.attn.",
    r"^(backbone\.0\..*)\.attn\.o_proj\.": r"\1.attn.proj.",
    r"^model\.text_backbone\.": "bert.",
    r"^model\.text_projection\.": "feat_map.",
    r"^model\.input_proj_vision\.": "input_proj.",
    r"^model\.level_embed": "transformer.level_embed",
    r"^model\.query_position_embeddings\.": "transformer.tgt_embed.",
    r"^model\.enc_output": "transformer.enc_output",
    r"^model\.encoder_output_bbox_embed\.": "transformer.enc_out_bbox_embed.",
    r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.": r"transformer.encoder.layers.\1.",
    r"^(transformer\.encoder\.layers\.\d+)\.self_attn_layer_norm\.": r"\1.norm1.",
    r"^(transformer\.encoder\.layers\.\d+)\.final_layer_norm\.": r"\1.norm2.",
    r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.": r"transformer.encoder.text_layers.\1.",
    r"\.layer_norm_before\.": ".norm1.",
    r"\.layer_norm_after\.": ".norm2.",
    r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.": r"transformer.encoder.fusion_layers.\1.",
    r"\.layer_norm_vision\.": ".layer_norm_v.",
    r"\.layer_norm_text\.": ".layer_norm_l.",
    r"\.(values_|out_)?vision_proj\.": r".\1v_proj.",
    r"\.(values_|out_)?text_proj\.": r".\1l_proj.",
    r"\.vision_param$": ".gamma_v",
    r"\.text_param$": ".gamma_l",
    r"^model\.decoder\.layer_norm\.": "transformer.decoder.norm.",
    r"^model\.decoder\.reference_points_head\.": "transformer.decoder.ref_point_head.",
    r"^model\.decoder\.": "transformer.decoder.",
    r"\.self_attn_layer_norm\.": ".norm2.",
    r"\.encoder_attn_text_layer_norm\.": ".catext_norm.",
    r"\.encoder_attn_layer_norm\.": ".norm1.",
    r"\.final_layer_norm\.": ".norm3.",
    r"\.encoder_attn_text\.": ".ca_text.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"^(transformer\..*)\.fc([12])\.": r"\1.linear\2.",
}


def authors_names(state: State) -> State:
    """Returns the reference's tensors under the authors' names, projections of attention fused."""
    named: State = {}
    for name, value in published(state).items():
        for pattern, replacement in _AUTHORS.items():
            name = re.sub(pattern, replacement, name)
        named[name] = value
    for name in list(named):
        for first, others, fused in (
            (".self_attn.query.", ("key", "value"), ".self_attn.in_proj_"),
            (".ca_text.query.", ("key", "value"), ".ca_text.in_proj_"),
            (".attn.q_proj.", ("k_proj", "v_proj"), ".attn.qkv."),
        ):
            if first in name:
                word = first.split(".")[2]
                rows = [named.pop(name), *(named.pop(name.replace(word, other)) for other in others)]
                named[name.replace(first, fused)] = torch.cat(rows)
    return named


_GIVEN: dict[str, Any] = {
    "library": "transformers",
    "build": hub_grounding_dino,
    "run": theirs,
    "read": ours,
    "randomize": enliven,
}


def _answers(model: Any, images: Tensor) -> Tensor:
    outputs = model(images, TOKENS)
    return torch.cat([outputs["pred_logits"].masked_fill(outputs["pred_logits"].isinf(), 0), outputs["pred_boxes"]], -1)


GROUNDING_DINOS = Family(
    variants=("grounding_dino_*",),
    tiny=SMALL,
    oracles=(
        Oracle(**_GIVEN, spelling="hub", publish=published, float32_tolerance=None),
        Oracle(
            **_GIVEN,
            spelling="authors",
            publish=authors_names,
            gradients=False,
            other_size=False,
            float32_tolerance=None,
        ),
    ),
    image_size=(96, 130),
    other_size=(120, 100),
    read=_answers,
    dynamic=True,
)
