"""Exported models in ONNX Runtime: what `Predictor` answers with torch, without torch."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.deploy import OnnxModel, export_onnx
from nexus.deploy.onnx_prompts import bilinear, prompt_inputs
from nexus.predict import Predictor
from nexus.proofs.parity import randomize
from tests.small_models import small

pytestmark = [pytest.mark.needs("onnxruntime"), pytest.mark.needs("onnxscript")]
PHOTOS = [np.random.default_rng(seed).integers(0, 256, (70 + 9 * seed, 90, 3), dtype=np.uint8) for seed in range(3)]


def exported(name, path, *, open_size=False, **preprocessing):
    model, size = small(name)
    randomize(model)
    model.eval()
    model.preprocessing = Preprocessing(image_size=size, **preprocessing)
    export_onnx(model, path, image_size=None if open_size else size, open_size=open_size)
    return model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    model = exported("resnet18", folder / "model.onnx")
    return model, folder / "model.onnx"


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam") / "sam"
    model, size = small("sam_vit_base")
    model.preprocessing = Preprocessing(image_size=size, resize="within", resize_size=max(size), rounding="sam")
    export_onnx(model, folder, image_size=size)
    return model, folder


def same(found, wanted):
    """Whether plain values agree, numbers to rounding."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        return all(same(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(same(*pair) for pair in zip(found, wanted))
    return found == wanted if isinstance(wanted, str | int) else found == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_a_classifier_answers_as_the_predictor(classifier, tmp_path):
    from PIL import Image

    model, path = classifier
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, photo in zip(files, PHOTOS):
        Image.fromarray(photo).save(file)
    wanted = [one.to_json() for one in Predictor(model)(files)]
    assert same(OnnxModel(path)(files, batch_size=2), wanted)
    assert same(OnnxModel(path)(files[1]), wanted[1:2])


