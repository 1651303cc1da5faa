"""docs/security.md says the limits that the code has."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "security.md"
ROWS = re.findall(
    r"^\| .* \| ([\d,]+) \| `(nexus\.(?:core|app\.annotate|data\.medical)\.\w+)\.([\w.]+)` \|$",
    PAGE.read_text(encoding="utf-8"),
    re.M,
)


@pytest.mark.parametrize(("value", "module", "name"), ROWS)
def test_a_limit_is_the_constant_that_it_names(value, module, name):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert f"{found:,.0f}" == value


def test_every_limit_of_the_table_is_read():
    assert len(ROWS) == PAGE.read_text(encoding="utf-8").count("| `nexus.") > 20
