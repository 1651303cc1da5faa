"""What an evaluation of objects followed through clips says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nexus.tasks.report import Report
from nexus.tasks.video_segmentation.following import Followed, mean_scores
from nexus.visualization.clicks import draw_clicks
from nexus.visualization.drawing import contact_sheet
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from PIL.Image import Image

WORST, SPREAD, SHOWN, TILE = 6, 6, 5, 200
"""Objects with the lowest J&F and spread over the data, and frames of each, that pictures show; pixels of a frame."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class VideoEvaluation(Report):
    """How well a model follows objects through clips.

    Attributes:
        paths: Of the clips, in their order.
        followed: What became of the objects of each clip.
    """

    paths: Sequence[str] = field(default=(), repr=False)
    followed: Sequence[Sequence[Followed]] = field(default=(), repr=False)

    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """Objects, J&F, J and F of each class."""
        rows = []
        for label, name in enumerate(self.class_names):
            objects = [one for clip in self.followed for one in clip if one.label == label]
            rows.append(
                {"name": name, "objects": len(objects), **(mean_scores(objects) or dict.fromkeys(self.metrics))}
            )
        return rows

    @property
    def per_object(self) -> list[dict[str, Any]]:
        """Clip, number, first frame, J&F, J and F of each object."""
        return [
            {"clip": path, "object": one.object_id, "start": one.start, "frames": len(one.frames), **mean_scores([one])}
            for path, followed in zip(self.paths, self.followed)
            for one in followed
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values that JSON can hold."""
        return {**super().to_json(), "per_object": self.per_object}

    def sections(self, dataset: Any) -> list[Section]:
        """Returns the figures, and pictures of objects in some of their frames."""
        said = (
            f"Each object is pointed at by a {self.settings.get('prompt', 'click')} in the first frame that shows it."
        )
        key = "Blue is the mask, white the outline of the object."
        places = self._places()
        spread = [places[at] for at in sorted({round(at) for at in np.linspace(0, len(places) - 1, SPREAD)})]
        return [
            Section(title="Held-out metrics", text=said, rows=self.tables()["metrics"]),
            Section(title="By class", text="", rows=self.per_class),
            self._shown(dataset, "Objects in their clips", key, spread),
            self._shown(dataset, "The worst", f"Objects with the lowest J&F. {key}", self._worst()),
        ]

    def worst_pictures(self, dataset: Any) -> list[tuple[str, "Image"]]:
        """Returns the objects that are followed worst, the worst first, in some of their frames."""
        return [
            (f"{Path(self.paths[clip]).name}-object{self.followed[clip][place].object_id}.png", picture)
            for clip, place in self._worst()
            for picture in [self.draw_object(dataset, clip, place)]
        ]

    def draw_object(self, dataset: Any, clip: int, place: int) -> "Image":
        """Returns an object in the frame in which it was pointed at and in some that follow, with J and F.

        Args:
            dataset: That was measured on.
            clip: Number of the clip.
            place: Of the object among those of the clip that were measured.
        """
        one, source = self.followed[clip][place], dataset[clip]
        points = [(int(x), int(y), 1) for x, y in one.prompt.get("points", ())]
        box = one.prompt.get("boxes")
        truth = source.ids(one.start) == one.object_id
        drawn = [draw_clicks(to_picture(source.frame(one.start)), truth, points, box=box, truth=truth)]
        captions = [f"frame {one.start}: given"]
        for at in sorted({round(at) for at in np.linspace(0, len(one.frames) - 1, SHOWN)}):
            frame = one.frames[at]
            truth = source.ids(frame) == one.object_id
            drawn.append(draw_clicks(to_picture(source.frame(frame)), one.masks[at].decode(), (), truth=truth))
            captions.append(f"frame {frame}: J {one.regions[at]:.0%}, F {one.contours[at]:.0%}")
        return contact_sheet(drawn, captions, columns=len(drawn), tile=TILE)

    def _shown(self, dataset: Any, title: str, text: str, places: Sequence[tuple[int, int]]) -> Section:
        pictures = [
            Picture.of(
                self.draw_object(dataset, *place),
                f"{self.paths[place[0]]}, object {self.followed[place[0]][place[1]].object_id}",
            )
            for place in places
        ]
        return Section(title=title, text=text, pictures=pictures)

    def _places(self) -> list[tuple[int, int]]:
        return [(clip, place) for clip, followed in enumerate(self.followed) for place in range(len(followed))]

    def _worst(self) -> list[tuple[int, int]]:
        def fit(place: tuple[int, int]) -> float:
            one = self.followed[place[0]][place[1]]
            return one.j + one.f

        return sorted(self._places(), key=fit)[:WORST]