@pytest.mark.parametrize("name", ["yolov10n", pytest.param("detr_resnet50", marks=pytest.mark.slow)])
def test_a_detector_answers_as_the_predictor(name, tmp_path):
    """A file of open size pads a batch as the predictor does, which a DETR sees."""
    open_size = name.startswith("detr")
    model = exported(name, tmp_path / "model.onnx", open_size=open_size, resize="within", resize_size=64)
    found, wanted = OnnxModel(tmp_path / "model.onnx")(PHOTOS), [one.to_json() for one in Predictor(model)(PHOTOS)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"])
        likely = [one["score"] for one in theirs["objects"]]
        assert [one["score"] for one in ours["objects"]] == pytest.approx(likely, rel=1e-3)
        for one in ours["objects"][:20]:
            near = [other for other in theirs["objects"] if other["label"] == one["label"]]
            assert any(same(one["box"], other["box"]) for other in near)


PROMPTS = {
    "a point": {"points": [[40, 30]]},
    "points": {"points": [[40, 30], [10, 60]], "labels": [1, 0]},
    "a box": {"boxes": [10, 12, 60, 50]},
    "points and a box": {"points": [[40, 30], [10, 60]], "labels": [1, 0], "boxes": [10, 12, 60, 50]},
    "several points": {"points": [[[40, 30]], [[5, 6]], [[60, 40]]]},
    "several boxes": {"boxes": [[10, 12, 60, 50], [1, 2, 30, 40]]},
    "a point that is none": {"points": [[40, 30], [0, 0]], "labels": [1, -1]},
}
MASKED = {
    "a mask": {},
    "a mask and a point": {"points": [[40, 30]]},
    "a mask and a box": {"boxes": [10, 12, 60, 50]},
    "all": {"points": [[40, 30]], "labels": [0], "boxes": [10, 12, 60, 50]},
}


@pytest.mark.parametrize("kind", [*PROMPTS, *MASKED])
def test_every_kind_of_prompt_is_torchs(kind, sam):
    model, folder = sam
    inputs = model.example_inputs()
    with torch.no_grad():
        embedding = model.image_encoder(inputs["images"])[:1]
    low = inputs["mask_prompts"].shape[-2:]
    prompt = {**PROMPTS[kind]} if kind in PROMPTS else {**MASKED[kind], "masks": inputs["mask_prompts"][0, 0].numpy()}
    decode = OnnxModel(folder).stages["mask_decoder"]
    found = decode(embeddings=embedding.numpy(), **prompt_inputs(prompt, tuple(low)))
    for several, chosen in ((True, slice(1, None)), (False, slice(0, 1))):
        with torch.no_grad():
            wanted = model.predict(image_embedding=embedding, prompt=prompt, multimask=several)
        for name in ("low_res_masks", "iou_scores"):
            scale = float(wanted[name].abs().max())
            np.testing.assert_allclose(found[name][:, :, chosen], wanted[name].numpy(), atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_are_those_of_the_predictor(kind, sam):
    model, folder = sam
    for photo in PHOTOS:
        (found,) = OnnxModel(folder)(photo, prompts=PROMPTS[kind])
        (wanted,) = Predictor(model)(photo, prompts=PROMPTS[kind])
        assert len(found["objects"]) == len(wanted.segments)
        for one, other in zip(found["objects"], wanted.segments):
            assert one["mask"].shape == photo.shape[:2]
            assert (one["mask"] != other.mask.decode()).mean() < 1e-3
            assert one["score"] == pytest.approx(other.score, rel=1e-3)


def test_bilinear_is_torchs():
    values = np.random.default_rng(0).normal(size=(13, 9)).astype(np.float32)
    for size in ((26, 40), (13, 5), (7, 9), (50, 3)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")[0, 0]
        np.testing.assert_allclose(bilinear(values, size), wanted.numpy(), atol=2e-6)


def test_no_torch_is_imported(classifier, sam, tmp_path):
    np.save(tmp_path / "photo.npy", PHOTOS[0])
    code = (
        "import sys, json; from nexus.deploy import OnnxModel;"
        f"print(json.dumps(OnnxModel({str(classifier[1])!r})({str(tmp_path / 'photo.npy')!r})));"
        f"OnnxModel({str(sam[1])!r})({str(tmp_path / 'photo.npy')!r}, prompts={{'points': [[40, 30]]}});"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = Predictor(classifier[0])(tmp_path / "photo.npy")[0].to_json()
    assert same(json.loads(done.stdout), [wanted])


def test_mistakes_are_named(classifier, sam, tmp_path):
    path, images = classifier[1], np.zeros((1, 3, 64, 64), np.float32)
    model = OnnxModel(path)
    with pytest.raises(ValueError, match=r"takes no 'image'\. Did you mean 'images'\?"):
        model.run(image=images)
    with pytest.raises(ValueError, match="takes images; images is not given"):
        model.run()
    with pytest.raises(ValueError, match=r"images has the shape \(1, 3, 32, 64\); .* takes \(batch, 3, 64, 64\)"):
        model.run(images=images[:, :, :32])
    with pytest.raises(ValueError, match="classification, which takes no prompts"):
        model(PHOTOS[0], prompts={"points": [[1, 2]]})
    with pytest.raises(ValueError, match="There is no file"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"broken\.onnx cannot be opened by ONNX Runtime"):
        OnnxModel(tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match=r"holds no \.onnx files"):
        OnnxModel(tmp_path / "..")
    with pytest.raises(ValueError, match=r"lacks the stage 'image_encoder' of image_encoder, mask_decoder, enlarger"):
        OnnxModel(sam[1] / "2_mask_decoder.onnx")
    asked = OnnxModel(sam[1])
    for prompts, told in (
        (None, "needs some, such as"),
        ({}, "There is no prompt: give points"),
        ({"labels": [1]}, "There is no prompt: give points"),
        ({"point": [[1, 2]]}, "There is no prompt 'point'. Did you mean 'points'?"),
        ({"points": [[1, 2]], "labels": [1, 0]}, "each point has one"),
        ({"boxes": [1, 2, 3]}, "boxes have the shape (3,); a point is x, y and a box x1, y1, x2, y2."),
        ({"points": [[[1, 2]]] * 2, "boxes": [1, 2, 3, 4]}, "Numbers of prompts do not agree: points 2, boxes 1"),
        ({"masks": np.zeros((3, 3))}, "of an earlier answer"),
        ({"labels": 3, "points": [[1, 2]]}, "neither one prompt nor several"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            asked(PHOTOS[0], prompts=prompts)


def test_files_of_others_run_and_say_what_they_lack(classifier, tmp_path, needed):
    onnx = needed("onnx")
    file = onnx.load(classifier[1])
    del file.metadata_props[:]
    onnx.save(file, tmp_path / "bare.onnx")
    bare = OnnxModel(tmp_path / "bare.onnx")
    images = np.zeros((2, 3, 64, 64), np.float32)
    assert np.array_equal(bare.run(images=images)["logits"], OnnxModel(classifier[1]).run(images=images)["logits"])
    with pytest.raises(ValueError, match=r"does not say how an image becomes its input; pass preprocessing="):
        bare(PHOTOS[0])
    for key, value in (("class_names", "[1"), ("preprocessing", '{"image_size": [1, 2], "levle": 3}')):
        file.metadata_props.add(key=key, value=value)
        onnx.save(file, tmp_path / "bad.onnx")
        with pytest.raises(ValueError, match=r"bad\.onnx: class_names|levle"):
            OnnxModel(tmp_path / "bad.onnx")
        del file.metadata_props[:]


def test_the_command_answers_as_with_torch(classifier, sam, tmp_path):
    from typer.testing import CliRunner

    from nexus.cli.commands import app

    np.save(tmp_path / "photo.npy", PHOTOS[0])
    photo = str(tmp_path / "photo.npy")
    run = CliRunner().invoke(app, ["predict", photo, "--model", str(classifier[1]), "--json", "--top", "3"])
    assert run.exit_code == 0, run.output
    assert same(json.loads(run.stdout), [Predictor(classifier[0])(photo)[0].to_json(3)])
    shown = CliRunner().invoke(app, ["predict", photo, "--model", str(classifier[1]), "--top", "1"]).output
    assert "rank" in shown
    assert photo[-9:] in shown.replace("\n", "")
    for words, told in (
        ([str(classifier[1]), "--draw", "drawn"], "--draw is not for exported models"),
        ([str(classifier[1]), "--min-score", "0.5"], "--min-score is for detectors"),
        ([str(sam[1])], "answers prompts; from Python"),
    ):
        run = CliRunner().invoke(app, ["predict", photo, "--model", *words])
        assert run.exit_code == 2
        assert told in run.output


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small classifier of five classes as a file."""
    model, size = small("resnet18")
    model.preprocessing, model.class_names = Preprocessing(image_size=size, resize="squash"), tuple("abcde")
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    export_onnx(model, path, image_size=size)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("class_names", "3", "its class_names is 3; it is a list of names. Export the model again"),
        ("class_names", '{"a": 1}', "its class_names is {'a': 1}; it is a list of names"),
        ("class_names", '["a"]', "names 1 classes and answers with class"),
        ("multiple_of", "null", "its multiple_of is None; it is a whole number above 0"),
        ("image_size", "3", "its image_size is 3; it is 2 whole numbers above 0"),
        ("image_size", '["a", "b"]', "it is 2 whole numbers above 0"),
        ("stages", '[["a"]]', "it is a list of names"),
        ("config", "[1]", "its config is .1.; it is a mapping"),
        ("preprocessing", "7", "its preprocessing is 7; it is a mapping"),
    ],
)
def test_odd_facts_of_a_file_are_named(plain, tmp_path, needed, key, value, message):
    onnx = needed("onnx")
    file = onnx.load(plain)
    next(one for one in file.metadata_props if one.key == key).value = value
    onnx.save(file, tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match=message):
        OnnxModel(tmp_path / "odd.onnx")(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
