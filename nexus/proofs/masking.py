"""How masked autoencoders are compared: both models mask the same patches."""

import torch
from torch import Tensor

from nexus.models.cv.masked_autoencoder import MaskedAutoencoder


def noise_of(images: Tensor) -> Tensor:
    """Returns a number for each patch of 8 x 8 pixels, so that both models mask the same.

    They are fractions of multiples of the golden ratio, which all differ, and which a graph can hold.
    """
    num_patches = images.shape[2] * images.shape[3] // 64
    numbers = torch.arange(len(images) * num_patches, dtype=torch.float64) * 0.6180339887498949 % 1
    return numbers.reshape(len(images), num_patches)


def reconstruction(model: MaskedAutoencoder, images: Tensor) -> Tensor:
    """Returns our loss of images."""
    return model(images, noise=noise_of(images))["losses"]["reconstruction"]
