"""What an evaluation of a promptable segmenter says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nexus.tasks.promptable.rounds import SHOWN, Clicked, mean_ious, measured_objects
from nexus.tasks.report import Report
from nexus.visualization.clicks import draw_clicks, plot_clicks
from nexus.visualization.drawing import contact_sheet
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from PIL.Image import Image

WORST = 8
SPREAD = 6
TILE = 240
GOOD = 0.8
"""IoU from which on a mask is counted as good."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PromptableEvaluation(Report):
    """A promptable segmenter's figures on a data set.

    Attributes:
        clicked: What became of the objects of each image, in the order of `results`.
    """

    clicked: Sequence[Sequence[Clicked]] = field(default=(), repr=False)

    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """Objects and mean IoU of each class."""
        rows = []
        for label, name in enumerate(self.class_names):
            objects = [one for image in self.clicked for one in image if one.truth.label == label]
            rows.append({"name": name, "objects": len(objects), **(mean_ious(objects) or dict.fromkeys(self.metrics))})
        return rows

    def curves(self) -> dict[str, list[float]]:
        """Returns after each number of clicks the mean IoU, and the share of objects whose mask is good."""
        ious = np.array([one.ious for image in self.clicked for one in image])
        return {
            "mean IoU": ious.mean(axis=0).tolist(),
            f"share of objects with an IoU of at least {GOOD:g}": (ious >= GOOD).mean(axis=0).tolist(),
        }

    def sections(self, dataset: Any) -> list[Section]:
        """Returns the figures, how they rise from click to click, and pictures of masks with their clicks."""
        said = "Mean IoU over all objects after so many clicks in the middle of the error, and for the object's box."
        key = "Blue is the mask, white the outline of the object; clicks are green on the object and red beside it."
        places = self._places()
        spread = [places[at] for at in sorted({round(at) for at in np.linspace(0, len(places) - 1, SPREAD)})]
        curves = self.curves()
        pictures = [Picture.of(plot_clicks(curves), "mean IoU over clicks")] if all(curves.values()) else []
        return [
            Section(title="Held-out metrics", text=said, rows=self.tables()["metrics"]),
            Section(title="Click by click", text="", pictures=pictures, rows=self.per_class),
            self._shown(dataset, "Masks and clicks", key, spread),
            self._shown(dataset, "The worst", f"Objects with the lowest IoU of the first mask. {key}", self._worst()),
        ]

    def worst_pictures(self, dataset: Any) -> list[tuple[str, "Image"]]:
        """Returns the objects whose first mask fits worst, the worst first, each click by click."""
        return [(self.results[image].path, self.draw_object(dataset, image, place)) for image, place in self._worst()]

    def draw_object(self, dataset: Any, image: int, place: int) -> "Image":
        """Returns the masks of an object beside each other, after 1, 3 and 5 clicks and for its box, with their IoU.

        Args:
            dataset: That was measured on.
            image: Number of the image in `results`.
            place: Of the object among those of the image that were measured.
        """
        one, sample = self.clicked[image][place], dataset[image]
        picture, truth = to_picture(sample.image), measured_objects(sample.scene)[place][1]
        drawn, captions = [], []
        for count, mask in zip(SHOWN, one.masks):
            drawn.append(draw_clicks(picture, mask.decode(), one.clicks[:count], truth=truth))
            captions.append(f"{count} click{'s' * (count > 1)}: IoU {one.ious[count - 1]:.0%}")
        drawn.append(draw_clicks(picture, one.box_mask.decode(), (), box=one.truth.box, truth=truth))
        return contact_sheet(drawn, [*captions, f"box: IoU {one.box_iou:.0%}"], columns=len(drawn), tile=TILE)

    def _shown(self, dataset: Any, title: str, text: str, places: Sequence[tuple[int, int]]) -> Section:
        pictures = [
            Picture.of(self.draw_object(dataset, *place), f"{self.results[place[0]].path}, object {place[1] + 1}")
            for place in places
        ]
        return Section(title=title, text=text, pictures=pictures)

    def _places(self) -> list[tuple[int, int]]:
        """Numbers of all objects: of the image, and in it."""
        return [(image, place) for image, clicked in enumerate(self.clicked) for place in range(len(clicked))]

    def _worst(self) -> list[tuple[int, int]]:
        def first(place: tuple[int, int]) -> float:
            one = self.clicked[place[0]][place[1]]
            return one.ious[0] if one.ious else one.box_iou

        return sorted(self._places(), key=first)[:WORST]
