"""Files for ONNX Runtime: of every kind of model, at several sizes of inputs, equal to torch."""

import json
import sys

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.deploy import ExportError, OnnxModel, export_onnx
from nexus.models.registry import create_model
from nexus.proofs.parity import randomize
from tests.small_models import EVERY_KIND, small

pytestmark = [pytest.mark.needs("onnxruntime"), pytest.mark.needs("onnxscript")]

NO_GRAPH = [name for name in EVERY_KIND if "rcnn" in name or "yolo_world" in name]
LATER = ("internvl2_5_1b", "grounding_dino_tiny")  # without an open batch: tiles, images and texts go together
QUICK = ("resnet18", "vit_tiny_patch16_224", "clip_vit_base_patch32_224", "yolov10n")


def made(name: str) -> tuple[NexusModule, tuple[int, int]]:
    model, size = small(name)
    randomize(model)
    return model.eval(), size


def slow_unless_quick(names) -> list:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_unless_quick(name for name in EVERY_KIND if name not in (*NO_GRAPH, *LATER)))
def test_every_kind_as_one_file(name, tmp_path):
    model, size = made(name)
    (stage,) = export_onnx(model, tmp_path / "model.onnx", image_size=size)
    assert stage.inputs["images"] == ("batch", 3, *size)
    assert [case["batch"] for case in stage.cases] == [1, 2, 3]
    assert 0 < max(stage.differences.values()) < 1e-4
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("name", slow_unless_quick(["resnet18", "vit_tiny_patch16_224", "siglip_base_patch16_224"]))
def test_open_size(name, tmp_path):
    """Positions are resampled in the graph: it is right at sizes that it was not made from."""
    model, size = made(name)
    (stage,) = export_onnx(model, tmp_path / "model.onnx", image_size=size, open_size=True)
    assert stage.inputs["images"] == ("batch", 3, "height", "width")
    assert len({(case["height"], case["width"]) for case in stage.cases}) == 3
    assert max(stage.differences.values()) < 1e-4


@pytest.mark.parametrize(
    "name", ["mixer_s32_224", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)]
)
def test_a_size_that_cannot_be_open_is_refused_and_leaves_nothing(name, tmp_path):
    model, size = made(name)
    kind = type(model).__name__
    with pytest.raises(ExportError, match=rf"\({kind} may need a fixed image size: leave it so\)"):
        export_onnx(model, tmp_path / "new" / "model.onnx", image_size=size, open_size=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_has_a_file_for_each_stage(tmp_path):
    model, size = made("clip_vit_base_patch32_224")
    stages = export_onnx(model, tmp_path / "clip", image_size=size)
    assert [stage.name for stage in stages] == ["image_encoder", "text_encoder", "head"]
    files = [tmp_path / "clip" / f"{place}_{stage.name}.onnx" for place, stage in enumerate(stages, 1)]
    assert [stage.path for stage in stages] == files == sorted((tmp_path / "clip").iterdir())
    assert stages[2].inputs == {"embeddings": ("batch", 12), "text_embeddings": ("texts", 12)}


@pytest.mark.parametrize("name", NO_GRAPH)
def test_what_depends_on_the_values_is_refused(name, tmp_path):
    model, size = made(name)
    with pytest.raises(
        ExportError, match=r"its stage '(proposals|objects)' gives depends on the values.*RT-DETR or YOLOv10 can"
    ):
        export_onnx(model, tmp_path / "model.onnx", image_size=size)
    assert not list(tmp_path.iterdir())


def test_metadata_tells_what_a_runner_needs(tmp_path, needed):
    onnx = needed("onnx")
    model, size = made("resnet18")
    model.class_names = ("cat", "Hund", "猫")
    model.preprocessing = Preprocessing(image_size=size, resize="squash")
    export_onnx(model, tmp_path / "model.onnx")
    file = onnx.load(tmp_path / "model.onnx")
    facts = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(facts["class_names"]) == ["cat", "Hund", "猫"]
    assert Preprocessing.from_mapping(json.loads(facts["preprocessing"])) == model.preprocessing
    assert (facts["task"], facts["stage"], json.loads(facts["stages"])) == ("classification", "model", ["model"])
    assert [one.version for one in file.opset_import if not one.domain] == [18]
    assert (file.producer_name, json.loads(facts["image_size"])) == ("nexus", list(size))


class Drifting(NexusModule):
    """Gives something else while it is exported than afterwards."""

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images):
        shift = 1e-2 if torch.compiler.is_exporting() else 0
        return {"map": self.layer(images).clamp(-1, 1) + shift}


def test_a_difference_is_an_error_with_its_size(tmp_path):
    with pytest.raises(
        ExportError, match=r"map of 'model' differs from torch by 1\.0e-02 .* at batch 1; allowed are 0"
    ):
        export_onnx(Drifting({}).eval(), tmp_path / "model.onnx", image_size=(8, 8))
    assert not list(tmp_path.iterdir())


def test_what_is_no_path_or_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.pt'; give NAME\.onnx for one file, or a folder"):
        export_onnx(Drifting({}), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"The model is in torch\.bfloat16; export model\.float\(\)"):
        export_onnx(Drifting({}).bfloat16(), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="A Linear does not name its stages"):
        export_onnx(nn.Linear(1, 1), tmp_path / "model.onnx")


def test_the_command(tmp_path):
    model = create_model("resnet18", num_classes=2, hidden_dim=8)
    folder, file = model.save_pretrained(tmp_path / "saved"), tmp_path / "model.onnx"
    run = CliRunner().invoke(app, ["export", str(folder), "-o", str(file), "--image-size", "64x96"])
    assert run.exit_code == 0, run.output
    assert "1 file, run in ONNX Runtime at 3 sizes of the inputs: the largest difference from torch is" in run.output
    run = CliRunner().invoke(app, ["export", str(folder), "-o", str(file), "--image-size", "64x96", "--json"])
    (told,) = json.loads(run.stdout)
    assert told["inputs"] == {"images": ["batch", 3, 64, 96]}
    assert told["compared"] == [{"batch": 1}, {"batch": 2}, {"batch": 3}]
    for wrong in ("64x", "0", "a", "1x2x3"):
        run = CliRunner().invoke(app, ["export", str(folder), "-o", str(file), "--image-size", wrong])
        assert run.exit_code == 2
        assert f"--image-size is '{wrong}'; give a side such as 224, or height and width such as 480x640." in run.output
    run = CliRunner().invoke(app, ["export", str(folder), "-o", str(file), "--image-size", "64", "--open-size"])
    assert "--image-size fixes what --open-size leaves open" in run.output


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_what_brings_it(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    model, size = made("resnet18")
    with pytest.raises(ImportError, match=rf"ONNX files need {package}: pip install 'nexus-vision\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx", image_size=size)
    (tmp_path / "mine.onnx").write_bytes(b"x")
    if package == "onnxruntime":
        with pytest.raises(ImportError, match="ONNX files need onnxruntime"):
            OnnxModel(tmp_path / "mine.onnx")
