"""The configuration of SAM."""

from dataclasses import dataclass

from nexus.core.config import Config
from nexus.layers import check_heads, check_image_size, image_sides


@dataclass(frozen=True, kw_only=True)
class SAMConfig(Config):
    """Defaults are SAM with a ViT-B (Sec. 3, "Model", and Appendix A).

    Attributes:
        image_size: Pixels of the sides that positions are made for: one number, or (height, width).
        patch_size: Side in pixels of what the image encoder sees as one token.
        encoder_embed_dim: Width of the image encoder's tokens.
        encoder_depth: Blocks of the image encoder.
        encoder_num_heads: Heads of the image encoder's attention.
        encoder_global_blocks: Numbers of the blocks, from 0, that attend over the whole image; the others attend
            inside windows. None spaces four of them evenly, the last block among them.
        window_size: Tokens along the side of a window.
        mlp_ratio: Of the width of the image encoder's MLPs to its tokens'.
        embed_dim: Width of the image embedding, of the prompts and of the mask decoder.
        decoder_depth: Blocks of the mask decoder.
        decoder_num_heads: Heads of the mask decoder's attention.
        decoder_mlp_dim: Width inside the mask decoder's MLPs.
        decoder_norm_eps: Of the layer norms inside the mask decoder's blocks: 1e-5 in the authors' code, 1e-6 in
            transformers'.
        num_masks: Masks that answer an ambiguous prompt; a further one answers the others.
        mask_dim: Channels inside the encoder of mask prompts.
        iou_head_depth: Layers of the head that predicts how good each mask is.
        iou_head_dim: Its width.
        drop_path_rate: Of the image encoder's last block; rises linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = 1024
    patch_size: int = 16
    in_channels: int = 3
    encoder_embed_dim: int = 768
    encoder_depth: int = 12
    encoder_num_heads: int = 12
    encoder_global_blocks: tuple[int, ...] | None = None
    window_size: int = 14
    mlp_ratio: float = 4.0
    embed_dim: int = 256
    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    decoder_norm_eps: float = 1e-5
    num_masks: int = 3
    mask_dim: int = 16
    iou_head_depth: int = 3
    iou_head_dim: int = 256
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size, self.patch_size)
        check_heads(self.encoder_embed_dim, self.encoder_num_heads)
        check_heads(self.embed_dim // 2, self.decoder_num_heads)
        if self.embed_dim % 8 or self.mask_dim % 4:
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of 8, and mask_dim {self.mask_dim} one of 4: both are"
                " divided on the way between an image and its masks."
            )
        if min(self.encoder_depth, self.decoder_depth, self.num_masks, self.iou_head_depth, self.window_size) < 1:
            raise ValueError("encoder_depth, decoder_depth, num_masks, iou_head_depth and window_size are at least 1.")
        if any(not 0 <= number < self.encoder_depth for number in self.encoder_global_blocks or ()):
            raise ValueError(
                f"encoder_global_blocks {self.encoder_global_blocks} must be numbers of the {self.encoder_depth} "
                "blocks, from 0."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens in an image of `image_size`."""
        height, width = image_sides(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """The numbers of the blocks that attend over the whole image."""
        if self.encoder_global_blocks is not None:
            return self.encoder_global_blocks
        return tuple(sorted({max(1, quarter * self.encoder_depth // 4) - 1 for quarter in (1, 2, 3, 4)}))
