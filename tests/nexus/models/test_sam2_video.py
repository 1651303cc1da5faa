"""SAM 2 on videos: against kept results of the authors' code, stage by stage and over all frames; and what we promise."""

import gc
from pathlib import Path

import pytest
import torch

from nexus.models.cv.sam2 import SAM2, SAM2Config, VideoSession, video_session
from nexus.models.cv.sam2.tracking import answer, answer_mask, first_sight, memory_of
from tests.nexus.models.sam2_golden import authors_model, frames_of, golden

SIZE = (60, 80)
BOX = {"boxes": [4, 10, 25, 31]}
CLICKS = {"points": [[66, 40], [30, 10]], "labels": [1, 0]}
CORRECTION = {"points": [[37, 27], [60, 50]], "labels": [1, 0]}


class Authors:
    """One of the authors' videos: our model with their weights, their frames and what they found."""

    def __init__(self, version):
        self.tensors, self.notes = golden(f"sam2_video_{version}")
        later = version == "2_1"
        self.model = authors_model(self.tensors, pointer_times=later, absent_memory=later)
        self.frames = frames_of(self.tensors)

    def session(self, **settings):
        return VideoSession(self.model, SIZE, self.frames, **settings)

    def check(self, session, step, number, found, objects=None, atol=2e-4):
        """Compares what a session found in a frame, and what it remembers of it."""
        for place, object_id in enumerate(found.object_ids):
            key = f"outputs/{step}/object{object_id}/frame{number:02d}/"
            if objects is not None and object_id not in objects:
                continue
            kept = session._banks[object_id].find(number)
            self._near(found.logits[place], key + "low_res_logits", atol)
            self._near(found.scores[place], key + "object_score", atol)
            self._near(kept.found.pointers[0], key + "pointer", atol)
            if key + "memory" in self.tensors:  # rounded to bfloat16: a hair may fall to the other side
                self._near(kept.memory[0].float(), key + "memory", 0.07)

    def _near(self, found, key, atol):
        torch.testing.assert_close(found, self.tensors[key].float(), rtol=0, atol=atol)


@pytest.fixture(scope="module", params=["2_1", "2_0"])
def authors(request):
    return Authors(request.param)


@pytest.fixture(scope="module")
def newest():
    return Authors("2_1")


def test_memory_attention_is_the_authors(authors):
    keys = [
        key.removesuffix("output") for key in authors.tensors if "memory_attention_" in key and key.endswith("/output")
    ]
    assert keys
    for key in keys:
        current, memory, positions = (authors.tensors[key + name] for name in ("current", "memory", "memory_position"))
        placed = len(memory) - authors.tensors[key + "pointer_tokens"].item()
        tokens = current[:, 0].T.reshape(1, 32, 8, 8)
        with torch.no_grad():
            found = authors.model.memory.attention(tokens, memory.transpose(0, 1), positions.transpose(0, 1), placed)
        torch.testing.assert_close(found[0].flatten(1).T, authors.tensors[key + "output"][:, 0], rtol=0, atol=5e-5)


def test_objects_are_followed_as_the_authors_do(authors):
    session = authors.session()
    authors.check(session, "1_add_box", 0, session.prompt(1, 0, **BOX))
    authors.check(session, "1_add_clicks", 0, session.prompt(2, 0, **CLICKS))
    numbers = []
    for number, found in session.propagate():
        authors.check(session, "2_forward", number, found)
        numbers.append(number)
    assert numbers == list(range(12))


def test_corrections_late_objects_masks_and_the_way_back_are_the_authors(newest):
    session = newest.session()
    session.prompt(1, 0, **BOX)
    session.prompt(2, 0, **CLICKS)
    list(session.propagate())
    newest.check(session, "3_correct", 5, session.prompt(1, 5, **CORRECTION))
    for number, found in session.propagate(6):
        newest.check(session, "4c_forward_from_6", number, found)
    newest.check(session, "5_add_late", 8, session.prompt(7, 8, points=[[40, 50]]))
    back = list(session.propagate(8, reverse=True, count=6))
    assert [number for number, _ in back] == newest.tensors["outputs/6_reverse_from_8/order"].tolist()
    for number, found in back:  # from frame 5 on the authors' newest predictor has forgotten the correction of object 1
        newest.check(session, "6_reverse_from_8", number, found, objects=None if number > 5 else (2, 7))
    mask = torch.zeros(SIZE)
    mask[30:48, 50:70] = 1
    newest.check(session, "7_add_mask", 10, session.prompt(7, 10, masks=mask))
    for number, found in session.propagate(8):
        newest.check(session, "8_forward_from_8", number, found, objects=(2, 7))


