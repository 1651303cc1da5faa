"""Every example in the documents runs: python blocks page by page, `nexus` commands through the command line."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn_sets import write_coco
from tests.registered import forgotten

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Returns the fenced blocks of exactly this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(needed, tmp_path, monkeypatch):
    """A working folder with `photos/{train,val}/{china,flower}`, crops of scikit-learn's two photographs, and `boxes`."""
    datasets = needed("sklearn.datasets")
    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        image = datasets.load_sample_image(f"{name}.jpg")
        for split, count in (("train", 8), ("val", 3)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                top, left = rng.integers(0, 427 - 200), rng.integers(0, 640 - 200)
                crop = image[top : top + 200, left : left + 200]
                Image.fromarray(crop).resize((64, 64)).save(folder / f"{number}.png")
    Image.fromarray(datasets.load_sample_image("flower.jpg")).save(tmp_path / "photo.jpg")
    write_coco(tmp_path / "boxes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path / "home"))
    return tmp_path


ALONE = {"mithril-sharding"}
"""Pages whose blocks need a process of their own: JAX simulates eight devices only from its start."""


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and p.stem not in ALONE], ids=lambda p: p.stem
)
def test_python_blocks_run(page, photos):
    namespace: dict = {"__name__": page.stem}
    with forgotten():
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("name", sorted(ALONE))
def test_python_blocks_run_alone(needed, name, tmp_path):
    needed("jax")
    text = "\n".join(blocks(ROOT / "docs" / f"{name}.md", "python"))
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "NumpyBackend has no device meshes" in done.stdout


def test_reference_pages_are_those_of_the_docstrings(needed, tmp_path):
    for name in ("jax", "mlx.core", "ruff"):
        needed(name)
    subprocess.run([sys.executable, str(ROOT / "docs" / "reference.py"), str(tmp_path)], check=True, timeout=280)
    for page in sorted(tmp_path.glob("*.md")):
        kept = (ROOT / "docs" / page.name).read_text(encoding="utf-8")
        assert page.read_text(encoding="utf-8") == kept, f"docs/{page.name} is stale: run `make docs`"


@pytest.mark.parametrize("name", ["cli", "boxes"])
def test_commands_run(photos, name):
    from typer.testing import CliRunner

    from nexus.cli.commands import app

    lines = [line for block in blocks(ROOT / "docs" / f"{name}.md", "bash") for line in block.splitlines() if line]
    assert len(lines) >= 8
    for line in lines:
        short = re.sub(r"epochs=(\d)0\b", r"epochs=\1", line)  # a tenth of the epochs shows the same commands
        program, *words = shlex.split(short, comments=True)
        assert program == "nexus"
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (line, result.output, result.exception)


def test_every_option_is_documented():
    from nexus.training.recipe_files import key_paths

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    missing = [key for key in key_paths() if not key.startswith("data.preprocessing.") and f"`{key}`" not in text]
    assert not missing


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("nexus_digits", "--epochs 3"),
        ("nexus_finetune", "photos --model resnet18 --from-scratch --epochs 1 --batch-size 8"),
        ("nexus_own_model", "--epochs 1"),
    ],
)
def test_examples_run(script, arguments, photos, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script, *arguments.split(), "--run-dir", "run"])
    runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="__main__")
    assert "top-1 on held-out" in capsys.readouterr().out
    assert (photos / "run" / "model" / "model.safetensors").is_file()
