"""MedSAM.

Ma et al., "Segment Anything in Medical Images", 2024. https://arxiv.org/abs/2304.12306

SAM with a ViT-B, trained further on pairs of a box and a mask in CT, MR, ultrasound, endoscopy and other medical images
(Sec. "Methods"). The network is SAM's; what differs is how an image becomes its input (the card says it), that boxes
alone are asked about, and that one mask answers: probabilities, not logits, are enlarged to the image.

Dims: b images, p prompts of an image, h w pixels.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.models.cv.sam import SAM, SAMConfig


class MedSAM(SAM):
    """Segmentation of what a box surrounds. `config` is a `SAMConfig` or a mapping of its fields.

    `forward(images, boxes=boxes, multimask=False)` answers b images with p boxes each, in one call.
    """

    hub_types = ()


def mask_probabilities(low: Float[Tensor, "*p low_h low_w"], size: tuple[int, int]) -> Float[Tensor, "*p h w"]:
    """Returns how likely each pixel of an image of `size` (height, width) is inside, from low-resolution logits.

    The image fills all of what the model saw; more than 0.5 is inside.
    """
    flat = low.flatten(0, -3)[None]
    return F.interpolate(flat.sigmoid(), size, mode="bilinear", align_corners=False)[0].unflatten(0, low.shape[:-2])


VARIANTS = {"medsam_vit_base": SAMConfig()}
