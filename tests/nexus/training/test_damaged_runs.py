"""Run folders that somebody or something damaged: the run goes on bit by bit, or one line says why not; nothing is lost."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import warnings

import pytest

from nexus.training import Interrupted, Trainer
from nexus.training.checkpoint import newest_checkpoint

NEWEST = "checkpoints/step-00000012"


@pytest.fixture(scope="module")
def recipe(small):
    return small.recipe(training={"ema": 0.9, "keep_checkpoints": 3})


@pytest.fixture(scope="module")
def whole(small, recipe, tmp_path_factory):
    """The folder of the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    Trainer(recipe, folder, **small.data(), progress="off").fit()
    return folder


class Stop:
    """A callback that asks this process to stop at step 12."""

    def __call__(self, record):
        if record["kind"] == "train" and record["step"] == 12:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def stopped(small, recipe, tmp_path_factory):
    """The folder of a run that was stopped at step 12."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        Trainer(recipe, folder, **small.data(), progress="off", callbacks=[Stop()]).fit()
    return folder


def assert_same_run(folder, other):
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    weights, expected = (path / "model" / "model.safetensors" for path in (folder, other))
    assert weights.read_bytes() == expected.read_bytes()


def manifest(text):
    return lambda run: (run / NEWEST / "manifest.json").write_text(text)


def other_state(content):
    """State that agrees with its manifest and is none of this run's."""

    def damage(run):
        (run / NEWEST / "state.pt").write_bytes(content)
        facts = json.loads((run / NEWEST / "manifest.json").read_text())
        facts["files"]["state.pt"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (run / NEWEST / "manifest.json").write_text(json.dumps(facts))

    return damage


def file_in_place(name):
    def damage(run):
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).unlink(missing_ok=True)
        (run / name).write_text("x")

    return damage


def pipe_in_place(run):
    (run / NEWEST / "state.pt").unlink()
    os.mkfifo(run / NEWEST / "state.pt")


def leftovers(run):
    (run / "checkpoints" / ".part-00000015-7").mkdir()
    shutil.copytree(run / NEWEST, run / "checkpoints" / ".replaced-step-00000012")
    (run / "checkpoints" / ".replaced-step-00000013").write_text("")
    (run / ".owner.json").write_text("[" * 10_000)
    (run / ".lock").write_text("")


def strangers(run):
    for name in ("step-abc", "step-12", "step-00000012.bak", "notes.txt", "step-000000000000000000000000000001"):
        (run / "checkpoints" / name).mkdir()


