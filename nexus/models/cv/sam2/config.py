"""The configuration of SAM 2."""

from dataclasses import dataclass

from nexus.core.config import Config
from nexus.layers import check_heads, check_image_size, image_sides

STRIDE = 16
"""Pixels along the side of one token of the image embedding."""


@dataclass(frozen=True, kw_only=True)
class SAM2Config(Config):
    """Defaults are SAM 2.1 with Hiera-T (Appendix C and D, and the released configurations).

    Attributes:
        image_size: Pixels of the sides that the model is made for: one number, or (height, width); multiples of 32.
        trunk_embed_dim: Width of the trunk's first stage; it doubles from stage to stage.
        trunk_num_heads: Heads of the first stage; they double likewise.
        trunk_depths: Blocks of each of the four stages.
        trunk_global_blocks: Numbers of the blocks, from 0 over all stages, that attend over the whole map.
        trunk_windows: Tokens along the side of a window, for each stage.
        trunk_background: Rows and columns of the position embedding that is stretched over the map.
        mlp_ratio: Of the width of the trunk's MLPs to its tokens'.
        embed_dim: Width of the image embedding, of the prompts, the pointers and the mask decoder.
        decoder_depth: Blocks of the mask decoder.
        decoder_num_heads: Heads of the mask decoder's attention.
        decoder_mlp_dim: Width inside the mask decoder's MLPs.
        num_masks: Masks that answer an ambiguous prompt; a further one answers the others.
        mask_dim: Channels inside the encoder of mask prompts.
        iou_head_depth: Layers of the head that predicts how good each mask is.
        iou_head_dim: Its width.
        video: Whether the parts are there that remember frames; without them the model is for images alone.
        memory_dim: Channels of a memory.
        memory_depth: Blocks of the memory attention.
        memory_mlp_dim: Width inside its MLPs.
        fuser_depth: Blocks of the memory encoder that mix the image with the mask.
        num_memories: Frames that are remembered with their maps: the one that was prompted and the last six.
        num_pointers: Frames whose object pointers are looked at.
        pointer_times: Whether a pointer says how long ago it was (2.1).
        absent_memory: Whether the memory of a frame without the object says so (2.1).
        drop_path_rate: Of the trunk's last block; rises linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = 1024
    in_channels: int = 3
    trunk_embed_dim: int = 96
    trunk_num_heads: int = 1
    trunk_depths: tuple[int, ...] = (1, 2, 7, 2)
    trunk_global_blocks: tuple[int, ...] = (5, 7, 9)
    trunk_windows: tuple[int, ...] = (8, 4, 14, 7)
    trunk_background: tuple[int, int] = (7, 7)
    mlp_ratio: float = 4.0
    embed_dim: int = 256
    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    num_masks: int = 3
    mask_dim: int = 16
    iou_head_depth: int = 3
    iou_head_dim: int = 256
    video: bool = True
    memory_dim: int = 64
    memory_depth: int = 4
    memory_mlp_dim: int = 2048
    fuser_depth: int = 2
    num_memories: int = 7
    num_pointers: int = 16
    pointer_times: bool = True
    absent_memory: bool = True
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, 2 * STRIDE)
        check_heads(self.trunk_embed_dim, self.trunk_num_heads)
        check_heads(self.embed_dim // 2, self.decoder_num_heads)
        if len(self.trunk_depths) != 4 or len(self.trunk_windows) != 4:
            raise ValueError(
                f"The trunk has four stages; trunk_depths {self.trunk_depths} and trunk_windows {self.trunk_windows}"
                " need a number for each."
            )
        if min(*self.trunk_depths, *self.trunk_windows, *self.trunk_background) < 1:
            raise ValueError("trunk_depths, trunk_windows and trunk_background are at least 1.")
        if any(side % 2 for side in self.trunk_windows[:3]):
            raise ValueError(f"trunk_windows {self.trunk_windows} are halved between stages: the first three are even.")
        if any(not 0 <= number < sum(self.trunk_depths) for number in self.trunk_global_blocks):
            raise ValueError(
                f"trunk_global_blocks {self.trunk_global_blocks} must be numbers of the {sum(self.trunk_depths)} "
                "blocks, from 0."
            )
        self._check_memory()

    def _check_memory(self) -> None:
        if self.embed_dim % 8 or self.mask_dim % 4 or self.memory_dim % 4 or self.embed_dim % max(1, self.memory_dim):
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of 8 and of memory_dim {self.memory_dim}, and mask_dim"
                f" {self.mask_dim} and memory_dim ones of 4: they are divided on the way between an image, its masks"
                " and its memories."
            )
        counts = ("decoder_depth", "num_masks", "iou_head_depth", "memory_depth", "num_memories", "num_pointers")
        for name in (*counts, "memory_dim", "memory_mlp_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least 1.")

    @property
    def patch_size(self) -> int:
        """Pixels along the side of one token of the embedding."""
        return STRIDE

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the embedding of an image of `image_size`."""
        height, width = image_sides(self.image_size)
        return height // STRIDE, width // STRIDE
