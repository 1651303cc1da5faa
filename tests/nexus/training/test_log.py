"""What a run tells: the file, TensorBoard, lines, and the bar."""

import io
import sys

from nexus.training.log import Bar, Lines, MetricsFile, Silence, describe, make_display
from nexus.training.loggers import TensorBoard

TRAIN = {"kind": "train", "step": 20, "epoch": 0.5, "loss": 1.23456, "lr": 0.001}
VAL = {"kind": "val", "step": 40, "epoch": 1, "top1": 0.975, "loss": 0.5}


def test_metrics_file_goes_on_from_history(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    first.write(TRAIN)
    kept = first.content()
    first.write(VAL)
    first.close()
    assert path.read_bytes().startswith(kept)
    again = MetricsFile(path, kept)
    assert again.records == [TRAIN]
    again.write(VAL)
    again.close()
    assert again.content() == path.read_bytes() == first.content()


def test_words():
    assert describe(TRAIN) == "train epoch 0.5 loss 1.235 lr 0.001"
    assert describe(VAL) == "val epoch 1 top1 97.50% loss 0.5"


def test_lines_are_paced():
    stream = io.StringIO()
    lines = Lines(100, 0, stream, seconds=1000.0)
    lines.record(TRAIN)
    lines.record(VAL)
    assert stream.getvalue() == "step 40/100  val epoch 1 top1 97.50% loss 0.5\n"


def test_display_follows_the_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(make_display("auto", 10, 0), Lines)
    assert isinstance(make_display("off", 10, 0), Silence)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = make_display("auto", 100, 10)
    assert isinstance(bar, Bar)
    bar.record(VAL)
    bar.message("[saved]")
    bar.close()
    shown = sys.stderr.getvalue()
    assert "40/100" in shown
    assert "top1 97.50%" in shown
    assert "[saved]" in shown


def test_tensorboard(needed, tmp_path):
    needed("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    board(TRAIN)
    board(VAL)
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/lr", "val/top1", "val/loss"}
    assert events.Scalars("val/top1")[0].step == 40