GOES_ON = {
    "a file step-99999999": file_in_place("checkpoints/step-99999999"),
    "an empty folder step-99999999": lambda run: (run / "checkpoints/step-99999999").mkdir(),
    "a copy under another number": lambda run: shutil.copytree(run / NEWEST, run / "checkpoints/step-99999999"),
    "deep manifest": manifest("[" * 200_000),
    "manifest of one value": manifest("null"),
    "manifest of other types": manifest('{"format": 1, "step": 12, "files": {"state.pt": 7}}'),
    "manifest without files": manifest('{"format": 1, "step": 12}'),
    "manifest of megabytes": manifest("[" + "0," * 5_000_000 + "0]"),
    "manifest of bytes": lambda run: (run / NEWEST / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "cut state": lambda run: os.truncate(run / NEWEST / "state.pt", 100),
    "state is a folder": lambda run: ((run / NEWEST / "state.pt").unlink(), (run / NEWEST / "state.pt").mkdir()),
    "state is a pipe": pipe_in_place,
    "no metrics in the checkpoint": lambda run: (run / NEWEST / "metrics.jsonl").unlink(),
    "damaged data": lambda run: (run / NEWEST / "data.gz").write_bytes(b"x"),
    "no metrics": lambda run: (run / "metrics.jsonl").unlink(),
    "other metrics": lambda run: (run / "metrics.jsonl").write_bytes(b"\xff{"),
    "leftovers of killed runs": leftovers,
    "strangers among checkpoints": strangers,
    "a link to itself": lambda run: (run / "checkpoints/step-00000099").symlink_to("step-00000099"),
    "a model of before": lambda run: ((run / "model").mkdir(), (run / "model" / "x").write_text("")),
}
QUICK = {"a file step-99999999", "an empty folder step-99999999", "deep manifest", "strangers among checkpoints"}
ENDS = {
    "recipe is no YAML": (lambda run: (run / "recipe.yaml").write_text("a: ["), "recipe.yaml is not YAML"),
    "recipe of another": (lambda run: (run / "recipe.yaml").write_text("{}"), "another recipe; these keys differ"),
    "state of nothing": (other_state(b"x"), "state.pt is no checkpoint of a run"),
    "state of another program": (other_state(b"\x80\x02}q\x00."), "state.pt is no checkpoint of a run"),
    "checkpoints is a file": (file_in_place("checkpoints"), "could not be written"),
}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in GOES_ON]
)
def test_goes_on(small, recipe, whole, stopped, tmp_path, name):
    run = shutil.copytree(stopped, tmp_path / "run")
    GOES_ON[name](run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(recipe, run, **small.data(), resume=True, progress="off").fit()
    assert all(len(str(warning.message).splitlines()) == 1 for warning in caught)
    assert_same_run(run, whole)


@pytest.mark.parametrize("name", ENDS)
def test_ends_in_one_line(small, recipe, stopped, tmp_path, name):
    run = shutil.copytree(stopped, tmp_path / "run")
    damage, message = ENDS[name]
    damage(run)
    before = {path for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message) as raised:
        Trainer(recipe, run, **small.data(), resume=True, progress="off").fit()
    assert len(str(raised.value).splitlines()) == 1
    assert str(run) in str(raised.value)
    assert {path for path in run.rglob("*") if path.is_file()} >= before


class Full:
    """Counts what needs room on a disk, and at one of them, and from then on, there is none."""

    def __init__(self, monkeypatch, at=None):
        self.count, self.at = 0, at
        for name in ("fsync", "mkdir", "rename", "replace"):
            self.patch(monkeypatch, name, getattr(os, name))

    def patch(self, monkeypatch, name, real):
        def call(*arguments, **options):
            self.count += 1
            if self.at is not None and self.count >= self.at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)


@pytest.mark.filterwarnings("ignore:.*cannot be removed:UserWarning")
@pytest.mark.parametrize("moment", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9)), 9])
def test_disk_full(small, recipe, whole, tmp_path, moment):
    with pytest.MonkeyPatch.context() as patch:
        events = Full(patch)
        Trainer(recipe, tmp_path / "count", **small.data(), progress="off").fit()
        total = events.count
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        Full(patch, at=1 + round(moment * (total - 1) / 9))
        with pytest.raises(ValueError, match="No space left on device") as raised:
            Trainer(recipe, run, **small.data(), progress="off").fit()
    assert len(str(raised.value).splitlines()) == 1
    assert "Make room" in str(raised.value) or "make room" in str(raised.value)
    Trainer(recipe, run, **small.data(), resume=True, progress="off").fit()
    assert_same_run(run, whole)


def error_of(work):
    """The ValueError that some work ends in, or None."""
    try:
        work()
    except ValueError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 30, 60, 120, 250, 400])
def test_small_disk(small, recipe, whole, tmp_path, kilobytes):
    """A real one, where the system lets us make it; every write of a run meets it at some size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    board = recipe.replace(training=recipe.training.replace(tensorboard=True))
    try:
        error = error_of(lambda: Trainer(board, disk / "run", **small.data(), progress="off").fit())
        if error is not None:
            assert len(str(error).splitlines()) == 1
            assert "No space left on device" in str(error)
            subprocess.run([*mount[:4], "remount,size=64m", *mount[5:]], check=True)
            Trainer(board, disk / "run", **small.data(), resume=True, progress="off").fit()
        assert_same_run(disk / "run", whole)
        assert newest_checkpoint(disk / "run" / "checkpoints").step == 24
    finally:
        subprocess.run(["umount", str(disk)], check=True)
