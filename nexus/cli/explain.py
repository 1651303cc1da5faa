"""`nexus explain`: one image, one model, one picture of what the model saw."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from nexus import visualization
from nexus.core.config import nearest
from nexus.core.module import NexusModule
from nexus.data import eval_transform, load_image
from nexus.data.remote import fetch_image, is_address
from nexus.tasks import task_name
from nexus.tasks.source import device_of, evaluating, open_model, preprocessing_of
from nexus.visualization.objects import draw_objects

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@dataclass(frozen=True)
class Question:
    """What is to be explained.

    Attributes:
        model: In evaluation mode.
        pixels: The normalized image, (1, c, h, w).
        layer: A module's path, or None for the method's own choice.
        target: A class, or None for the model's guess; of a detector, an object, 0 the surest.
    """

    model: NexusModule
    pixels: Tensor
    layer: str | None
    target: int | None

    @property
    def layout(self):
        """Where the patches stand among the tokens, for models that have tokens."""
        return self.model.token_layout(self.pixels.shape[-2:])

    def name(self, label: int) -> str:
        """What the class is called."""
        return self.model.class_names[label] if self.model.class_names else f"class {label}"


def explain_image(
    image: str, model: str, method: str, layer: str | None, target: int | None, output: Path, device: str | None
) -> str:
    """Draws the explanation into `output` and returns a sentence with the model's guess.

    Raises:
        ValueError: The method is unknown, or does not fit the model; the image cannot be read.
    """
    module = open_model(model, device)
    if not isinstance(module, NexusModule):
        raise ValueError(f"{model} is a {type(module).__name__}; explain works on models of the zoo.")
    task = task_name(module)
    if task not in ("classification", "detection"):
        raise ValueError(f"explain is for classifiers and detectors; {model} is a model for {task}. Use nexus predict.")
    detects = task == "detection"
    methods = DETECTOR_METHODS if detects else METHODS
    if method not in methods:
        kind = "a detector" if detects else "a classifier"
        raise ValueError(f"There is no method {method!r} for {kind}. {nearest(method, methods)}")
    loaded = load_image(fetch_image(image) if is_address(image) else image, name=image)
    pixels = eval_transform(preprocessing_of(module))(loaded).unsqueeze(0).to(device_of(module))
    question = Question(module.eval(), pixels, layer, target)
    sentence = _found(question) if detects else _guess(question)
    picture = methods[method](question)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(visualization.to_png(picture))
    return sentence


def _guess(question: Question) -> str:
    with evaluating(question.model):
        probabilities = question.model(question.pixels)["logits"].softmax(dim=1)[0]
    guess = int(probabilities.argmax())
    return f"The model's guess is {question.name(guess)} ({probabilities[guess]:.1%})."


def _found(question: Question) -> str:
    with evaluating(question.model):
        outputs = question.model(question.pixels)
    rank, count = question.target or 0, len(outputs["scores"][0])
    if rank >= count:
        raise ValueError(f"--target is {rank}; the model finds {count} objects here, counted from 0.")
    label, score = int(outputs["labels"][0][rank]), float(outputs["scores"][0][rank])
    return f"Object {rank} of {count} is {question.name(label)} ({score:.1%})."


def _object_gradcam(question: Question) -> "Image":
    rank = question.target or 0
    heat = visualization.object_gradcam(question.model, question.pixels, rank)
    shown = visualization.overlay(question.pixels[0], heat, preprocessing=question.model.preprocessing, side=448)
    with evaluating(question.model):
        outputs = question.model(question.pixels)
    scale = shown.width / question.pixels.shape[-1]
    box, label = outputs["boxes"][0][rank].cpu().numpy() * scale, int(outputs["labels"][0][rank])
    return draw_objects(shown, box[None], [f"{question.name(label)} {outputs['scores'][0][rank]:.0%}"], [label])


def _query_attention(question: Question) -> "Figure":
    if "output_attentions" not in signature(question.model.forward).parameters:
        raise ValueError(f"{type(question.model).__name__} has no attention maps of queries; use --method gradcam.")
    with evaluating(question.model):
        outputs = question.model(question.pixels, output_attentions=True)
    ranks = (0, 1, 2) if question.target is None else (question.target,)
    return visualization.plot_query_attention(
        outputs,
        question.pixels[0],
        ranks=ranks[: len(outputs["scores"][0])],
        class_names=question.model.class_names,
        preprocessing=question.model.preprocessing,
    )


def _gradcam(question: Question) -> "Image":
    heat = visualization.GradCAM(question.model, question.layer)(question.pixels, question.target)
    return visualization.overlay(question.pixels[0], heat[0], preprocessing=question.model.preprocessing, side=448)


def _attention(question: Question) -> "Figure":
    with evaluating(question.model):
        outputs = question.model(question.pixels, output_attentions=True)
    return visualization.plot_attention_maps(
        outputs, image=question.pixels[0], layout=question.layout, preprocessing=question.model.preprocessing
    )


def _rollout(question: Question) -> "Image":
    with evaluating(question.model):
        rollout = visualization.attention_rollout(question.model(question.pixels, output_attentions=True))
    heat = visualization.attention_map(rollout, question.layout)[0]
    heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)
    return visualization.overlay(question.pixels[0], heat, preprocessing=question.model.preprocessing, side=448)


def _features(question: Question) -> "Figure":
    with evaluating(question.model):
        features = question.model(question.pixels)["features"]
    try:
        block = features[int(question.layer) if question.layer else -1]
    except (ValueError, IndexError):
        raise ValueError(
            f"--layer is {question.layer!r}; for features it is the number of a block, 0 to {len(features) - 1}."
        ) from None
    return visualization.visualize_feature_maps(
        block,
        image=question.pixels[0],
        layout=question.layout if block.ndim == 3 else None,
        preprocessing=question.model.preprocessing,
    )


METHODS: dict[str, Callable[[Question], "Image | Figure"]] = {
    "gradcam": _gradcam,
    "attention": _attention,
    "rollout": _rollout,
    "features": _features,
}
DETECTOR_METHODS: dict[str, Callable[[Question], "Image | Figure"]] = {
    "gradcam": _object_gradcam,
    "attention": _query_attention,
    "features": _features,
}
