"""Pictures of what a model sees and says. Figures are matplotlib's, made without pyplot and its global state."""

from nexus.visualization.attention import attention_map, attention_rollout, plot_attention_maps
from nexus.visualization.clicks import draw_clicks, plot_clicks
from nexus.visualization.confusion import plot_confusion_matrix
from nexus.visualization.curves import plot_training_curves
from nexus.visualization.detection_errors import draw_marks, plot_precision_recall
from nexus.visualization.drawing import caption, contact_sheet, overlay
from nexus.visualization.features import visualize_feature_maps
from nexus.visualization.figures import to_data_uri, to_png
from nexus.visualization.gradcam import GradCAM
from nexus.visualization.heat import plot_heat
from nexus.visualization.object_maps import object_gradcam, plot_query_attention, query_attention
from nexus.visualization.pictures import plot_guesses, to_picture
from nexus.visualization.reconstruction import Painting, reconstruction_sheet

__all__ = [
    "GradCAM",
    "Painting",
    "attention_map",
    "attention_rollout",
    "caption",
    "contact_sheet",
    "draw_clicks",
    "draw_marks",
    "object_gradcam",
    "overlay",
    "plot_attention_maps",
    "plot_clicks",
    "plot_confusion_matrix",
    "plot_guesses",
    "plot_heat",
    "plot_precision_recall",
    "plot_query_attention",
    "plot_training_curves",
    "query_attention",
    "reconstruction_sheet",
    "to_data_uri",
    "to_picture",
    "to_png",
    "visualize_feature_maps",
]
