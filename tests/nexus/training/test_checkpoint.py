"""Checkpoints are whole or not there."""

import errno
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from nexus.training.checkpoint import (
    CheckpointError,
    discard_newer,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    tidy,
)


def save(folder, step, size=1000):
    values = torch.arange(size, dtype=torch.float32) + step
    return save_checkpoint(folder, step, {"model": {"w": values}, "note": [1, (2, None)]}, b'{"a": 1}\n', {"epoch": 3})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    save(tmp_path, 5)
    save(tmp_path, 40)
    found = newest_checkpoint(tmp_path)
    assert (found.step, found.facts["epoch"], found.metrics()) == (40, 3, b'{"a": 1}\n')
    state = found.state()
    assert state["note"] == [1, (2, None)]
    assert torch.equal(state["model"]["w"], torch.arange(1000.0) + 40)
    manifest = json.loads((found.path / "manifest.json").read_text())
    assert manifest["files"]["state.pt"]["bytes"] == (found.path / "state.pt").stat().st_size
    assert names(found.path) == ["data.gz", "manifest.json", "metrics.jsonl", "state.pt"]


def test_nothing_there(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("failing", range(1, 6))
def test_disk_full_leaves_the_previous_whole(tmp_path, monkeypatch, failing):
    before = save(tmp_path, 5)
    calls = 0
    flush = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step 6 .* No space left on device\. .* whole one is step-00000005"):
        save(tmp_path, 6)
    assert names(tmp_path) == ["step-00000005"]
    assert newest_checkpoint(tmp_path).path == before.path


def test_file_size_limit(tmp_path):
    """The kernel refuses the write in the middle of the file, as a full disk does."""
    save(tmp_path, 5, size=10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            save(tmp_path, 6, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["step-00000005"]
    assert newest_checkpoint(tmp_path).step == 5


def test_same_step_again_replaces(tmp_path):
    save(tmp_path, 5)
    save_checkpoint(tmp_path, 5, {"model": {}}, b"", {"epoch": 4})
    assert names(tmp_path) == ["step-00000005"]
    assert newest_checkpoint(tmp_path).facts["epoch"] == 4


def test_tidy_puts_back_what_was_being_replaced(tmp_path):
    save(tmp_path, 5).path.rename(tmp_path / ".replaced-step-00000005")  # killed between the two renames
    (tmp_path / ".part-00000006-99").mkdir()
    shutil.copytree(save(tmp_path, 4).path, tmp_path / ".replaced-step-00000004")  # killed after both
    tidy(tmp_path)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_keeps_the_newest_and_the_best(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, size=1)
    prune_checkpoints(tmp_path, 5, keep=2, best_step=2)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    discard_newer(tmp_path, 4)
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


def test_renamed_checkpoint_does_not_count(tmp_path):
    save(tmp_path, 5).path.rename(tmp_path / "step-00000009")
    with pytest.warns(UserWarning, match="belongs to another"), pytest.raises(CheckpointError, match="damaged"):
        newest_checkpoint(tmp_path)


def test_evil_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    found = save_checkpoint(tmp_path, 1, {"model": Evil()}, b"", {})
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        found.state()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_stopped_while_replacing_one_of_both_is_found(tmp_path, monkeypatch, stopped_at):
    save(tmp_path, 5)
    rename, calls = Path.rename, []

    def stop(path, target):
        calls.append(path)
        if len(calls) == stopped_at:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 5)
    tidy(tmp_path)
    assert newest_checkpoint(tmp_path).step == 5


class Killed(BaseException):
    """Stands for a kill: nothing of the program runs after it."""


def test_a_kill_at_any_moment_of_replacing_loses_nothing(tmp_path, monkeypatch):
    """The old folder goes only once the new one has its name."""
    moments = 0
    for killed_at in range(1, 20):
        folder = tmp_path / str(killed_at)
        save(folder, 5)
        calls = 0

        def count(real, killed_at=killed_at):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == killed_at:
                    raise Killed
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((os, "rename"), (os, "mkdir"), (os, "fsync"), (shutil, "rmtree")):
                patch.setattr(module, name, count(getattr(module, name)))
            try:
                save(folder, 5)
            except Killed:
                moments += 1
        tidy(folder)
        assert newest_checkpoint(folder).step == 5
        assert names(folder) == ["step-00000005"]
    assert moments >= 8


def test_pruning_keeps_the_one_just_written(tmp_path):
    """Whatever claims to be newer, such as a folder of another program, counts for nothing."""
    save(tmp_path, 5)
    save(tmp_path, 6)
    (tmp_path / "step-99999999").mkdir()
    prune_checkpoints(tmp_path, 6, keep=1, best_step=None)
    assert names(tmp_path) == ["step-00000006", "step-99999999"]


def test_steps_of_more_digits_come_later(tmp_path):
    save(tmp_path, 99_999_999, size=1)
    save(tmp_path, 100_000_000, size=1)
    assert newest_checkpoint(tmp_path).step == 100_000_000


def test_packed_state_is_refused_unread(tmp_path):
    """A few kilobytes can be gigabytes."""
    import hashlib
    import zipfile

    found = save(tmp_path, 1)
    with zipfile.ZipFile(found.path / "state.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(found.path / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data if data[:1] == b"\x80" else bytes(1 << 20))
    content = (found.path / "state.pt").read_bytes()
    manifest = json.loads((found.path / "manifest.json").read_text())
    manifest["files"]["state.pt"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (found.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"state\.pt is no checkpoint of a run \(it is compressed\)"):
        newest_checkpoint(tmp_path).state()
