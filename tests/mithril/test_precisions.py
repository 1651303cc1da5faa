"""Small models of each kind in every floating type on every backend: torch's values and gradients in that type, or the
type is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

import mithril as ml
from mithril.errors import BackendError

NEAR = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 4e-2, "float16": 5e-3}
"""Largest difference allowed, of values around 1: some steps of the type."""
REFUSED = {
    ("NumpyBackend", "bfloat16"): "NumPy has no bfloat16; use float32 or float16",
    ("MlxBackend", "float64"): "MLX has no convolutions in float64, and rounds much of it to float32; use float32",
}


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, groups=2)
        )
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, x):
        return self.up(self.body(x))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x):
        return self.block(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.RMSNorm(16), nn.Linear(16, 3))

    def forward(self, index):
        return self.mlp(self.embed(index)).softmax(-1)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.group, self.layer = nn.GroupNorm(2, 4), nn.LayerNorm([6, 6])

    def forward(self, x):
        return self.layer(self.group(x)).std(-1) + x.logsumexp(-1)


CASES = {
    Convolutions: lambda: torch.randn(2, 3, 8, 8),
    Attention: lambda: torch.randn(2, 5, 16),
    Recurrent: lambda: torch.randn(2, 4, 6),
    Words: lambda: torch.randint(11, (2, 5)),
    Norms: lambda: torch.randn(2, 4, 6, 6),
}


CELLS = [
    pytest.param(kind, dtype, backend, id=f"{kind.__name__}-{dtype}-{backend}",
                 marks=pytest.mark.slow if backend == "JaxBackend" and dtype in ("float64", "float16") else ())
    for kind in CASES for dtype in NEAR for backend in ("TorchBackend", "NumpyBackend", "JaxBackend", "MlxBackend")
]  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype", "backend"), CELLS)
def test_values_and_gradients(kind, dtype, backend, needed):
    for name in ("jax", "mlx"):
        needed(name)
    if (backend, dtype) in REFUSED:
        with pytest.raises(BackendError, match=REFUSED[backend, dtype]):
            getattr(ml, backend)(dtype=dtype)
        return
    torch.manual_seed(0)
    module, given = kind().eval().to(getattr(torch, dtype)), CASES[kind]()
    given = given.to(module_dtype(module)) if given.is_floating_point() else given
    wanted = module(given)
    seed = torch.randn_like(wanted)
    wanted.backward(seed)
    tool = getattr(ml, backend)(dtype=dtype)
    model, params = ml.from_torch(module, (given,))
    compiled = ml.compile(model, tool, jit=False)
    data = {next(iter(compiled.data_keys)): tool.array(plain(given))}
    ends = {next(iter(compiled.output_keys)): tool.array(plain(seed))}
    outputs, slopes = compiled.evaluate_all(params, data, ends)[:2]
    assert str(tool.dtype_of(next(iter(outputs.values())))) == dtype
    close(tool, next(iter(outputs.values())), wanted, NEAR[dtype])
    trained = {key.replace(".", "_"): p.grad for key, p in module.named_parameters()}
    assert trained.keys() <= {key.replace(".", "_") for key in slopes}
    for key, found in slopes.items():
        close(tool, found, trained[key.replace(".", "_")], 10 * NEAR[dtype])


def module_dtype(module):
    return next(module.parameters()).dtype


def plain(tensor):
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def close(tool, found, wanted, near):
    wanted = wanted.detach().double().numpy()
    apart = abs(tool.to_numpy(found).astype(np.float64) - wanted).max() / max(1.0, abs(wanted).max())
    assert apart <= near, apart