def test_a_correction_stays_wherever_tracking_starts(newest):
    session = newest.session()
    session.prompt(1, 0, **BOX)
    session.prompt(2, 0, **CLICKS)
    list(session.propagate())
    corrected = session.prompt(1, 5, **CORRECTION)
    for number, found in session.propagate(3):
        if number == 5:
            assert torch.equal(found.logits[0], corrected.logits[0])
        if number > 5:
            newest.check(session, "4c_forward_from_6", number, found)


def test_corrections_can_count_as_prompts(newest):
    session = newest.session(corrections_prompt=True)
    session.prompt(1, 0, **BOX)
    list(session.propagate())
    newest.check(session, "9_correct_as_prompted", 5, session.prompt(1, 5, **CORRECTION))
    for number, found in session.propagate(5):
        newest.check(session, "9_forward_from_5", number, found)


def test_a_stream_is_the_video_pushed_frame_by_frame(newest):
    video = newest.session()
    video.prompt(1, 0, **BOX)
    video.prompt(2, 0, **CLICKS)
    known = dict(video.propagate())
    stream = VideoSession(newest.model, SIZE, num_frames=12)
    assert stream.push(newest.frames[0]).object_ids == ()
    stream.prompt(1, **BOX)
    assert stream.prompt(2, **CLICKS).object_ids == (1, 2)
    for number in range(1, 12):
        found = stream.push(newest.frames[number])
        torch.testing.assert_close(found.logits, known[number].logits, rtol=0, atol=1e-5)
    late = stream.prompt(9, points=[[40, 50]])
    assert late.object_ids == (1, 2, 9)
    stream.remove(1)
    assert stream.push(newest.frames[0]).object_ids == (2, 9)


def test_objects_do_not_disturb_each_other(newest):
    both, alone = newest.session(), newest.session()
    both.prompt(2, 0, **CLICKS)
    both.prompt(1, 0, **BOX)
    alone.prompt(1, 0, **BOX)
    for (_, two), (_, one) in zip(both.propagate(count=4), alone.propagate(count=4), strict=True):
        torch.testing.assert_close(two.logits[1], one.logits[0], rtol=0, atol=1e-5)


def test_objects_that_remember_frames_of_the_same_ages_are_answered_in_one_go(newest, monkeypatch):
    asked = []
    whole = video_session.answer
    monkeypatch.setattr(video_session, "answer", lambda *given: asked.append(len(given[1])) or whole(*given))
    session = newest.session()
    session.prompt(1, 0, **BOX)
    session.prompt(2, 0, **CLICKS)
    session.prompt(3, 1, points=[[40, 50]])  # later than the others: on its own
    asked.clear()
    found = dict(session.propagate(count=3))
    assert asked == [1, 2, 2, 1]  # the third goes back from its prompt to frame 0, where the others are given
    assert found[2].logits.shape[0] == 3
    assert not torch.equal(found[2].logits[0], found[2].logits[1])


def test_an_object_out_of_sight_has_no_mask_and_the_same_pointer(newest):
    session = newest.session()
    session.prompt(1, 0, **BOX)
    found = dict(session.propagate(count=2))[1]
    assert found.scores.item() <= 0
    assert (found.logits == -1024).all()
    pointer = session._banks[1].find(1).found.pointers
    assert torch.equal(pointer, newest.model.memory.pointers.absent)
    empty = answer_mask(newest.model, newest.model.encode(newest.frames[0][None]), torch.zeros(1, 128, 128).bool())
    assert empty.scores.item() == -10
    assert torch.allclose(empty.logits, torch.tensor(-10.0))


def test_the_stages_pass_gradients_on(newest):
    """What training needs: a loss of a later frame reaches the first one, through the memory."""
    from nexus.models.cv.sam2.tracking import Pointed, Remembered, recall, remember

    model = authors_model(newest.tensors)
    image = newest.frames[0][None].clone().requires_grad_()
    first = model.encode(image)
    found = answer(model, first_sight(model, first), first)
    memory = remember(model, first, found, prompted=False)
    second = model.encode(newest.frames[3][None])
    tokens = recall(model, second, [Remembered(1, memory)], [Pointed(1, found.pointers)], 16)
    answer(model, tokens, second).logits.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.any()
    assert model.memory.pointers.time_proj.weight.grad.any()
    assert model.memory.times.grad[0].any()


TINY = SAM2Config(
    image_size=32,
    trunk_embed_dim=4,
    trunk_depths=(1, 1, 1, 1),
    trunk_global_blocks=(),
    trunk_windows=(4, 4, 2, 1),
    trunk_background=(2, 2),
    embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=2,
    decoder_mlp_dim=8,
    mask_dim=4,
    iou_head_dim=8,
    memory_dim=8,
    memory_depth=1,
    memory_mlp_dim=8,
    fuser_depth=1,
)


