"""PyTorch kernels, for what is more than one call. Their sources are pasted into generated modules."""

import torch
import torch.nn.functional as F

from mithril.backends.array import dropout as dropout


def batch_norm_training(input, mean, var, weight=None, bias=None, momentum=0.1, eps=1e-5):
    """Normalize with the batch's statistics; returns the running ones moved towards them."""
    mean, var = mean.clone(), var.clone()
    return F.batch_norm(input, mean, var, weight, bias, True, momentum, eps), mean, var


def slice_scatter(input, source, key):
    """`input` with the part `key` replaced by `source`."""
    output = input.clone()
    output[key] = source
    return output


def generator(key):
    """torch's generator for a random key (2,) int32."""
    high, low = (word & 0xFFFFFFFF for word in key.tolist())
    return torch.Generator(key.device).manual_seed(high << 31 ^ low)


def uniform(key, shape, dtype=None):
    """Numbers from 0 to 1."""
    return torch.rand(shape, generator=generator(key), dtype=dtype, device=key.device)


def pad(input, padding, mode):
    """Widen the last axes by (before, after) each, with values of the input."""
    for axis, (before, after) in enumerate(padding, input.ndim - len(padding)):
        size = input.shape[axis]
        place = torch.arange(-before, size + after, device=input.device)
        if mode == "reflect":
            place = (size - 1) - (place.remainder(max(2 * (size - 1), 1)) - (size - 1)).abs()
        place = place.clamp(0, size - 1) if mode == "replicate" else place.remainder(size)
        input = input.index_select(axis, place)
    return input
