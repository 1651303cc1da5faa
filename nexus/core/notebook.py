"""What notebooks show: tables as HTML, with everything that comes from files or users written as text."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_ROWS = 30


def html_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """Returns a table of rows that have the same keys; of a long one the start, and how much was left out."""
    head = "".join(f"<th>{escape(str(key))}</th>" for key in (rows[0] if rows else ()))
    cells = ("".join(f"<td>{escape(as_text(value))}</td>" for value in row.values()) for row in rows[:MOST_ROWS])
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    more = f"<p>and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    heading = f"<p><b>{escape(title)}</b></p>" if title else ""
    return f"{heading}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def as_text(value: Any) -> str:
    """Returns a value of a table as a person reads it."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
