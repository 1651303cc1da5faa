"""Some hundred damaged files for every reader; `make fuzz` tries many more."""

import os

import pytest

from tests.fuzz.harness import run
from tests.fuzz.readers import READERS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))


@pytest.mark.parametrize("name", READERS)
def test_reader_stands_damage(name):
    tally = run(name, 0, EXAMPLES, most_faults=5)
    assert not tally.faults, "\n".join(f"--example {fault.example}: {fault.problem}" for fault in tally.faults)
    assert tally.examples == EXAMPLES
    assert tally.refused
