"""Maps of a block's features, which models of several kinds can show."""

from typing import TYPE_CHECKING

from nexus import visualization
from nexus.tasks.question import Question
from nexus.tasks.source import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_features(question: Question) -> "Figure":
    """Draws the maps of the block that `layer` numbers; the last by default."""
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
