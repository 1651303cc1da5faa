"""`nexus train`: a registered model on one's own data, from the shell."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nexus.cli import main
from nexus.cli.commands import app
from nexus.data import load_dataset
from nexus.training.fit import make_trainer
from nexus.training.recipe_files import load_recipe
from nexus.training.starting import recipe_for

TINY = ["model.config.hidden_dim=4", "model.config.num_layers=[1,1,1,1]", "image_size=16", "device=cpu"]
COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 30, 20)}


def paint(folder, count=8):
    """Draws photos of 40 x 56 in three colours, a folder for each."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(0, 50, (40, 56, 3))
            Image.fromarray((noise + colour).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return paint(tmp_path / "photos")


@pytest.fixture
def nexus():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def mistake(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["nexus", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1, said
        return said

    return call


def test_a_model_is_trained_on_a_folder(photos, nexus, tmp_path):
    train = ("train", "resnet18", "--data", "folder:photos", "epochs=2", "lr=3e-3", *TINY)
    done = nexus(*train)
    assert done.exit_code == 0
    run = tmp_path / "runs" / "folder-resnet18"
    recipe = load_recipe(run / "recipe.yaml")
    assert (recipe.model.name, recipe.data.source) == ("resnet18", "folder:photos")
    assert (recipe.training.epochs, recipe.optimizer.lr) == (2, 3e-3)
    assert recipe.training.batch_size == 4  # 19 images to train on
    assert (run / "model" / "model.safetensors").is_file()
    data = load_dataset("folder:photos", "train")
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, np.bincount(data.labels)))
    assert f"3: {counts}\n" in done.stderr
    assert "40 x 56 (19 looked at), to 16 x 16" in done.stderr
    nexus(*train)
    assert (tmp_path / "runs" / "folder-resnet18-2" / "model").is_dir()


def test_a_dry_run_tells_all_and_writes_nothing(photos, nexus, tmp_path):
    said = nexus("train", "resnet18", "--data", "folder:photos", "epochs=3", "batch_size=6", *TINY, "--dry-run").stdout
    assert "19 to train on, 5 held out" in said
    assert "3 epochs of 3 steps, 6 items each" in said
    assert "resnet18, " in said
    assert not (tmp_path / "runs").exists()


def test_a_recipe_takes_other_data(photos, nexus):
    wanted = recipe_for("digits/vit_tiny", ["steps=5"], data="folder:photos")
    assert (wanted.data.source, wanted.training.steps, wanted.training.epochs) == ("folder:photos", 5, None)
    assert wanted.training.batch_size == load_recipe("digits/vit_tiny").training.batch_size
    assert recipe_for("resnet18", ["batch_size=2"], pretrained=True).model.pretrained


def test_the_models_own_settings_need_no_section(photos):
    wanted = recipe_for("resnet18", ["hidden_dim=8", "image_size=64", "model.config.act='silu'"], data="folder:photos")
    assert wanted.model.config == {"hidden_dim": 8, "act": "silu"}
    assert wanted.data.image_size == 64  # a key of the recipe comes first
    assert recipe_for("digits/vit_tiny", ["num_heads=2"]).model.config["num_heads"] == 2
    trainer = make_trainer("resnet18", "folder:photos", overrides={"hidden_dim": 16, "image_size": 32})
    assert trainer.recipe.model.config == {"hidden_dim": 16}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["resnet18", "--data", "folder:photos", "model.hidden_dim=8"], "Did you mean 'model.config.hidden_dim', or"),
        (["resnet18", "--data", "folder:photos", "hiden_dim=8"], "Did you mean 'hidden_dim', of the"),
        (["resnt18", "--data", "folder:photos"], "Did you mean 'resnet18'?"),
        (["resnet18", "--data", "folder:photo"], "There is no folder photo"),
        (["resnet18", "--data", "folder:photos", "epoch=3"], "Did you mean 'training.epochs'?"),
        (["resnet18", "--data", "folder:photos", "seed=one"], "training.seed"),
        (["resnet18", "--data", "folder:photos", "batch_size=20"], "19 images to train on"),
        (["--data", "folder:photos", "epochs=3"], "needs a model or a recipe before epochs=3"),
        (["photos", "--resume"], "photos holds no run to go on with"),
        (["resnet18", "--data", "folder:photos", "--resume"], "resnet18 is no run; --resume needs the run's folder"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(photos, mistake, tmp_path, words, hint):
    assert hint in mistake("train", *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("error")
def test_a_broken_photo_ends_the_start_and_the_folder_stays_free(photos, mistake, nexus, tmp_path):
    broken = photos / "red" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    words = ("train", "resnet18", "--data", "folder:photos", "epochs=1", *TINY, "-o", "run")
    said = mistake(*words)
    assert "0.png" in said
    assert "nexus data check folder:photos" in said
    assert not (tmp_path / "run").exists()
    broken.unlink()
    assert nexus(*words).exit_code == 0
