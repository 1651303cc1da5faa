"""Backend objects: arrays, random numbers, gradients, compilation, and what they refuse."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mithril import backends
from mithril.errors import BackendError
from mithril.types import DType

NAMES = ["NumpyBackend", "TorchBackend", "JaxBackend", "MlxBackend"]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=NAMES)
def backend(request):
    return getattr(backends, request.param)()


def run_script(text, *launcher, **environment):
    """The script's output in a process of its own."""
    command = [sys.executable, *(launcher or ("-c",)), text]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_arrays_take_the_backend_s_float_and_keep_other_kinds(backend):
    assert backend.dtype_of(backend.array([1.5, 2])) is DType.float32
    assert backend.dtype_of(backend.array(np.zeros(2))) is DType.float32
    assert backend.dtype_of(backend.array([True])) is DType.bool
    assert backend.dtype_of(backend.array(np.array([1], np.int32))) is DType.int32
    assert backend.dtype_of(backend.array([1], "float16")) is DType.float16
    made = backend.array([[1.0, 2, 3]])
    assert backend.shape_of(made) == (1, 3)
    assert backend.is_array(made)
    assert not backend.is_array([1.0])
    np.testing.assert_array_equal(backend.to_numpy(backend.array(made)), [[1, 2, 3]])


def test_makers(backend):
    for made, expected in (
        (backend.zeros(2, 3), np.zeros((2, 3))),
        (backend.ones((2, 3)), np.ones((2, 3))),
        (backend.full((2,), 7.0), [7, 7]),
        (backend.arange(2, 8, 3), [2, 5]),
        (backend.arange(3), [0, 1, 2]),
    ):
        np.testing.assert_array_equal(backend.to_numpy(made), expected)


def test_random_numbers_are_the_same_everywhere_and_follow_the_seed(backend):
    reference = backends.NumpyBackend()
    for name, arguments in (("rand", (2, 3)), ("randn", (2, 3)), ("randint", (0, 9, 4))):
        mine, theirs = getattr(backend, name)(*arguments), getattr(reference, name)(*arguments)
        np.testing.assert_array_equal(backend.to_numpy(mine), theirs)
    first = backend.to_numpy(backend.rand(4))
    assert (first != backend.to_numpy(backend.rand(4))).any()
    backend.set_seed(0)
    np.testing.assert_array_equal(backend.to_numpy(backend.rand(2, 3)), backends.NumpyBackend(seed=0).rand(2, 3))


def test_random_keys_differ_by_seed(backend):
    keys = [backend.to_numpy(backend.random_key(seed)) for seed in (0, 0, 1)]
    assert keys[0].dtype == np.int32
    assert keys[0].tolist() == keys[1].tolist() != keys[2].tolist()


@pytest.mark.parametrize("name", NAMES[1:])
def test_vjp(name):
    backend = getattr(backends, name)()
    params = {
        "x": backend.array([1.0, 2]),
        "y": backend.array([3.0, 4]),
        "unused": backend.ones(2),
        "n": backend.array([2]),
    }

    def function(p):
        return {"a": p["x"] * p["x"] * p["y"], "b": p["x"] + p["y"], "whole": p["n"] + 1}

    outputs, pullback = backend.vjp(function, params)
    np.testing.assert_allclose(backend.to_numpy(outputs["a"]), [3, 16])
    grads = {key: backend.to_numpy(g) for key, g in pullback({"a": backend.array([1.0, 10])}).items()}
    np.testing.assert_allclose(grads["x"], [6, 160])
    np.testing.assert_allclose(grads["y"], [1, 40])
    np.testing.assert_array_equal(grads["unused"], [0, 0])
    np.testing.assert_array_equal(grads["n"], [0])
    again = pullback({"a": backend.array([1.0, 0]), "b": backend.array([0.0, 1])})
    np.testing.assert_allclose(backend.to_numpy(again["x"]), [6, 1])
    slope = backend.grad(lambda p: (p["x"] * p["y"]).sum(), {"x": params["x"], "y": params["y"]})
    np.testing.assert_allclose(backend.to_numpy(slope["x"]), [3, 4])


def test_numpy_says_where_its_gradients_are():
    with pytest.raises(BackendError, match="compile a model and call `evaluate_gradients`"):
        backends.NumpyBackend().vjp(lambda p: p, {})


@pytest.mark.parametrize("name", ["NumpyBackend", "JaxBackend", "MlxBackend"])
def test_jit_keeps_values(name):
    backend = getattr(backends, name)()
    function = backend.jit(lambda x: x * 2 + 1)
    np.testing.assert_allclose(backend.to_numpy(function(backend.array([1.0, 2]))), [3, 5])


def test_jax_in_float64_leaves_the_process_in_32_bits():
    backend = backends.JaxBackend(dtype="float64")
    import jax

    x = backend.array([0.1])
    assert backend.dtype_of(x) is DType.float64
    result = backend.prepare(lambda v: v + 0.2)(x)
    np.testing.assert_allclose(backend.to_numpy(result), 0.1 + 0.2, rtol=1e-16)
    _, pullback = backend.vjp(lambda p: {"y": jax.numpy.exp(p["x"])}, {"x": x})
    np.testing.assert_allclose(backend.to_numpy(pullback({"y": x})["x"]), np.exp(0.1) * 0.1, rtol=1e-15)
    assert jax.numpy.ones(1).dtype == np.float32


@pytest.mark.parametrize("name", NAMES[1:])
def test_bfloat16(name):
    backend = getattr(backends, name)(dtype="bfloat16")
    made = backend.array([1.0, 2.5])
    assert backend.dtype_of(made) is DType.bfloat16
    assert backend.to_numpy(made).tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("NumpyBackend", {"dtype": "bfloat16"}, "NumPy has no bfloat16; use float32 or float16"),
        ("NumpyBackend", {"device": "gpu"}, "NumPy has no device 'gpu', only 'cpu'"),
        ("NumpyBackend", {"dtype": "int32"}, "dtype int32 must be a floating type such as float32"),
        ("TorchBackend", {"device": "cuda:77"}, "torch cannot use the device 'cuda:77'"),
        ("TorchBackend", {"device_mesh": (2,)}, "needs a process group: start with torchrun"),
        ("JaxBackend", {"device": "cpu:99"}, "JAX has no device 'cpu:99'; there are 'cpu:0'"),
        ("JaxBackend", {"device_mesh": (64,)}, "needs 64 devices, there are"),
        ("MlxBackend", {"device": "tpu"}, "MLX has no device 'tpu', only 'cpu' and 'gpu'"),
    ],
)
def test_what_a_backend_refuses(name, options, message):
    if name != "NumpyBackend":
        getattr(backends, name)()
    with pytest.raises(BackendError, match=message):
        getattr(backends, name)(**options)


def test_shards_need_a_mesh():
    with pytest.raises(BackendError, match="needs a TorchBackend with a device_mesh"):
        backends.TorchBackend().array([1.0], shard=(0,))


def test_a_missing_framework_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx", None)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    monkeypatch.delitem(sys.modules, "mithril.backends.mlx.backend", raising=False)
    with pytest.raises(
        BackendError, match=r"MlxBackend cannot be used here: .*mlx.*Install it with: pip install 'mlx\[cpu\]'"
    ):
        _ = backends.MlxBackend


def test_importing_the_backends_loads_no_framework():
    script = "import mithril.backends, sys; print(*{'torch', 'jax', 'mlx', 'numpy'} & {*sys.modules})"
    assert run_script(script) == []
