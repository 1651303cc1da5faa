"""Models on a device mesh, data and weights cut, against the same on one device: values, gradients and state."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mithril as ml
from mithril.errors import BackendError

SCRIPT = Path(__file__).with_name("mesh_run.py")
ROOT = SCRIPT.parents[3]
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
CUT = {"torch": {"fc1_weight": [8, 12], "fc1_bias": [8], "fc2_weight": [4, 8]}}
CUT["jax"] = {"fc1_weight": [4, 12], "fc1_bias": [4], "fc2_weight": [4, 4]}
"""What one device holds: torch has 2 x 2 processes, JAX 2 x 4 devices."""


def run(framework, *cases, launcher=()):
    """The results of `mesh_run.py`, case by case."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    variables["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    command = [sys.executable, *launcher, str(SCRIPT), framework, *cases]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results, cases):
    assert [f"{r['name']}:{r['dtype']}" for r in results] == list(cases)
    for result in results:
        assert result["local"], result
        assert result["values"] >= 8
        assert result["difference"] < TOLERANCE[result["dtype"]], result


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_perceptron_and_mistakes(needed, framework):
    needed(framework)
    cases = ["mlp:float32", "mlp:float64"]
    *results, mistakes = run(framework, *cases, "mistakes")
    check(results, cases)
    assert results[0]["local"] == CUT[framework]
    parts = 2 if framework == "torch" else 4
    wanted = "64 processes, there are 4" if framework == "torch" else "64 devices, there are 8"
    assert mistakes == [
        "The mesh has no axis 'modle', only 'data', 'model'. Did you mean 'model'?",
        f"Axis 0 of shape (5, 8) cannot be cut into {parts} equal parts, the size of the mesh axis 'model'.",
        "shard ('data', 'data') cuts two axes along 'data'.",
        "shard ('data', None, 'model') speaks of 3 axes, the shape is (6, 8).",
        "The shard rule 'fc_weight' fits no key. Did you mean 'fc1_weight'?",
        "'fc1_weight' cannot be sharded: The mesh has no axis 7, only 'data', 'model'.",
        f"device_mesh (64,) needs {wanted}.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "name"), [("torch", "vit"), ("torch", "cnn"), ("jax", "vit"), ("jax", "cnn"), ("jax", "encoder")]
)
def test_a_transformer_and_convolutions(needed, framework, name):
    needed(framework)
    cases = [f"{name}:{dtype}" for dtype in ("float32", "float64")]
    check(run(framework, *cases), cases)


@pytest.mark.slow
def test_under_torchrun():
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")
    check(run("torch", "mlp:float32", "cnn:float32", launcher=launcher), ["mlp:float32", "cnn:float32"])


@pytest.mark.parametrize("name", ["NumpyBackend", "MlxBackend"])
def test_backends_without_meshes_say_so(needed, name):
    if name == "MlxBackend":
        needed("mlx")
    with pytest.raises(BackendError, match=f"{name} has no device meshes; JaxBackend and TorchBackend have"):
        getattr(ml, name)(device_mesh={"data": 2})
    with pytest.raises(BackendError, match=f"needs a {name} with a device_mesh"):
        getattr(ml, name)().array([1.0], shard=("data",))
