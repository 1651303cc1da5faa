"""What somebody who knows other libraries types on the first day, and what they are told."""

import functools
import http.server
import json
import subprocess
import sys
import threading
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nexus import Predictor, create_model, list_models
from nexus.cli import main
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data import ImageError
from nexus.layers.images import check_images
from nexus.models.cv import ResNet
from nexus.predict import write_predictions
from nexus.training import load_recipe


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def mistake(monkeypatch, capsys):
    """Runs the command as the installed script does, and returns what stands on standard error."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["nexus", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """An untrained DETR with ten queries, so that it always gives ten objects."""
    torch.manual_seed(0)
    changes = {"num_layers": (1, 1), "hidden_dim": 16, "num_heads": 2, "num_queries": 10, "num_classes": 3}
    model = create_model("detr_resnet50", backbone="resnet18", **changes)
    model.preprocessing = Preprocessing(image_size=(64, 64), resize="squash")
    model.class_names = ("a", "b", "c")
    return model.save_pretrained(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    model = create_model("resnet18", num_classes=2, num_layers=(1, 1, 1, 1), hidden_dim=8)
    model.preprocessing = Preprocessing(image_size=(32, 32))
    return model.save_pretrained(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with one photo, and one text that calls itself a photo."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "text.jpg").write_text("hello")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(photos):
    handler = functools.partial(Quiet, directory=str(photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_version_and_short_help():
    from nexus import __version__

    assert run("--version").stdout == f"nexus {__version__}\n"
    assert run("predict", "-h").stdout == run("predict", "--help").stdout


def test_an_option_that_other_trainers_have_is_told_as_a_change(mistake):
    assert "Changes are written without dashes, such as training.epochs=3." in mistake(
        "train", "digits/vit_tiny", "--epochs", 3
    )


def test_models_are_found_by_a_part_of_their_name(mistake):
    assert "No model matches 'resnet'. Try '*resnet*';" in mistake("models", "resnet")
    assert "No model matches 'resn50'. Try 'resnet50';" in mistake("models", "resn50")
    assert "No model is for the task 'detect'. Did you mean 'detection'?" in mistake("models", "--task", "detect")


def test_a_warning_is_one_line_without_code(classifier, photos):
    command = [sys.executable, "-m", "nexus", "predict", str(photos), "--model", str(classifier)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"nexus: Left out: {photos / 'text.jpg'} is not an image")


def test_the_table_leaves_out_unlikely_objects_and_says_so(detector, photos, tmp_path):
    arguments = ("predict", photos / "photo.png", "--model", detector)
    everything = json.loads(run(*arguments, "--json").stdout)[0]["objects"]
    least = sorted(one["score"] for one in everything)[5]
    assert len(everything) == 10
    some = json.loads(run(*arguments, "--json", "--min-score", least - 1e-6).stdout)[0]["objects"]
    assert len(some) == 5
    sure = sum(one["score"] >= 0.3 for one in everything)
    assert f"Not shown: {10 - sure} of 10 objects, below 0.3; --min-score 0 shows all." in run(*arguments).stdout
    shown = run(*arguments, "--min-score", 0, "--draw", tmp_path / "drawn").stdout
    assert "Not shown" not in shown
    assert f"Drawn into {tmp_path / 'drawn'}." in shown.replace("\n", "")
    bare = run(*arguments, "--min-score", 1, "--draw", tmp_path / "bare").stdout
    assert "No object was found." in bare
    drawn, undrawn = (Image.open(tmp_path / name / "0000-photo.png") for name in ("drawn", "bare"))
    assert (np.asarray(drawn) != np.asarray(undrawn)).any()


def test_a_least_score_is_for_detectors(mistake, classifier, photos):
    message = mistake("predict", photos / "photo.png", "--model", classifier, "--min-score", 0.5)
    assert message == "nexus: --min-score is for detectors; this model's task is classification. Leave it out.\n"


def test_images_have_addresses(server, classifier, photos, tmp_path):
    predictor = Predictor(classifier)
    [remote], [local] = predictor(f"{server}/photo.png"), predictor(photos / "photo.png")
    assert remote.path == f"{server}/photo.png"
    assert remote.to_json()["top"] == local.to_json()["top"]
    assert remote.draw().size == local.draw().size
    with pytest.raises(ImageError, match=r"missing\.png could not be fetched \(HTTP Error 404.*Check the address"):
        predictor(f"{server}/missing.png")
    picture = tmp_path / "heat.png"
    assert run("explain", f"{server}/photo.png", "--model", classifier, "-o", picture).exit_code == 0
    assert picture.is_file()


def test_no_address_is_asked_without_a_network(server, classifier, monkeypatch):
    monkeypatch.setenv("NEXUS_OFFLINE", "1")
    with pytest.raises(ImageError, match=r"photo\.png was not fetched: NEXUS_OFFLINE"):
        Predictor(classifier)(f"{server}/photo.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "zzz"], "There is no model 'zzz'. `nexus models` (nexus.list_models) names them all."),
        (["eval", "zzz"], "names them all. Nor is there a file or folder zzz."),
        (
            ["train", "digits/vit_tiny", "data.source=imagenet", "-o", "never"],
            "There is no data set 'imagenet'. Did you mean 'digit-scenes'? Images of your own are 'folder:PATH'.",
        ),
    ],
)
def test_an_unknown_name_says_where_to_look(mistake, arguments, message):
    assert mistake(*arguments).endswith(f"{message}\n")


@pytest.mark.parametrize("device", ["cudaa", "mps:7"])
def test_a_device_that_is_not_there_is_named(mistake, classifier, photos, device):
    message = mistake("predict", photos / "photo.png", "--model", classifier, "--device", device)
    assert f"There is no device '{device}' here; use cpu" in message


def test_an_unfinished_run_is_told(mistake, photos, tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    message = mistake("predict", photos / "photo.png", "--model", tmp_path)
    assert f"The run in {tmp_path} has not finished" in message
    assert "--resume" in message


def test_a_masked_autoencoder_has_nothing_to_explain(mistake, photos, tmp_path):
    tiny: dict[str, Any] = {"image_size": 16, "patch_size": 8, "embed_dim": 16, "num_layers": 1, "num_heads": 2}
    tiny |= {"decoder_dim": 16, "decoder_num_layers": 1, "decoder_num_heads": 2}
    model = create_model("mae_vit_base_patch16_224", **tiny)
    model.save_pretrained(tmp_path)
    message = mistake("explain", photos / "photo.png", "--model", tmp_path)
    assert "is a model for masked-image-modeling. Use nexus predict." in message
    assert "explained" in run("eval", tmp_path).stdout


def test_models_with_weights_are_listed():
    assert "resnet50" in list_models("resnet*", pretrained=True)
    assert set(list_models(pretrained=True)) < set(list_models())


def test_create_model_reads_what_from_pretrained_reads(classifier):
    model = create_model(str(classifier), pretrained=True, num_classes=4)
    assert model(torch.zeros(1, 3, 32, 32))["logits"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"'hf-hub:a/b' is not a registered name.*pretrained=True"):
        create_model("hf-hub:a/b")


def test_keys_that_count_something_have_a_least_value():
    with pytest.raises(ValueError, match=r"ResNetConfig\.num_classes is -1; it must be at least 0\."):
        create_model("resnet18", num_classes=-1)
    with pytest.raises(ValueError, match=r"ResNetConfig\.in_channels is 0; it must be at least 1\."):
        create_model("resnet18", in_channels=0)


def test_what_is_no_tensor_or_has_its_channels_last_is_told():
    model = create_model("resnet18", num_layers=(1, 1, 1, 1), hidden_dim=8)
    with pytest.raises(ValueError, match=r"images are a ndarray; the model takes a tensor .*nexus\.Predictor"):
        check_images(cast(Any, np.zeros((1, 3, 32, 32), np.float32)), in_channels=3)
    with pytest.raises(ValueError, match=r"channels stood last.*images\.permute\(0, 3, 1, 2\)"):
        model(torch.zeros(1, 32, 32, 3))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("optimizer.learning_rate=1", "Did you mean 'optimizer.lr'?"),
        ("batch=8", "Did you mean 'training.batch_size'?"),
        ("optimizer=sgd", "write optimizer.name='sgd'."),
    ],
)
def test_keys_of_other_libraries_are_understood(change, hint):
    with pytest.raises(ValueError) as error:
        load_recipe("digits/vit_tiny", [change])
    assert str(error.value).endswith(hint)


@pytest.mark.needs("skimage")
def test_without_a_model_the_published_network_names_the_photo(tmp_path):
    from skimage import data

    Image.fromarray(data.coffee()).save(tmp_path / "cup.png")
    [guess] = json.loads(run("predict", tmp_path / "cup.png", "--json", "--top", 1).stdout)
    assert (guess["label"], guess["score"] > 0.9) == ("espresso", True)
    picture = tmp_path / "why.png"
    assert "espresso" in run("explain", tmp_path / "cup.png", "-o", picture).stdout
    with Image.open(picture) as drawn:
        assert drawn.width >= 224


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("frob",), "nexus: No such command 'frob'. `nexus --help` shows what there is.\n"),
        (("info",), "nexus: Missing argument 'MODEL'. `nexus info --help` shows what there is.\n"),
        (("data", "frob"), "nexus: No such command 'frob'. `nexus data --help` shows what there is.\n"),
        (("predict", "a", "--overlap", "0.3"), "nexus: --overlap is for --tile; give both, or leave it out.\n"),
        (("explain", "a", "-o", "a.txt"), "nexus: a.txt ends in '.txt'; the picture is written as .png.\n"),
    ],
)
def test_wrong_words_are_one_line(mistake, words, message):
    assert mistake(*words) == message


def test_a_number_out_of_range_is_one_line(mistake):
    said = mistake("predict", "a", "--top", "0")
    assert "--top" in said
    assert said.count("\n") == 1


def test_no_words_are_the_help(mistake):
    assert "Commands:" in mistake()


@pytest.mark.parametrize("count", [0, -1, 2.5, "4", True])
def test_counts_are_whole_numbers(classifier, photos, count):
    with pytest.raises(ValueError, match=r"batch_size is .*; it must be a whole number, at least 1."):
        Predictor(classifier, batch_size=count)
    with pytest.raises(ValueError, match="frame_step is"):
        Predictor(classifier)(photos / "photo.png", frame_step=count)


@pytest.mark.parametrize("source", [None, 3, "", torch.nn.Linear])
def test_what_is_no_model(source):
    with pytest.raises(ValueError, match="The model is "):
        Predictor(source)
    with pytest.raises(ValueError, match="The source of weights is "):
        ResNet.from_pretrained(source)


def test_an_empty_text_is_not_this_folder(classifier):
    with pytest.raises(ValueError, match="image is an empty text"):
        Predictor(classifier)("")


def test_a_preprocessing_in_plain_values(classifier, photos):
    plain = Predictor(classifier, preprocessing={"image_size": [32, 32]})
    assert plain(photos / "photo.png")[0].score == Predictor(classifier)(photos / "photo.png")[0].score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; weights are floats"),
        ({"dtype": torch.int32}, "dtype is torch.int32; weights are floats"),
        ({"device": "gpu"}, "There is no device 'gpu' here"),
    ],
)
def test_weights_of_no_kind_or_place(classifier, options, message):
    with pytest.raises(ValueError, match=message):
        ResNet.from_pretrained(classifier, **options)


def test_a_model_is_saved_into_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; name a folder"):
        create_model("resnet18", num_layers=(1, 1, 1, 1), hidden_dim=8).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_cocos_results_are_of_objects(classifier, photos, tmp_path):
    seen = Predictor(classifier)(photos / "photo.png")
    with pytest.raises(ValueError, match="is for the objects of detectors"):
        write_predictions(seen, tmp_path / "found.coco.json")
