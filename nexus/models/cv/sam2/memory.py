"""What SAM 2 needs for videos: it looks at remembered frames, and makes memories of frames."""

import torch
from torch import nn

from nexus.models.cv.sam.mask_decoder import SCALE
from nexus.models.cv.sam2.config import SAM2Config
from nexus.models.cv.sam2.memory_attention import MemoryAttention
from nexus.models.cv.sam2.memory_encoder import MemoryEncoder
from nexus.models.cv.sam2.pointers import Pointers


class Memory(nn.Module):
    """The weights of `tracking`.

    Attributes:
        attention: See `MemoryAttention`.
        encoder: See `MemoryEncoder`.
        pointers: See `Pointers`.
        mask_to_prompt: Makes a mask prompt of a mask of the size of the image.
        times: (n, 1, 1, e), for a frame one to six frames ago, then for a prompted one.
        absent: (1, e), added to the memory of a frame without the object; None in SAM 2.0.
    """

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.attention = MemoryAttention(config)
        self.encoder = MemoryEncoder(config)
        self.pointers = Pointers(config)
        self.mask_to_prompt = nn.Conv2d(1, 1, SCALE, stride=SCALE)
        self.times = nn.Parameter(0.02 * torch.randn(config.num_memories, 1, 1, config.memory_dim))
        self.no_memory_position = nn.Parameter(torch.zeros(1, 1, config.embed_dim))  # in the files, and never used
        self.absent = nn.Parameter(torch.zeros(1, config.memory_dim)) if config.absent_memory else None
