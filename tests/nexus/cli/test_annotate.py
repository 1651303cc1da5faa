"""`nexus annotate`: wrong turns, exports, and a process that serves its page until it is interrupted."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest
import torch
from typer.testing import CliRunner

from nexus.app.annotate.marks import Mark, Marks
from nexus.app.annotate.project import Project
from nexus.app.annotate.serve import listen
from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import SAM, SAMConfig, VisionTransformer
from nexus.proofs.sam import SMALL
from tests.drawn_sets import HEIGHT, WIDTH, drawn


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        drawn(seed)[0].save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


@pytest.fixture
def sam(tmp_path):
    torch.manual_seed(0)
    model = SAM(SAMConfig(**SMALL))
    model.preprocessing = Preprocessing(
        image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam"
    )
    return model.save_pretrained(tmp_path / "sam")


def said(*words):
    result = CliRunner().invoke(app, ["annotate", *map(str, words)])
    assert result.exit_code != 0
    return f"{result.output} {result.exception}"


def test_wrong_turns_are_answered_in_a_line(photos, sam, tmp_path):
    assert "The page needs a model that answers clicks: --model sam_vit_base" in said(photos)
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert "clip.mp4 cannot be decoded" in said(tmp_path / "clip.mp4", "--model", sam)
    assert "is no folder of images, and no image" in said(tmp_path / "nothere", "--model", sam)
    assert "--export writes what was marked before" in said(photos, "--model", sam, "--export", "coco")
    assert "There is no format 'cocoa'" in said(photos, "--export", "cocoa")
    assert "There is nothing marked in" in said(photos, "--export", "coco")
    assert "there are two classes with the name 'cat'" in said(photos, "--model", sam, "--classes", "cat,cat")


def test_a_model_that_answers_no_clicks_is_refused(photos, tmp_path):
    model = VisionTransformer(
        {"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_layers": 1, "num_heads": 2, "num_classes": 3}
    )
    model.preprocessing = Preprocessing(image_size=(32, 32))
    path = model.save_pretrained(tmp_path / "vit")
    assert "is a model for classification, and the page needs one that answers clicks, such as sam_vit_base" in said(
        photos, "--model", path
    )
    assert not (tmp_path / "photos-annotations").exists()


def test_a_port_that_is_taken_is_named(photos, sam):
    with listen(0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        assert f"Port {port} cannot be used (Address already in use); --port 0 takes one that is free" in said(
            photos, "--model", sam, "--port", port
        )


def test_what_was_marked_is_exported_without_a_model(photos):
    Project(photos).save(0, Marks(HEIGHT, WIDTH, (Mark(1, (0, 9, HEIGHT * WIDTH - 9)),)))
    result = CliRunner().invoke(app, ["annotate", str(photos), "--export", "coco"])
    assert result.exit_code == 0, result.output
    place = photos.parent / "photos-annotations" / "coco"
    assert result.output.strip() == f"1 images, 1 objects: {place}"
    assert CliRunner().invoke(app, ["data", "check", f"coco:{place}"]).exit_code == 0


def test_the_page_is_served_until_it_is_interrupted(photos, sam, needed):
    needed("uvicorn")
    command = [sys.executable, "-m", "nexus", "annotate", str(photos), "--model", str(sam), "--port", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "2 images in" in running.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", running.stdout.readline())[0]
        with urllib.request.urlopen(address, timeout=30) as page:
            token = re.search(r'name="token" content="([^"]+)"', page.read().decode())[1]
        base = address.partition("/?")[0]
        asked = urllib.request.Request(f"{base}/api/images/1/ready", headers={"x-nexus-token": token})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert b'"ready":true' in answer.read()
        body = b'{"points": [[20, 20, 1]]}'
        asked = urllib.request.Request(f"{base}/api/images/1/mask", body, {"x-nexus-token": token})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert b'"guesses":3' in answer.read()
        assert "Another `nexus annotate` writes into" in said(photos, "--model", sam, "--port", 0)
    finally:
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert "Everything is kept in" in out
    assert running.returncode == 0, err
    assert err == ""
