"""A SAM 2 that follows objects in ONNX Runtime and NumPy: what `VideoSession` finds with torch, without torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from nexus.deploy import OnnxVideo, export_onnx
from nexus.deploy.onnx_video import _as_bfloat16
from nexus.models.cv.sam2 import VideoSession
from nexus.models.cv.sam2.stages import VideoStages
from tests.nexus.models.sam2_golden import authors_model, frames_of, golden

pytestmark = [pytest.mark.needs("onnxruntime"), pytest.mark.needs("onnxscript"), pytest.mark.slow]
SIZE = (60, 80)
BOX = {"boxes": [4, 10, 25, 31]}
CLICKS = {"points": [[66, 40], [30, 10]], "labels": [1, 0]}
CORRECTION = {"points": [[37, 27], [60, 50]], "labels": [1, 0]}


@pytest.fixture(scope="module", params=["2_1", "2_0"])
def made(request, tmp_path_factory):
    tensors, _ = golden(f"sam2_video_{request.param}")
    later = request.param == "2_1"
    model = authors_model(tensors, pointer_times=later, absent_memory=later)
    folder = tmp_path_factory.mktemp("video") / "sam2"
    stages = export_onnx(VideoStages(model), folder)
    assert [stage.name for stage in stages] == ["image_encoder", "mask_decoder", "memory_encoder", "memory_attention"]
    assert max(value for stage in stages for value in stage.differences.values()) < 1e-4
    return model, folder, frames_of(tensors)


def near(found, wanted, atol=1e-3):
    """Logits to 1e-3 and the same masks, of every object that torch's session has an answer for."""
    for place, name in enumerate(wanted.object_ids):
        if name not in found:
            assert (wanted.logits[place] == -1024).all()
            continue
        ours, theirs = found[name], wanted.logits[place].numpy()
        np.testing.assert_allclose(ours.logits, theirs, rtol=0, atol=atol)
        assert ((ours.logits > 0) != (theirs > 0)).sum() <= (atol > 1e-3)
        assert ours.score == pytest.approx(float(wanted.scores[place]), abs=atol)
        assert ours.iou == pytest.approx(float(wanted.iou[place]), abs=atol)


def test_two_objects_a_correction_and_a_late_one_over_twelve_frames(made):
    model, folder, frames = made
    ours, theirs = OnnxVideo(folder, SIZE, [frame.numpy() for frame in frames]), VideoSession(model, SIZE, frames)
    for session in (ours, theirs):
        session.prompt(1, 0, **BOX)
    near(ours.prompt(2, 0, **CLICKS), theirs.prompt(2, 0, **CLICKS))
    seen = 0
    for (number, found), (other, wanted) in zip(ours.propagate(), theirs.propagate(), strict=True):
        assert number == other
        near(found, wanted)
        seen += 1
    assert seen == 12
    near(ours.prompt(1, 6, **CORRECTION), theirs.prompt(1, 6, **CORRECTION), atol=1e-2)
    near(ours.prompt(3, 4, points=[[20, 20]]), theirs.prompt(3, 4, points=[[20, 20]]), atol=1e-2)
    for reverse in (False, True):
        pairs = zip(ours.propagate(5, reverse=reverse), theirs.propagate(5, reverse=reverse), strict=True)
        for (_, found), (_, wanted) in pairs:
            near(found, wanted, atol=1e-2)  # memories are bfloat16, and what falls to the other side adds up


def test_a_stream(made):
    model, folder, frames = made
    ours, theirs = OnnxVideo(folder, SIZE), VideoSession(model, SIZE)
    for number, frame in enumerate(frames[:5]):
        found, wanted = ours.push(frame.numpy()), theirs.push(frame)
        near(found, wanted)
        if number == 1:
            near(ours.prompt(7, **BOX), theirs.prompt(7, **BOX))


def test_no_torch_is_imported(made, tmp_path):
    model, folder, frames = made
    np.save(tmp_path / "frames.npy", torch.stack(frames).numpy())
    code = (
        "import sys, numpy as np; from nexus.deploy import OnnxVideo;"
        f"video = OnnxVideo({str(folder)!r}, {SIZE}, np.load({str(tmp_path / 'frames.npy')!r}));"
        "video.prompt(1, 0, boxes=[4, 10, 25, 31]);"
        "masks = np.stack([found[1].logits > 0 for _, found in video.propagate()]);"
        f"np.save({str(tmp_path / 'masks.npy')!r}, masks); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = VideoSession(model, SIZE, frames)
    theirs.prompt(1, 0, **BOX)
    wanted = np.stack([found.logits[0].numpy() > 0 for _, found in theirs.propagate()])
    assert np.array_equal(np.load(tmp_path / "masks.npy"), wanted)


def test_memory_is_bounded(made):
    _, folder, frames = made
    video = OnnxVideo(folder, SIZE, [frame.numpy() for frame in frames * 3])
    video.prompt(1, 0, **BOX)
    for _ in video.propagate():
        pass
    assert len(video._objects[1].tracked) == 16


def test_mistakes_are_named(made, tmp_path):
    _, folder, frames = made
    stream, video = OnnxVideo(folder, SIZE), OnnxVideo(folder, SIZE, [frame.numpy() for frame in frames])
    for call, told in (
        (lambda: OnnxVideo(folder, SIZE, keep=3), "keep is 3; the model looks back at 15 frames"),
        (lambda: stream.prompt(1, **BOX), "There is no frame yet"),
        (lambda: list(stream.propagate()), "This session is a stream"),
        (lambda: video.push(frames[0].numpy()), "This session reads its frames itself"),
        (lambda: list(video.propagate()), "Nothing is followed yet"),
        (lambda: video.prompt(1, 12, **BOX), "There is no frame 12; the video has 12, from 0"),
        (lambda: video.prompt(1, 0), "There is no prompt: give points or boxes"),
        (lambda: video.prompt(1, 0, boxes=[[1, 2, 3, 4], [5, 6, 7, 8]]), "point at one object at a time"),
        (lambda: video.see(np.zeros((4, 4, 3), np.uint8)), "does not say how an image becomes its input"),
    ):
        with pytest.raises(ValueError, match=told):
            call()


def test_bfloat16_is_torchs():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32) * 7
    wanted = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(_as_bfloat16(values), wanted)
