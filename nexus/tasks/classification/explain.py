"""What a classifier looked at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nexus import visualization
from nexus.tasks.feature_maps import show_features
from nexus.tasks.question import Method, Question
from nexus.tasks.source import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def guess(question: Question) -> str:
    """Says what the model takes the image for."""
    with evaluating(question.model):
        probabilities = question.model(question.pixels)["logits"].softmax(dim=1)[0]
    best = int(probabilities.argmax())
    return f"The model's guess is {question.name(best)} ({probabilities[best]:.1%})."


def _gradcam(question: Question) -> "Figure":
    target = question.target
    if target is None:
        with evaluating(question.model):
            target = int(question.model(question.pixels)["logits"][0].argmax())
    heat = visualization.GradCAM(question.model, question.layer)(question.pixels, target)
    return visualization.plot_heat(
        question.pixels[0],
        heat[0],
        title=guess(question),
        subject=f"GradCAM: what speaks for {target if isinstance(target, str) else question.name(target)}",
        preprocessing=question.model.preprocessing,
    )


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


METHODS: Mapping[str, Method] = {
    "gradcam": _gradcam,
    "attention": _attention,
    "rollout": _rollout,
    "features": show_features,
}
