"""Kept sources of ViT-B/16 and ResNet-50: short, and alone they compute what the compiled model computes.

After a change that is meant: `python tests/mithril/codegen/test_golden.py` writes them anew; read the difference.
"""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mithril as ml
from mithril import models

GOLDEN = Path(__file__).parent / "golden"
LINES = {"vision_transformer": 80, "resnet50": 120}
KEPT = [("vision_transformer", "torch"), ("resnet50", "torch"), ("vision_transformer", "jax")]


def draw(shapes):
    """Values far from 0 and 1 that the process without mithril draws too."""
    random = np.random.default_rng(0)
    values = {k: random.standard_normal(s, np.float32) * 0.02 for k, s in shapes.items()}
    return {k: abs(v) + 0.5 if k.endswith("var") else v + 1 if v.ndim == 1 else v for k, v in values.items()}


ALONE = """
import json, runpy, sys
sys.modules["mithril"] = None
import numpy as np, torch
arrays = {key: torch.from_numpy(value) for key, value in draw(json.loads(sys.argv[2])).items()}
evaluate = runpy.run_path(sys.argv[1])["evaluate"]
np.save("out.npy", evaluate(arrays, {"input": arrays["input"]})["output"])
assert sys.modules["mithril"] is None
"""


def compiled(name, backend):
    backend = getattr(ml, f"{backend.capitalize()}Backend")()
    model = getattr(models, name)()
    return ml.compile(model, backend, shapes={"input": [None, 3, 224, 224]}, inference=True)


def path(name, backend):
    return GOLDEN / f"{name}_{backend}.py"


@pytest.mark.parametrize(("name", "backend"), KEPT)
def test_source_is_the_kept_one_and_short(needed, name, backend):
    needed(backend)
    source = compiled(name, backend).source
    assert source == path(name, backend).read_text()
    assert len(source.splitlines()) <= LINES[name]
    assert max(map(len, source.splitlines())) <= 120


@pytest.mark.parametrize("backend", ["jax", "mlx", "numpy"])
@pytest.mark.parametrize("name", LINES)
def test_other_backends_are_short_too(needed, name, backend):
    """What a framework has no call for is pasted: for NumPy that is a lot, the error function above all."""
    needed(backend)
    source = compiled(name, backend).source
    pasted = {("vision_transformer", "numpy"): 25, ("resnet50", "numpy"): 1}
    assert len(source.splitlines()) <= LINES[name] + pasted.get((name, backend), 0)
    assert max(map(len, source.splitlines())) <= 120


@pytest.mark.parametrize(("name", "backend"), KEPT[:2])  # JAX needs half a minute for a ViT
def test_kept_source_runs_alone(needed, name, backend, tmp_path):
    needed(backend)
    model = compiled(name, backend)
    shapes = {key: model.shapes[key] for key in [*model.parameter_keys, *model.state_keys]}
    shapes["input"] = [1, 3, 224, 224]
    code = inspect.getsource(draw) + ALONE
    command = [sys.executable, "-c", code, str(path(name, backend)), json.dumps(shapes)]
    subprocess.run(command, cwd=tmp_path, check=True)
    values = draw(shapes)
    found = model.evaluate(values, {"input": values.pop("input")})["output"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.asarray(found), rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    for name, backend in KEPT:
        path(name, backend).write_text(compiled(name, backend).source)
