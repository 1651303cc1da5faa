"""Messages: one line, of a bounded length, that begins with the file and ends with the remedy."""

import pytest

from nexus.core.documents import FileError
from nexus.core.files import WeightsError
from nexus.core.text import LONGEST_MESSAGE, as_message
from nexus.data.dataset import DataError
from nexus.data.images import ImageError
from nexus.training.checkpoint import CheckpointError


def test_a_short_message_is_kept():
    assert as_message("a.json: wrong; write it again.") == "a.json: wrong; write it again."
    assert as_message("x" * LONGEST_MESSAGE) == "x" * LONGEST_MESSAGE


@pytest.mark.parametrize("kind", [FileError, WeightsError, DataError, ImageError, CheckpointError])
def test_no_message_is_as_long_as_the_file_that_it_quotes(kind):
    text = str(kind(f"a.json names {'x' * 200_000!r};\n\x1b[31m remove it."))
    assert len(text) == LONGEST_MESSAGE
    assert text.startswith("a.json names 'xxx")
    assert " ... xxx" in text
    assert text.endswith("'; \\x1b[31m remove it.")
