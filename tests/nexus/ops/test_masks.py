"""Pasting masks against torchvision's, box by box."""

import torch

from nexus.ops.masks import paste_masks


def test_equals_torchvision(torchvision):
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    generator = torch.Generator().manual_seed(0)
    crops = torch.rand(7, 28, 28, generator=generator, dtype=torch.float64)
    boxes = torch.tensor(
        [[3.2, 4.1, 30.7, 22.9], [0, 0, 60, 40], [10, 10, 11, 11], [10.5, 10.5, 10.5, 10.5], [-9, -7, 20, 15],
         [40, 20, 80, 90], [0.4, 0.4, 59.9, 1.2]],
        dtype=torch.float64,
    )  # fmt: skip
    wanted = paste_masks_in_image(crops[:, None], boxes, (40, 60))[:, 0]
    torch.testing.assert_close(paste_masks(crops, boxes, (40, 60)), wanted, rtol=1e-10, atol=1e-10)


def test_no_masks():
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
