"""Weights inside installed packages."""

import sys

import pytest

from nexus.core.files import WeightsError
from nexus.core.packages import package_file


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    (folder / "model.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_is_found_without_running_the_package(package):
    assert package_file("package:some_weights/model.pth") == package / "model.pth"
    assert "some_weights" not in sys.modules


def test_what_is_not_there_is_said(package):
    with pytest.raises(WeightsError, match=r"has no file other.pth: reinstall it"):
        package_file("package:some_weights/other.pth")
    with pytest.raises(WeightsError, match=r"pip install 'nexus-vision\[weights\]', or pip install not-there\."):
        package_file("package:not_there/model.pth")
    with pytest.raises(WeightsError, match="but it should begin with 0000"):
        package_file("package:some_weights/model.pth", "0000")
