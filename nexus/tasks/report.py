"""What an evaluation says: figures, the settings that they hold for, and the rows behind them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexus.core.files import write_whole
from nexus.core.notebook import as_text, html_table
from nexus.visualization.page import Section

if TYPE_CHECKING:
    from PIL.Image import Image

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Report:
    """A model's figures on a data set. A kind of model adds what it alone knows.

    Attributes:
        data: Name of the data set.
        task: What the model was measured for.
        num_images: How many items of the data set were seen.
        metrics: The figures by name; None means that nothing was there to measure.
        class_names: Names of the model's classes; empty where there are none.
        settings: What the figures hold for: the split, the preprocessing.
        results: What the model gave for each item, where its kind keeps them.
    """

    data: str
    task: str
    num_images: int
    metrics: dict[str, Any]
    class_names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    results: Sequence[Any] = field(default=(), repr=False)

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {as_text(value)}" for name, value in self.metrics.items())
        return f"{type(self).__name__}({self.data}, {self.num_images:,} images: {figures})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the tables."""
        title = f"{self.task} on {self.data}, {self.num_images:,} images"
        return f"<p>{escape(title)}</p>" + "".join(html_table(rows, name) for name, rows in self.tables().items())

    @property
    def per_class(self) -> Sequence[Row]:
        """A row of figures for each class; none where there are no classes."""
        return []

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the tables that a person reads, by title."""
        tables = {"metrics": [{"metric": name, "value": value} for name, value in self.metrics.items()]}
        return tables | ({"classes": [dict(row) for row in self.per_class]} if self.per_class else {})

    def sections(self, dataset: Any) -> list[Section]:
        """Returns what a page about these figures shows; a kind adds its pictures.

        Args:
            dataset: That was measured on, for its images.
        """
        return [Section(title=f"Held-out {title}", text="", rows=rows) for title, rows in self.tables().items()]

    def worst_pictures(self, dataset: Any) -> list[tuple[str, "Image"]]:
        """Returns pictures of the worst errors, the worst first, each with the name of its image.

        Args:
            dataset: That was measured on, for its images.

        Raises:
            ValueError: This kind has no such pictures.
        """
        raise ValueError(f"There are pictures of errors for detection and classification, and not for {self.task}.")

    def write(self, path: str | Path) -> Path:
        """Writes the figures into a `.json`, or the results into a file of another ending that their kind has.

        Raises:
            ValueError: The ending is none of them.
        """
        path = Path(path)
        own = {ending: write for one in self.results for ending, write in one.formats.items() if ending}
        for ending, write in own.items():
            if path.name.lower().endswith(ending):
                write(self.results, path)
                return path
        if path.suffix.lower() != ".json" or path.name.lower().endswith(".coco.json"):
            known = ", ".join([".json", *own])
            raise ValueError(f"{path} has another ending than what an evaluation is written to: {known}.")
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))
        return path

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values that JSON can hold."""
        return {
            "data": self.data,
            "task": self.task,
            "num_images": self.num_images,
            "metrics": self.metrics,
            "class_names": list(self.class_names),
            "settings": self.settings,
            "per_class": [dict(row) for row in self.per_class],
        }
