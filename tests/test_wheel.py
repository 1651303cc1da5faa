"""What is built from this repository is whole: installed alone, it runs, and its data files are there."""

import os
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import mithril as ml, nexus, numpy as np, torch
from nexus.training import load_recipe
print(nexus.__file__, ml.__file__)
print(load_recipe("digits/vit_tiny").model.name)
model = nexus.create_model("vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=24, num_layers=1).eval()
images = torch.randn(1, 3, 32, 32)
graph, params = ml.from_torch(model, images)
compiled = ml.compile(graph, ml.NumpyBackend(), inference=True)
found = compiled.evaluate(params, {compiled.data_keys[0]: images.numpy()})["logits"]
np.testing.assert_allclose(found, model(images)["logits"].detach(), rtol=1e-4, atol=1e-5)
"""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=250, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(needed, tmp_path_factory):
    needed("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that has the wheel and nothing else; what it depends on is looked up where the tests have it."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = {path.parent for path in folder.rglob("nexus") if path.is_dir()}
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python


def alone(tmp_path):
    """Options of a process that cannot see the checkout."""
    return {"cwd": tmp_path, "env": {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}}


def test_the_wheel_holds_both_packages_their_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    tracked = [p for package in ("mithril", "nexus") for p in (ROOT / package).rglob("*") if p.is_file()]
    assert inside == {p.relative_to(ROOT).as_posix() for p in tracked if p.suffix != ".pyc"}
    assert {"nexus/py.typed", "nexus/cli/report.html.j2", "nexus/training/recipes/digits/vit_tiny.yaml"} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_requirements_have_no_upper_bounds(wheel):
    """A library that caps what it needs cannot be installed beside the next release of torch."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith("METADATA")]
        required = re.findall(r"^Requires-Dist: ([^;\n]+)", file.read(name).decode(), re.MULTILINE)
    assert len(required) > 30
    assert not [line for line in required if re.search(r"<|==|~=|!=", line)]


def test_what_was_tested_fits_the_requirements():
    """Each line of constraints.txt is a release, and everything that a user or a test needs stands there."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {re.fullmatch(r"([a-z0-9-]+)==[0-9.]+", line)[1] for line in lines}
    text = (ROOT / "pyproject.toml").read_text()
    required = {name.lower().replace("_", "-") for name in re.findall(r'"([A-Za-z0-9_-]+)(?:\[\w+\])?>=', text)}
    assert required <= pinned, required - pinned


def test_it_runs_without_the_checkout(installed, tmp_path):
    places, recipe = run(installed, "-c", USE, **alone(tmp_path)).splitlines()
    assert all(str(installed.parent.parent) in place for place in places.split())
    assert recipe == "vit_tiny_patch16_224"
    command = installed.with_name("nexus")
    assert "vit_tiny_patch16_224" in run(command, "models", "vit_tiny*", **alone(tmp_path))


def test_workflows_name_actions_by_commit():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (\S+)", path.read_text())
        assert used
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), path
