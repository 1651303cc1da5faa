"""One self-contained HTML page about a run: pictures are inside it, nothing is loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG as a data URI, and what it shows for those who cannot see it."""

    data: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a sentence or two, then pictures, a table (rows with equal keys), text as it is, and links.

    Attributes:
        links: Names of files, relative to the page, and what they are.
    """

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    code: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


def write_report(
    path: Path, *, title: str, summary: str, figures_of_merit: Mapping[str, str], sections: Sequence[Section]
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file; its folder must exist.
        title: The heading.
        summary: One sentence under the heading.
        figures_of_merit: Names and values shown large at the top.
        sections: The parts of the page, in order.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["float"] = lambda value: isinstance(value, float)
    template = environment.from_string((Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8"))
    page = template.render(title=title, summary=summary, figures_of_merit=figures_of_merit, sections=sections)
    path.write_text(page, encoding="utf-8")
    return path
