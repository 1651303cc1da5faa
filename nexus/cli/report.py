"""One self-contained HTML page about a run: pictures are inside it, nothing is loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nexus.visualization.page import Section


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
