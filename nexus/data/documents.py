"""Text, JSON, YAML, XML and tables of a data set, as plain data and within limits.

Nothing in a file acts: YAML has no types here, XML no DOCTYPE and no entities. What is too large, too
deep or of another kind is a `DataError` of one line that names the file.
"""

import contextlib
import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree as XML
from xml.parsers import expat

from nexus.core import documents
from nexus.core.documents import ANNOTATIONS, FileError, Limits
from nexus.data.dataset import DataError

TABLES = Limits(size=256 << 20)
"""Of tables and XML; a CVAT file of an hour of video has some tens of MB."""
MAX_DEPTH = 64
MAX_CELL = 1 << 24
"""Characters in a cell of a table, for masks that are written into one."""


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Turns a file that cannot be read into an error of the data set."""
    try:
        yield
    except FileError as error:
        raise DataError(str(error)) from None


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8; a byte order mark is taken off."""
    with data_errors():
        return documents.read_text(path, TABLES.size)


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; NaN is a number here, so that the annotation can be named that has it."""
    with data_errors():
        return documents.read_json(path, ANNOTATIONS, nan=True)


def parse_json(text: str, where: str) -> Any:
    """Returns what a JSON text says; `where` is what messages call it."""
    with data_errors():
        return documents.parse_json(text, where, nan=True)


def read_settings(path: Path) -> Any:
    """Returns the content of a YAML file, every scalar as the text that stands there: `no` is "no"."""
    with data_errors():
        return documents.read_yaml(path, as_text=True)


def read_xml(path: Path) -> XML.Element:
    """Returns the root element of an XML file; whatever its encoding, a DOCTYPE or an entity is refused."""
    with data_errors():
        data = documents.read_bytes(path, TABLES.size)
    builder, depth = XML.TreeBuilder(), 0
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True

    def refuse(*_: Any) -> NoReturn:
        raise DataError(f"{path} declares a DOCTYPE or entities, which annotations never need; remove the DOCTYPE.")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(f"{path}, line {parser.CurrentLineNumber}: it is nested deeper than {MAX_DEPTH}.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not XML ({error}); export it again.") from None


def read_table(
    path: Path, needed: Collection[str] = (), optional: Collection[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Gives each line of a table as its place and its cells by column; `.tsv` has tabs.

    Args:
        path: The file.
        needed: Columns that must be there.
        optional: Columns that may be there too; None means any.

    Raises:
        DataError: Columns are missing, unknown or double, or a line has another number of cells.
    """
    rows = _lines(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    columns: list[str] = next(rows, (0, []))[1]
    unknown = set(columns) - set(needed) - set(columns if optional is None else optional)
    if not set(needed) <= set(columns) or unknown or len(set(columns)) < len(columns) or not columns:
        said, also = ", ".join(columns)[:200] or "missing", f", and {', '.join(optional)} if wanted" if optional else ""
        raise DataError(f"{path}, line 1: the columns are {said}; they must be {','.join(needed)}{also}.")
    for number, cells in rows:
        where = f"{path}, line {number}"
        if len(cells) != len(columns):
            raise DataError(
                f"{where}: {len(cells)} values; there must be as many as columns. Quote what holds a comma."
            )
        yield where, dict(zip(columns, cells))


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    before = csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True, delimiter=delimiter)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; correct the line.") from None
    finally:
        csv.field_size_limit(before)
