"""Losses over all pairs of a global batch of images and texts, on one process or many.

Softmax: Radford et al. 2021, Fig. 3, https://arxiv.org/abs/2103.00020
Sigmoid: Zhai et al. 2023, Algorithm 1, https://arxiv.org/abs/2303.15343

Every process holds as many pairs. Its loss compares its images (and texts) with the texts (images) of all processes,
so that the mean over processes, and the mean of gradients as DDP takes it, are those of one process with all pairs.

Dims: b pairs of this process, g pairs of all processes, e width of the shared space.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class _Gather(torch.autograd.Function):
    """The rows of all processes, in the order of their ranks; gradients are summed and go back where they belong."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.count)[dist.get_rank()]


def gather_rows(rows: Float[Tensor, "b e"]) -> tuple[Float[Tensor, "g e"], int]:
    """Returns the rows of all processes, through which gradients flow, and where this process's begin."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, 0
    return _Gather.apply(rows), dist.get_rank() * len(rows)


def _check_pairs(images: Tensor, texts: Tensor) -> None:
    if images.shape != texts.shape:
        raise ValueError(
            f"images have embeddings {tuple(images.shape)} and texts {tuple(texts.shape)}; "
            "the loss needs one text for each image, in the same order."
        )


def softmax_contrastive_loss(
    images: Float[Tensor, "b e"], texts: Float[Tensor, "b e"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Cross-entropy of picking the right text for each image, and the right image for each text, averaged.

    Args:
        images: Of length 1.
        texts: Of length 1; row i belongs to row i of `images`.
        scale: Factor of the cosines (the exponential of CLIP's `logit_scale`).
    """
    _check_pairs(images, texts)
    all_images, start = gather_rows(images)
    all_texts, _ = gather_rows(texts)
    labels = torch.arange(start, start + len(images), device=images.device)
    by_image = F.cross_entropy(scale * images @ all_texts.T, labels)
    by_text = F.cross_entropy(scale * texts @ all_images.T, labels)
    return (by_image + by_text) / 2


def sigmoid_contrastive_loss(
    images: Float[Tensor, "b e"], texts: Float[Tensor, "b e"], scale: Float[Tensor, ""], bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Every pair on its own: does this text belong to this image? Summed over texts, averaged over images.

    Args:
        images: Of length 1.
        texts: Of length 1; row i belongs to row i of `images`.
        scale: Factor of the cosines (the exponential of SigLIP's `logit_scale`).
        bias: Added to the scaled cosines.
    """
    _check_pairs(images, texts)
    all_texts, start = gather_rows(texts)
    logits = scale * images @ all_texts.T + bias
    labels = torch.full_like(logits, -1.0)
    labels.diagonal(start).fill_(1.0)
    return -F.logsigmoid(labels * logits).sum(dim=-1).mean()
