"""Images as sequences of patches."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.layers.images import check_images


class PatchEmbed(nn.Module):
    """Cuts an image into square patches and maps each to a token, row by row (ViT, Eq. 1)."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size, bias=bias)

    def grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns how many patches an image of `(height, width)` pixels has in each direction."""
        height, width = image_size
        return height // self.patch_size, width // self.patch_size

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Returns one token per patch.

        Raises:
            ValueError: The channels or the size do not fit.
        """
        check_images(images, self.in_channels, multiple_of=self.patch_size)
        return rearrange(self.proj(images), "b d h w -> b (h w) d")
