"""GradCAM: which places of an image speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
https://arxiv.org/abs/1610.02391

Dims: b batch, c channels, n tokens, d width, h w pixels or places of a map, k classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.config import nearest
from nexus.core.modes import in_eval_mode
from nexus.core.module import NexusModule, TokenLayout
from nexus.visualization.features import feature_grid


class GradCAM:
    """Heat maps of a classifier, by the gradient of a class at one layer.

    A layer whose output is a map (b, c, h, w) is read there. A layer whose output is tokens (b, n, d) becomes a map
    through `model.token_layout`. In the last block of a transformer whose head reads the class token only, no
    gradient reaches the patches at the block's output: they matter through the attention inside it. Such a block is
    read at its first normalization, that is at the patches as its attention gets them, so that `"blocks.11"` of a
    12-layer ViT gives a map. The model is left as it was: mode, gradients and hooks.
    """

    def __init__(self, model: nn.Module, target_layer: str | None = None) -> None:
        """Makes heat maps of `model` at the module called `target_layer`, as in `model.named_modules()`.

        Without a name, the module that gives the last of the model's `features` is read.

        Raises:
            ValueError: The model has no such module; the nearest name is given.
        """
        names = {name for name, _ in model.named_modules() if name}
        if target_layer is not None and target_layer not in names:
            raise ValueError(f"{type(model).__name__} has no layer {target_layer!r}. {nearest(target_layer, names)}")
        self.model = model
        self.target_layer = target_layer

    def __call__(
        self, image: Float[Tensor, "b c h w"], target_class: int | str | Sequence[int] | None = None
    ) -> Float[Tensor, "b h w"]:
        """Returns the heat map of each image, at the image's size, from 0 to 1 (all 0 if nothing speaks for it).

        Args:
            image: Normalized, as the model takes it; (c, h, w) is taken as a batch of one.
            target_class: An index, a name in `model.class_names`, or one index per image. None means the class that
                the model finds most probable.

        Raises:
            ValueError: The class or the shape of the layer's output does not fit.
        """
        with torch.inference_mode(False), torch.enable_grad(), in_eval_mode(self.model):
            # A copy that wants gradients: weights may be frozen, and the caller's image stays as it is.
            pixels = (image[None] if image.ndim == 3 else image).detach().clone().requires_grad_()
            places = self._places(pixels)
            with _recording(places) as record:
                logits = _logits(self.model(pixels))
            classes = self._classes(target_class, logits)
            maps = [record[place] for place in places if place in record]
            if not maps:
                raise ValueError(f"{type(self.model).__name__} does not run its layer {self.target_layer!r}.")
            score = logits.gather(1, classes[:, None]).sum()
            gradients = torch.autograd.grad(score, maps, allow_unused=True)
            heat = self._heat(maps, gradients, pixels)
        heat = F.interpolate(heat[:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)

    def _places(self, pixels: Tensor) -> list[nn.Module]:
        """Returns where to read: the layer, then the first normalization inside it."""
        if self.target_layer is None:
            self.target_layer = _last_feature_layer(self.model, pixels)
        layer = self.model.get_submodule(self.target_layer)
        while isinstance(layer, nn.Sequential | nn.ModuleList) and len(layer):
            layer = layer[-1]  # models may run the parts of a stage themselves, to collect their outputs
        inside = [module for module in layer.modules() if isinstance(module, nn.LayerNorm) and module is not layer]
        return [layer, *inside[:1]]

    def _heat(
        self, maps: Sequence[Tensor], gradients: Sequence[Tensor | None], pixels: Tensor
    ) -> Float[Tensor, "b h w"]:
        """Returns Eq. 2 at the first place whose gradient reaches the patches."""
        layout = self.model.token_layout(pixels.shape[-2:]) if isinstance(self.model, NexusModule) else None
        for activation, gradient in zip(maps, gradients):
            if gradient is None:
                continue
            weights = _grid(gradient, layout, self.target_layer)
            if weights.count_nonzero():
                return grad_cam(_grid(activation, layout, self.target_layer), weights)
        raise ValueError(
            f"The class does not depend on the patches after {self.target_layer!r}: no gradient reaches them."
            " Choose an earlier layer."
        )

    def _classes(self, target: int | str | Sequence[int] | None, logits: Float[Tensor, "b k"]) -> Tensor:
        """Returns one class index per image (b,)."""
        if target is None:
            return logits.argmax(dim=1)
        if isinstance(target, str):
            names = self.model.class_names if isinstance(self.model, NexusModule) else ()
            if target not in names:
                raise ValueError(f"The model has no class {target!r}. {nearest(target, names)}")
            target = names.index(target)
        count, classes = logits.shape[1], torch.as_tensor(target, device=logits.device)
        if classes.ndim > 1 or (classes.ndim == 1 and len(classes) != len(logits)):
            raise ValueError(
                f"target_class is {target}; it must be one class, or one for each of {len(logits)} images."
            )
        if not bool(((classes >= 0) & (classes < count)).all()):
            raise ValueError(f"target_class is {target}; the model has {count} classes, 0 to {count - 1}.")
        return classes.expand(len(logits))


def grad_cam(activations: Float[Tensor, "b c h w"], gradients: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Returns the positive part of the channels' sum, each weighted by its mean gradient (Eq. 1 and 2)."""
    weights = reduce(gradients, "b c h w -> b c 1 1", "mean")
    return F.relu((weights * activations).sum(dim=1)).detach()


def _grid(values: Tensor, layout: TokenLayout | None, layer: str | None) -> Float[Tensor, "b c h w"]:
    if values.ndim not in (3, 4):
        raise ValueError(
            f"The layer {layer!r} gives shape {tuple(values.shape)}; GradCAM needs a map (b, c, h, w) or tokens"
            " (b, n, d). Choose a layer before the pooling."
        )
    return feature_grid(values, layout)


def _logits(outputs: Any) -> Float[Tensor, "b k"]:
    if isinstance(outputs, Mapping) and "logits" not in outputs:
        raise ValueError(f"The model gives {', '.join(outputs)}; GradCAM needs 'logits' (b, k).")
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs


@contextmanager
def _recording(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Records the output of each module (of a tuple, the first entry) while the context lasts."""
    record: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, Tensor):
            return None
        record[module] = first
        # What follows gets a copy: an in-place ReLU would otherwise overwrite what was recorded.
        copy = first.clone()
        return (copy, *output[1:]) if isinstance(output, tuple) else copy

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(keep).remove)
        yield record


def _last_feature_layer(model: nn.Module, pixels: Tensor) -> str:
    """Returns the name of the module whose output is the last of the model's `features`."""
    made: list[tuple[str, Any]] = []
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                hook = module.register_forward_hook(lambda _, __, output, name=name: made.append((name, output)))
                stack.callback(hook.remove)
        outputs = model(pixels)
    features = outputs.get("features") if isinstance(outputs, Mapping) else None
    for name, output in reversed(made):  # a block ends after its parts
        if features and output is features[-1]:
            return name
    raise ValueError(f"{type(model).__name__} does not say which layer gives its features; pass target_layer.")
