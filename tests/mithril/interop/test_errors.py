"""What from_torch refuses, with the whole message: the submodule, the line of its source, and what to change."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mithril as ml


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1


class Numbers(nn.Module):
    def forward(self, x):
        return x * int(x.sum().item())


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.T)


class Adds(nn.Module):
    def forward(self, x):
        return x.add_(1)


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x + self.count


class Picks(nn.Module):
    def forward(self, x):
        return x[x > 0]


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Places(nn.Module):
    def forward(self, x):
        return F.adaptive_max_pool2d(x, 2, return_indices=True)


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def error_of(module, *args):
    with pytest.raises(ml.MithrilError) as caught:
        ml.from_torch(module, args)
    return str(caught.value)


READ = "so that statistics are only read."


@pytest.mark.parametrize(
    ("module", "shape", "sentence", "line", "advice"),
    [
        (Branch(), (3,), "The module's control flow depends on the values of its data.", "if x.sum() > 0:",
         "Compute both and choose with torch.where; or decide by a shape, an attribute or a number given to forward."),
        (Numbers(), (3,), "The module's control flow depends on the values of its data.", "return x * int(x.sum().item())",
         "Compute both and choose with torch.where"),
        (Spectrum(), (3, 3), "The module uses operators that have no mapping:\n  aten.linalg_eigvalsh.default",
         "return torch.linalg.eigvalsh(x @ x.T)",
         "Write these lines with other operators, or map them: see mithril.interop.mapping.maps."),
        (Adds(), (3,), "The module changes its input 'x' in place, which no other framework can do.", "return x.add_(1)",
         "Work on a copy: x = x.clone(), or use the operator without the underscore."),
        (Counter(), (3,), "The module changes its buffer 'inner.count' while it runs.", "self.count += 1",
         "What changes then too must be an input and an output of forward."),
        (nn.BatchNorm1d(3), (2, 3), "The module changes its buffer 'inner.running_mean' while it runs.",
         "return self.inner(x)", f"Call module.eval() before from_torch, {READ}"),
        (nn.InstanceNorm1d(3, track_running_stats=True), (2, 3, 4),
         "The module changes its instance-norm statistics while it runs.", "return self.inner(x)",
         f"Call module.eval() before from_torch, {READ}"),
        (Picks(), (3,), "Picking by a mask gives a shape that depends on the values of the data.", "return x[x > 0]",
         "Keep the shape: torch.where(mask, x, 0)."),
        (Noise(), (3,), "The module draws random numbers (aten.randn_like.default), which no other framework repeats.",
         "return x + torch.randn_like(x)", "Draw them outside and make them an input of forward."),
        (Places(), (1, 1, 4, 4), "The places of the maxima of an adaptive pooling have no counterpart.",
         "return F.adaptive_max_pool2d(x, 2, return_indices=True)", "Pool with max_pool2d(return_indices=True)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_message(module, shape, sentence, line, advice, capfd):
    text = error_of(Outer(module), torch.randn(shape))
    assert text.startswith(sentence)
    assert f"in inner ({type(module).__name__})" in text
    assert "test_errors.py:" in text
    assert f": {line}\n" in text
    assert advice in text.splitlines()[-1]
    assert capfd.readouterr() == ("", "")


def test_a_size_that_the_module_fixes():
    class Fixes(nn.Module):
        def forward(self, x):
            return x.reshape(len(x), -1)

    with pytest.raises(ml.MithrilError, match=r"A size that dynamic_shapes leaves open is fixed by the module\."):
        ml.from_torch(Fixes(), torch.ones(3, 2, 2), {"x": {0: "batch"}})


def test_wrong_arguments():
    assert "from_torch needs a torch.nn.Module, not function." in error_of(lambda x: x, torch.ones(1))
    assert "The example inputs do not fit the module's forward." in error_of(Branch(), torch.ones(1), torch.ones(1))


def test_keys_that_collide():
    class Collides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.a_weight = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.a(x) * self.a_weight

    assert "'a_weight' and 'a.weight'" in error_of(Collides(), torch.ones(1, 2))
