"""What a detector looked at for one object that it found: GradCAM of a box, attention of a query.

Dims: b batch, c channels, q queries, n places of a map, h w pixels or places.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from nexus.core.modes import in_eval_mode
from nexus.core.preprocessing import Preprocessing
from nexus.visualization.drawing import overlay
from nexus.visualization.figures import image_axes, new_figure
from nexus.visualization.gradcam import grad_cam
from nexus.visualization.objects import draw_objects
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def object_gradcam(model: nn.Module, image: Float[Tensor, "c h w"], rank: int = 0) -> Float[Tensor, "h w"]:
    """Returns which places of an image speak for the score of one found object, from 0 to 1.

    GradCAM (Selvaraju et al., 2017, Eq. 1 and 2) of that score at every map of the model's `features` that it
    depends on; the maps are stretched to the image, each brought to 0 to 1, and averaged: small objects show on the
    finer maps of a pyramid, large ones on the coarser. The model is left as it was.

    Args:
        model: A detector.
        image: Normalized, as the model takes it; (1, c, h, w) is one image too.
        rank: Which object, counted from 0, the surest first.

    Raises:
        ValueError: The model finds no such object, or its score does not depend on its features.
    """
    with torch.inference_mode(False), torch.enable_grad(), in_eval_mode(model):
        pixels = (image if image.ndim == 4 else image[None]).detach().clone().requires_grad_()
        outputs = model(pixels)
        score = _ranked(outputs, "scores", rank)
        maps = [one for one in outputs["features"] if one.ndim == 4 and one.requires_grad]
        gradients = torch.autograd.grad(score, maps, allow_unused=True)
    heats = [
        F.interpolate(heat[:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
        for heat in (grad_cam(one, slope) for one, slope in zip(maps, gradients) if slope is not None)
        if heat.any()
    ]
    if not heats:
        raise ValueError(f"The score of object {rank} does not rise with any of the model's {len(maps)} feature maps.")
    whole = torch.stack([heat / heat.amax() for heat in heats]).mean(dim=0)
    return whole / whole.amax()


def query_attention(outputs: Mapping[str, Any], rank: int = 0, *, layer: int = -1) -> Float[Tensor, "h w"]:
    """Returns where the query of one found object looks, as the mean of the heads; it sums to 1.

    Args:
        outputs: Of DETR for one image, with `output_attentions=True`.
        rank: Which object, counted from 0, the surest first.
        layer: Of the decoder.

    Raises:
        ValueError: The outputs hold no attention of queries, or no such object.
    """
    if "attentions" not in outputs or "queries" not in outputs:
        raise ValueError(
            f"The outputs hold {', '.join(map(str, outputs))}; attention of queries is what DETR gives with"
            " output_attentions=True. Other detectors are explained by object_gradcam."
        )
    query = int(_ranked(outputs, "queries", rank))
    shares = outputs["attentions"][layer][0, :, query].detach().float().mean(dim=0)
    sizes = [one.shape[-2:] for one in outputs["features"] if one.shape[-2] * one.shape[-1] == len(shares)]
    return shares.view(sizes[-1])


def plot_query_attention(
    outputs: Mapping[str, Any],
    image: Tensor | Image.Image | np.ndarray,
    *,
    ranks: Sequence[int] = (0, 1, 2),
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
) -> "Figure":
    """Returns a figure with, for each object, its box and where its query looks in the last block of the decoder.

    Args:
        outputs: Of DETR for this image alone, with `output_attentions=True`.
        image: What the model saw: the picture, or the normalized tensor.
        ranks: Which objects, counted from 0, the surest first.
        class_names: Names of the classes; numbers otherwise.
        preprocessing: With which an image tensor was normalized.
    """
    picture = to_picture(image, preprocessing)
    panels = []
    for rank in ranks:
        heat = query_attention(outputs, rank)
        box, label = _ranked(outputs, "boxes", rank), int(_ranked(outputs, "labels", rank))
        name = class_names[label] if class_names else f"class {label}"
        shown = overlay(picture, heat / heat.amax(), side=448)
        scale = shown.width / picture.width
        boxed = draw_objects(shown, box.detach().cpu().numpy()[None] * scale, [""], [label])
        score = _ranked(outputs, "scores", rank).item()
        panels.append((f"{rank}: {name} {score:.0%}", boxed))
    figure = new_figure(3.2 * len(panels), 3.2 * picture.height / picture.width + 0.3)
    for axes, (title, boxed) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        image_axes(axes, title).imshow(boxed)
    return figure


def _ranked(outputs: Mapping[str, Any], key: str, rank: int) -> Tensor:
    """One object's entry in a detector's outputs for one image."""
    if "scores" not in outputs:
        raise ValueError(f"The outputs hold {', '.join(map(str, outputs))}; a detector gives boxes and scores.")
    count = len(outputs["scores"][0])
    if not 0 <= rank < count:
        raise ValueError(f"There is no object {rank}; {count} were found" + (f", 0 to {count - 1}." if count else "."))
    return outputs[key][0][rank]
