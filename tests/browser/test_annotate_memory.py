"""Fifty images annotated by a script: neither the server nor the page grows."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import SAM, SAMConfig
from nexus.proofs.sam import SMALL
from tests.drawn_sets import drawn

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
IMAGES, FIRST = 50, 10
"""Growth is counted from the tenth image on: by then everything was imported and used once."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(IMAGES):
        drawn(seed)[0].resize((480, 360)).save(tmp_path / "photos" / f"{seed:02d}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def sam(tmp_path):
    torch.manual_seed(0)
    model = SAM(SAMConfig(**SMALL))
    model.preprocessing = Preprocessing(
        image_size=(64, 64), resize="within", resize_size=64, interpolation="bilinear", rounding="sam"
    )
    return model.save_pretrained(tmp_path / "sam")


def resident(process):
    """MiB of memory that a process holds."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


@contextmanager
def ending(process):
    """Interrupts a process when the block ends."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_fifty_images_do_not_grow(folder, sam, open_page, capsys):
    command = [sys.executable, "-m", "nexus", "annotate", str(folder), "--model", str(sam), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running, ending(running):
        running.stdout.readline()
        address = re.search(r"http://\S+", running.stdout.readline())[0]
        page = open_page()
        page.open(address)
        session = page.page.context.new_cdp_session(page.page)
        server, heap = [], []
        for number in range(IMAGES):
            for x, y in ((150, 100), (250, 200), (350, 150)):
                page.mouse.click(*page.place(x, y))
            page.keyboard.press("p")
            page.mouse.move(*page.place(50, 50))
            page.mouse.down()
            page.mouse.move(*page.place(250, 80), steps=3)
            page.mouse.up()
            page.keyboard.press("c")
            page.keyboard.press("f")
            page.until(f"app.number === {min(number + 1, IMAGES - 1)} && app.doc && !app.saver.isUnsaved()")
            session.send("HeapProfiler.collectGarbage")
            heap.append(session.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
            server.append(resident(running))
        assert (
            page.run("Object.values(app.project.status).filter(([objects, done]) => objects && done).length") == IMAGES
        )
    with capsys.disabled():
        print(f"\nserver {server[FIRST]:.0f} to {server[-1]:.0f} MiB, page {heap[FIRST]:.1f} to {heap[-1]:.1f} MiB")
    assert server[-1] <= 1.05 * server[FIRST]
    assert heap[-1] <= 1.05 * heap[FIRST] + 0.5
