"""SAM 2 for videos as graphs: stages on tensors of fixed rank, which keep nothing. A runner holds what is remembered.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, Sec. 4 and Appendix D.1.

Dims: b objects, m remembered frames, n pointers, p prompts, h w tokens of 16 pixels, d width, e a memory's width.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.parts import PartSpec
from nexus.layers import image_sides
from nexus.models.cv.sam.mask_decoder import SCALE as MASK_SCALE
from nexus.models.cv.sam.prompt_encoder import PromptEncoder
from nexus.models.cv.sam2.config import STRIDE, SAM2Config
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.mask_decoder import MaskDecoder
from nexus.models.cv.sam2.memory_attention import MemoryAttention, map_positions
from nexus.models.cv.sam2.memory_encoder import MemoryEncoder
from nexus.models.cv.sam2.pointers import Pointers
from nexus.models.cv.sam2.sam2 import MAP_NAMES, SAM2
from nexus.models.cv.sam2.tracking import BIAS, SCALE, memory_of

PROMPTS = ("points", "labels", "mask_prompts", "has_mask_prompts")


class VideoStages(NexusModule):
    """The stages of a SAM 2 that follows objects; its weights are the model's.

    `image_encoder` gives `tokens`, those of a frame of which nothing else is known, beside the raw `embeddings`;
    `mask_decoder` all masks that it paints, and a pointer for each; `memory_encoder` what is remembered of a frame and
    an object; `memory_attention` the tokens of a frame that know it, as `attended`.
    """

    config: SAM2Config
    task = "video-segmentation"
    answers = MAP_NAMES

    def __init__(self, model: SAM2) -> None:
        super().__init__(model.config)
        memory = memory_of(model)
        self.image_encoder = model.image_encoder
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = model.mask_decoder
        self.no_memory = model.no_memory
        self.pointers, self.encoder, self.attention = memory.pointers, memory.encoder, memory.attention
        self.times = memory.times
        nothing = nn.Parameter(torch.zeros(1, model.config.memory_dim))
        self.absent = nothing if memory.absent is None else memory.absent
        self.preprocessing, self.card = model.preprocessing, model.card
        self.train(model.training)

    def part_specs(self) -> dict[str, PartSpec]:
        maps = ("eighths", "quarters")
        return {
            "image_encoder": PartSpec(_encode, ("images",), ("image_encoder", "no_memory")),
            "mask_decoder": PartSpec(
                _decode, ("tokens", *maps, *PROMPTS), ("prompt_encoder", "mask_decoder", "pointers")
            ),
            "memory_encoder": PartSpec(
                _remember, ("embeddings", "found_masks", "found_scores", "prompted"), ("encoder", "absent")
            ),
            "memory_attention": PartSpec(
                _recall,
                ("embeddings", "memories", "slots", "known_pointers", "shares"),
                ("attention", "pointers", "times"),
            ),
        }

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        images = super().example_inputs(image_size or image_sides(self.config.image_size))["images"]
        height, width = images.shape[-2:]
        rows, columns = height // STRIDE, width // STRIDE
        drawn = torch.Generator().manual_seed(1)
        places = [[width / 2, height / 2], [width / 4, height / 3], [0, 0]]

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=drawn).to(images)

        return {
            "images": images,
            "points": images.new_tensor(places).expand(2, 2, 3, 2),
            "labels": torch.tensor([1, 0, -1]).expand(2, 2, 3),
            "mask_prompts": 4 * noise(2, 2, MASK_SCALE * rows, MASK_SCALE * columns),
            "has_mask_prompts": torch.tensor([True, False]).expand(2, 2),
            "found_masks": 4 * noise(2, MASK_SCALE * rows, MASK_SCALE * columns),
            "found_scores": torch.tensor([3.0, -3.0]),
            "prompted": torch.tensor([True, False]),
            "memories": noise(2, 2, self.config.memory_dim, rows, columns),
            "slots": torch.tensor([self.config.num_memories, 1]),
            "known_pointers": noise(2, 2, self.config.embed_dim),
            "shares": torch.tensor([0.4, 0.1]),
        }

    def free_dims(self) -> dict[str, dict[int, str]]:
        asked = {0: "batch", 1: "prompts"}
        return {
            **super().free_dims(),
            "points": {**asked, 2: "points"},
            "labels": {**asked, 2: "points"},
            "mask_prompts": asked,
            "has_mask_prompts": asked,
            "found_masks": {0: "batch"},
            "found_scores": {0: "batch"},
            "prompted": {0: "batch"},
            "memories": {0: "batch", 1: "memories"},
            "slots": {0: "memories"},
            "known_pointers": {0: "batch", 1: "pointers"},
            "shares": {0: "pointers"},
        }


def _encode(model: VideoStages, images: Tensor) -> Mapping[str, Tensor]:
    maps = dict(zip(MAP_NAMES, model.image_encoder(images), strict=True))
    return {**maps, "tokens": maps["embeddings"] + model.no_memory[0, :, :, None, None]}


def _decode(
    model: VideoStages, tokens: Tensor, eighths: Tensor, quarters: Tensor, *prompts: Tensor
) -> Mapping[str, Tensor]:
    grid = (tokens.shape[-2], tokens.shape[-1])
    prompt_encoder, decoder = cast(PromptEncoder, model.prompt_encoder), cast(MaskDecoder, model.mask_decoder)
    sparse, dense = prompt_encoder.encode_fixed(grid, *prompts)
    found = decoder(Embedding(tokens, eighths, quarters), prompt_encoder.positions.grid(grid), sparse, dense)
    pointers = cast(Pointers, model.pointers)
    present = found.object_scores[:, :, None, None] > 0
    return {
        "low_res_masks": found.logits,
        "iou_scores": found.iou_scores,
        "object_scores": found.object_scores,
        "pointers": torch.where(present, pointers.proj(found.tokens), pointers.absent),
    }


def _remember(
    model: VideoStages, embeddings: Tensor, masks: Tensor, scores: Tensor, prompted: Tensor
) -> Mapping[str, Tensor]:
    rows, columns = embeddings.shape[-2:]
    logits = F.interpolate(masks[:, None], size=(STRIDE * rows, STRIDE * columns), mode="bilinear", align_corners=False)
    inside = (logits > 0).to(logits.dtype)
    shares = torch.where(prompted[:, None, None, None], inside, logits.sigmoid())
    memory = cast(MemoryEncoder, model.encoder)(embeddings, SCALE * shares + BIAS)
    lack = (scores <= 0).to(memory.dtype)[:, None, None, None] * model.absent[..., None, None]
    return {"memory": memory + lack}


def _recall(
    model: VideoStages, embeddings: Tensor, memories: Tensor, slots: Tensor, pointers: Tensor, shares: Tensor
) -> Mapping[str, Tensor]:
    rows, columns = memories.shape[-2:]
    of_pointers, width = cast(Pointers, model.pointers), pointers.shape[-1]
    times = model.times[slots - 1, 0, 0][:, :, None, None]
    positions = (map_positions(memories[:1, 0]) + times).flatten(2).mT.flatten(0, 1)
    maps = memories.flatten(3).mT.flatten(1, 2)
    own = of_pointers.as_memory(pointers)
    known = torch.cat([positions, of_pointers.times(shares, width)], dim=0)[None].expand(embeddings.shape[0], -1, -1)
    placed = memories.shape[1] * rows * columns
    attended = cast(MemoryAttention, model.attention)(embeddings, torch.cat([maps, own], dim=1), known, placed)
    return {"attended": attended}
