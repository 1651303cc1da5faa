"""What a detector looked at when it found an object."""

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING

from nexus import visualization
from nexus.tasks.feature_maps import show_features
from nexus.tasks.question import Method, Question
from nexus.tasks.source import evaluating
from nexus.visualization.objects import draw_objects

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def found_object(question: Question) -> str:
    """Says which object is explained."""
    with evaluating(question.model):
        outputs = question.model(question.pixels)
    rank, count = question.rank or 0, len(outputs["scores"][0])
    if rank >= count:
        raise ValueError(f"--target is {rank}; the model finds {count} objects here, counted from 0.")
    label, score = int(outputs["labels"][0][rank]), float(outputs["scores"][0][rank])
    return f"Object {rank} of {count} is {question.name(label)} ({score:.1%})."


def _object_gradcam(question: Question) -> "Image":
    rank = question.rank or 0
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
    ranks = (0, 1, 2) if question.rank is None else (question.rank,)
    return visualization.plot_query_attention(
        outputs,
        question.pixels[0],
        ranks=ranks[: len(outputs["scores"][0])],
        class_names=question.model.class_names,
        preprocessing=question.model.preprocessing,
    )


METHODS: Mapping[str, Method] = {
    "gradcam": _object_gradcam,
    "attention": _query_attention,
    "features": show_features,
}