def tiny() -> SAM2:
    torch.manual_seed(0)
    return SAM2(TINY).eval()


def held() -> int:
    gc.collect()
    return sum(1 for one in gc.get_objects() if issubclass(type(one), torch.Tensor))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video():
    session = VideoSession(tiny(), (32, 32))
    session.push(torch.zeros(3, 32, 32))
    session.prompt(1, points=[[10, 10]])
    session.prompt(2, boxes=[3, 3, 20, 20])
    sizes = {}
    for number in range(1, 2001):
        session.push(torch.randn(3, 32, 32))
        if number in (200, 2000):
            sizes[number] = held(), resident()
    assert sizes[2000][0] == sizes[200][0]
    assert sizes[2000][1] < 1.05 * sizes[200][1]


def test_the_frames_that_are_kept():
    session = VideoSession(tiny(), (32, 32))
    session.push(torch.zeros(3, 32, 32))
    session.prompt(1, points=[[10, 10]])
    for _ in range(20):
        session.push(torch.randn(3, 32, 32))
    before = held()
    for _ in range(20):
        session.push(torch.randn(3, 32, 32))
    assert held() == before
    assert list(session._banks[1].tracked) == list(range(25, 41))
    assert list(session._banks[1].prompted) == [0]


def test_a_frame_that_was_tracked_long_ago_is_prompted_afresh():
    session = VideoSession(tiny(), (32, 32), [torch.zeros(3, 32, 32)] * 40, keep=15)
    session.prompt(1, 0, points=[[10, 10]])
    list(session.propagate())
    session.prompt(1, 3, points=[[5, 5]])
    session.prompt(1, 38, points=[[5, 5]])
    assert set(session._banks[1].prompted) == {0, 3}
    assert set(session._banks[1].corrected) == {38}


def test_errors_say_what_to_do():
    model, frame = tiny(), torch.zeros(3, 32, 32)
    stream, video = VideoSession(model, (32, 32)), VideoSession(model, (32, 32), [frame] * 3)
    said = [
        (lambda: stream.prompt(1, points=[[1, 1]]), "There is no frame yet: `push` one first"),
        (lambda: stream.push(frame[None]), r"A frame is \(1, 3, 32, 32\); it is what the model sees"),
        (lambda: stream.push(frame.byte()), "images are torch.uint8; the model takes normalized floats"),
        (lambda: stream.push(torch.zeros(3, 30, 32)), "both sides must be multiples of 32"),
        (lambda: stream.propagate(), "This session is a stream, whose frames are pushed"),
        (lambda: video.push(frame), "This session reads its frames itself: call `propagate`"),
        (lambda: video.propagate(), "Nothing is followed yet: `prompt` an object first"),
        (lambda: video.prompt(1, 3, points=[[1, 1]]), "There is no frame 3; the video has 3, from 0"),
        (lambda: video.prompt(1, 0), "There is no prompt: give points, boxes or masks"),
        (lambda: video.prompt("a", 0, points=[[1, 1]]), "object_id is 'a'; it is a whole number"),
        (lambda: video.prompt(1, True, points=[[1, 1]]), "frame is True; it is the number of one, from 0"),
        (
            lambda: video.prompt(1, 0, points=[[40, 1]]),
            r"The point \(40, 1\) is outside of the image, which is 32 x 32",
        ),
        (lambda: video.prompt(1, 0, points=[[[1, 1]], [[2, 2]]]), "The prompts are of several objects"),
        (lambda: video.prompt(1, 0, masks=torch.zeros(8, 8)), r"A mask has shape \(8, 8\); it is of the size of the"),
        (lambda: video.prompt(1, 0, masks=torch.zeros(32, 32), points=[[1, 1]]), "masks are given with points; a mask"),
        (lambda: video.remove(4), "There is no object 4; there are: none"),
        (lambda: VideoSession(model, (32, 32), keep=3), "keep is 3; the model looks back at 15 frames"),
        (lambda: VideoSession(model, (0, 32)), r"size is \(0, 32\); it is the \(height, width\)"),
        (lambda: memory_of(SAM2(TINY.replace(video=False))), "was built with video=False, for images alone"),
    ]
    for call, text in said:
        with pytest.raises(ValueError, match=text):
            call()
    assert video.object_ids == (), "a prompt that was refused adds no object"
    stream.push(frame)
    stream.push(frame)
    with pytest.raises(ValueError, match="Frame 0 is gone: of a stream only the last frame, 1, can be prompted"):
        stream.prompt(1, 0, points=[[1, 1]])
