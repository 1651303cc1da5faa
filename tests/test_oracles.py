"""Proofs cannot be skipped by chance: a library that is missing fails the tests that compare with it, by its name."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOME = {
    "timm": ["nexus/models/test_mlp_mixer.py", "nexus/training/test_optimizers.py::test_lion_equals_timm"],
    "sklearn": ["nexus/tasks/classification/test_scores.py"],
    "mlx": ["mithril/ops/test_register.py::test_templates[MlxBackend]", "mithril/test_compile.py"],
}
"""Of each library, tests that need it: through a fixture, through a mark of the file, and through a backend."""

HIDE = """
import sys
from importlib.machinery import PathFinder
hidden, find = sys.argv[1].split(","), PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *given: None if name.partition(".")[0] in hidden else find(name, *given))
import pytest
sys.exit(pytest.main(["-p", "no:xdist", "-rfEs", "-m", "not slow", *sys.argv[2:]]))
"""


def run_without(names, tests, **environment):
    """Runs tests in a process in which these packages do not exist; returns the lines of the summary."""
    variables = {key: value for key, value in os.environ.items() if key != "NEXUS_SKIP_MISSING_ORACLES"}
    command = [sys.executable, "-c", HIDE, ",".join(names), *(str(TESTS / test) for test in tests)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        cwd=TESTS.parent,
        env={**variables, "COLUMNS": "400", **environment},
    )
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]


@pytest.mark.slow
def test_a_missing_library_fails_by_name_and_is_skipped_only_when_that_is_asked_for():
    tests = [test for some in SOME.values() for test in some]
    failed = run_without(SOME, tests)
    assert not [line for line in failed if line.startswith("SKIPPED")]
    for name in SOME:
        assert [line for line in failed if f"No module named '{name}" in line], (name, failed)
    skipped = run_without(SOME, tests, NEXUS_SKIP_MISSING_ORACLES="1")
    assert skipped
    assert all(line.startswith("SKIPPED") and "No module named" in line for line in skipped)


def test_no_test_skips_by_itself():
    allowed = {
        ("conftest.py", "pytest.skip"),
        ("nexus/data/test_loader.py", "pytest.mark.skipif"),  # needs /proc
        ("nexus/training/test_damaged_runs.py", "pytest.skip"),  # slow, and needs the right to mount a file system
    }
    found = set()
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text in {
                "pytest.importorskip",
                "pytest.skip",
                "pytest.mark.skip",
                "pytest.mark.skipif",
                "pytest.mark.xfail",
            }:
                found.add((path.relative_to(TESTS).as_posix(), text))
    assert found == allowed
