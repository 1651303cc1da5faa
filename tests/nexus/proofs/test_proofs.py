"""`verify`: it finds what is wrong, and says what it could not compare."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.deploy import places as places_module
from nexus.deploy.places import PLACES
from nexus.models.registry import list_models, model_info
from nexus.proofs import FAMILIES, Verdict, family_of, verify
from nexus.proofs.libraries import OracleMissing, import_library
from nexus.proofs.page import page, summary
from nexus.proofs.parity import relative_difference
from nexus.proofs.vit import MIXER, timm_mixer

PAGE = Path(__file__).resolve().parents[3] / "docs" / "verified-models.md"
verify_module = importlib.import_module("nexus.proofs.verify")  # its name is that of its function


@pytest.fixture
def family(monkeypatch):
    """A function that makes MLP-Mixer be proven by another family."""

    def use(**changes):
        monkeypatch.setattr(verify_module, "family_of", lambda name: dataclasses.replace(MIXER, **changes))

    return use


def test_a_right_model_is_proven(timm):
    (verdict,) = verify("mixer_b16_224")
    (parity,) = verdict.parities
    assert verdict.ok
    assert summary(verdict) == "proven"
    assert parity.library == f"timm {timm.__version__}"
    assert parity.values < 1e-10
    assert parity.gradients < 1e-10
    assert (verdict.parameters, verdict.published) == (59_880_472, 59_880_472)
    assert (verdict.compiles, verdict.exports, verdict.other_size) == (True, True, None)
    assert verdict.formats == ("nexus", *(f.name for f in model_info("mixer_b16_224").model_class.formats))


def test_a_wrong_model_is_found(timm, family):
    """A GELU by its tanh form differs in the fourth digit."""
    family(tiny={**MIXER.tiny, "activation": "gelu_tanh"})
    (verdict,) = verify("mixer_b16_224")
    assert not verdict.ok
    assert verdict.parities[0].ok is False
    assert "values differ by" in verdict.problems[0]
    assert "gradients differ by" in verdict.problems[0]


def test_wrong_gradients_alone_are_found(timm, family):
    class Detached(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            values = self.inner(images)
            return values.detach() + 2 * (values - values.detach())

    oracle = dataclasses.replace(MIXER.oracles[0], run=lambda model, images: Detached(model)(images))
    family(oracles=(oracle,))
    (verdict,) = verify("mixer_b16_224")
    assert verdict.problems[0].startswith(f"timm {timm.__version__}: gradients differ by")


def test_weights_that_do_not_fit_are_one_line(timm, family):
    oracle = dataclasses.replace(MIXER.oracles[0], build=lambda timm, config: timm_mixer(timm, config, num_blocks=4))
    family(oracles=(oracle,))
    (verdict,) = verify("mixer_b16_224")
    assert verdict.problems[0].startswith(f"timm {timm.__version__}: RuntimeError: Error(s) in loading state_dict")


def test_a_model_that_fits_no_graph_is_found(family):
    family(oracles=(), read=lambda model, images: model(images)["logits" if images.sum() > 0 else "embeddings"])
    (verdict,) = verify("mixer_b16_224")
    assert (verdict.compiles, verdict.exports) == (False, False)
    assert [problem.split(":")[0] for problem in verdict.problems] == ["torch.compile", "torch.export"]


def test_a_missing_library_is_named_and_is_no_failure(monkeypatch):
    def missing(name):
        raise OracleMissing(f"{name} cannot be imported (No module named {name!r}): pip install {name}")

    monkeypatch.setattr(verify_module, "import_library", missing)
    (verdict,) = verify("mixer_b16_224")
    assert verdict.ok
    assert summary(verdict) == "not compared: timm cannot be imported (No module named 'timm'): pip install timm"
    assert "nothing: no reference library is installed" in page([verdict])


def test_a_wrong_count_is_found(monkeypatch, family):
    family(oracles=())
    card = dataclasses.replace(model_info("mixer_b16_224"), num_parameters=7)
    monkeypatch.setattr(verify_module, "model_info", lambda name: card)
    (verdict,) = verify("mixer_b16_224")
    assert verdict.problems == ("it has 59,880,472 parameters, and 7 are published",)


def test_libraries_that_are_not_there_say_how_to_get_them():
    with pytest.raises(OracleMissing, match=r"No module named 'no_such_library'.*pip install no_such_library"):
        import_library("no_such_library")


def test_every_family_proves_something_and_no_variant_has_two():
    names = list_models()
    for family in FAMILIES:
        assert any(family_of(name) is family for name in names), family.variants
    for name in names:
        proving = [f for f in FAMILIES if any(Path(name).match(pattern) for pattern in f.variants)]
        assert len(proving) <= 1, name


def test_differences_are_relative_and_never_hide():
    ones = torch.ones(3)
    assert relative_difference(ones * 1e3, ones * 1001) == pytest.approx(1 / 1001)
    assert relative_difference(ones, ones * 1.5) == pytest.approx(1 / 3)
    assert relative_difference(ones * 0.1, ones * 0.2) == pytest.approx(0.1)
    assert relative_difference(None, ones) == relative_difference(ones, None) == float("inf")
    assert relative_difference(ones, torch.ones(4)) == float("inf")
    assert relative_difference(ones * float("nan"), ones) == float("inf")


def test_the_command_prints_what_it_proved_and_fails_with_the_proof(family, tmp_path, monkeypatch):
    monkeypatch.setattr("nexus.deploy.places.PLACES", {"here": lambda model, images: None})
    family(oracles=())
    result = CliRunner().invoke(
        app, ["verify", "mixer_b16*", "--json", "--everywhere", "--page", str(tmp_path / "docs" / "page.md")]
    )
    assert result.exit_code == 0
    (verdict,) = json.loads(result.stdout)
    assert (verdict["name"], verdict["parameters"], verdict["ok"]) == ("mixer_b16_224", 59_880_472, True)
    written = (tmp_path / "docs" / "page.md").read_text()
    assert "| `mixer_b16_224` | 59,880,472 | equal |" in written
    assert "| yes | yes | here | counted; no oracle is declared |" in written
    family(oracles=(), read=lambda model, images: model(images)["logits"] * float("nan"), other_size=(32, 32))
    result = CliRunner().invoke(app, ["verify", "mixer_b16*"])
    assert result.exit_code == 1
    assert "FAILED: another image size: AssertionError: the outputs are not finite" in result.stderr
    result = CliRunner().invoke(app, ["verify", "mixre*"])
    assert result.exit_code == 2
    assert "No model matches 'mixre*'" in result.stderr


def test_where_a_model_does_not_run_is_told_and_is_no_failure(family):
    def refuse(model, images):
        raise ValueError("no such operator: mystery")

    family(oracles=())
    (verdict,) = verify("mixer_b16_224", {"here": lambda model, images: None, "there": refuse})
    assert verdict.ok
    assert verdict.runs_on == {"here": "yes", "there": "ValueError: no such operator: mystery"}
    assert "Not on there: ValueError: no such operator: mystery" in page([verdict])


@pytest.mark.parametrize("place", ["onnx", "numpy"])
def test_places_find_other_numbers(needed, place, monkeypatch):
    """A module that torch runs with the other sign afterwards is not equal any more."""
    if place == "onnx":
        needed("onnxruntime")
        needed("onnxscript")

    class Turned(torch.nn.Module):
        sign = 1.0

        def forward(self, images):
            return images.mean((2, 3)) * self.sign

    model, images = Turned().eval(), torch.randn(2, 3, 8, 8)
    PLACES[place](model, images)
    compare = places_module._compare

    def later(found, module, given):
        module.sign = -1.0
        compare(found, module, given)

    monkeypatch.setattr(places_module, "_compare", later)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        PLACES[place](model, images)


def test_every_variant_is_compared_with_something():
    for name in list_models():
        family = family_of(name)
        assert family is not None, f"{name} has no Family in nexus/proofs/table.py"
        assert family.oracles or family.elsewhere, name


def unproven(name):
    """The verdict of a variant of which nothing was run."""
    card = model_info(name)
    formats = ("nexus", *(format.name for format in card.model_class.formats))
    known = (card.name, card.model_class.__name__, card.num_parameters, card.num_parameters)
    return Verdict(*known, (), formats, None, None, None, "", {}, ())


def structure(text):
    """What of a page does not depend on the machine: the text before the tables, headings, names and counts."""
    lines = [line for line in text.splitlines() if not line.startswith(("Compared with", "Not on"))]
    cells = [" | ".join(line.split(" | ")[:3]) if line.startswith("| `") else line for line in lines]
    return [cell for cell in cells if cell]


def test_the_page_of_the_repository_is_the_generators():
    """Write it anew with `nexus verify --page docs/verified-models.md`."""
    text = PAGE.read_text(encoding="utf-8")
    assert structure(text) == structure(page([unproven(name) for name in list_models()]))
    assert not [line for line in text.splitlines() if "FAILED" in line or "no oracle" in line or "not compared" in line]
