"""The examples run as scripts, and what they print is what they say."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRINTED = {
    "mithril_classical_models": ["-log likelihood 37.4 -> 4.3", "accuracy on new points 99%", "t-SNE: divergence 0.2"],
    "mithril_custom_models": ["the cell is the ready-made one: True", "as torch does: True"],
    "mithril_sine_forecast": ["NumPy", "torch.optim", "optax"],
    "mithril_sharding": ["{'data': 2, 'model': 4}", "the same weights: True"],
    "mithril_vision_models": ["two tasks: {'age': (2, 1), 'gender': (2, 1), 'pred_gender': (2, 1)}", "def evaluate"],
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("mithril_*.py")} == PRINTED.keys()


def test_sharding_in_a_process_of_its_own(needed):
    """JAX simulates eight devices only from its start."""
    needed("jax")
    script = EXAMPLES / "mithril_sharding.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for text in PRINTED["mithril_sharding"]:
        assert text in done.stdout


@pytest.mark.parametrize("name", sorted(PRINTED.keys() - {"mithril_sharding"}))
def test_example(needed, name, capsys):
    source = (EXAMPLES / f"{name}.py").read_text()
    for framework in re.findall(r"^(?:import|from) (optax|torch|sklearn)\b", source, re.MULTILINE):
        needed(framework)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for text in PRINTED[name]:
        assert text in printed
    if name == "mithril_sine_forecast":
        losses = re.findall(r"loss (\S+) -> (\S+), error on new sines (\S+)", printed)
        assert len(losses) == 3
        assert max(float(last) for _, last, _ in losses) < 0.03
        assert max(float(error) for *_, error in losses) < 0.04
        assert len({first for first, *_ in losses}) == 1
