"""SAM 2 learning from clips: what is followed in training is what is followed afterwards, and what the losses say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nexus.models.cv.sam.prompts import Prompts
from nexus.models.cv.sam2 import SAM2, VideoSession
from nexus.models.cv.sam2.clip_practice import LOSSES, ClipTargets, Plan, _Lesson, judge, plan, practise_clips
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.tracking import first_sight
from nexus.ops.clicks import ClipPromptConfig
from tests.nexus.tasks.video_segmentation.test_video_task import TINY


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = SAM2(TINY)
    torch.nn.init.constant_(model.mask_decoder.object_head.layers[-1].bias, 5.0)  # objects are in sight
    return model


@pytest.fixture
def targets():
    """Two clips of five frames with three squares that move; the last of them leaves after two frames."""
    masks = torch.zeros(3, 5, 64, 64, dtype=torch.bool)
    for at in range(5):
        masks[0, at, 10 + at : 30 + at, 5 : 5 + 20] = True
        masks[1, at, 30:50, 20 + 3 * at : 40 + 3 * at] = True
    masks[2, :2, 40:60, 40:60] = True
    return ClipTargets(masks, torch.tensor([0, 1, 1]))


def images():
    return torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_training_follows_as_a_session_does(model, targets):
    """By masks: a session remembers a clicked frame without shades, and training with them."""
    frames = images()
    with torch.no_grad():
        lesson = _Lesson(model, model.encode(frames), targets, Plan("mask", (0,), ()))
        steps = lesson.run()
    assert len(steps) == 4
    model.eval()
    for number, clip in enumerate(targets.clip.tolist()):
        session = VideoSession(model, (64, 64), list(frames[5 * clip : 5 * clip + 5]))
        session.prompt(1, 0, masks=targets.masks[number, 0])
        for step, (_, tracked) in zip(steps, list(session.propagate())[1:], strict=True):
            torch.testing.assert_close(step.answer.scores[number], tracked.scores[0], atol=2e-3, rtol=0)
            torch.testing.assert_close(step.answer.logits[number], tracked.logits[0], atol=5e-3, rtol=0)


def test_losses_are_those_of_the_paper(model, targets):
    """Read one by one: 20 focal + dice of the best mask, L1 of every mask's IoU, entropy of whether it is in sight."""
    with torch.no_grad():
        embedding = Embedding(*(part[[0, 5, 9]] for part in model.encode(images())))
        truth = targets.masks[:, 4]
        found = judge(model, first_sight(model, embedding), embedding, None, truth)
        nowhere = {"points": torch.zeros(3, 1, 1, 2), "labels": torch.full((3, 1, 1), -1)}
        masks = model.masks(embedding._replace(tokens=first_sight(model, embedding)), Prompts(**nowhere))
    for number in range(3):
        goal = truth[number].double()
        costs, ious = [], []
        for k in (1, 2, 3):
            logits = F.interpolate(masks.logits[number, :, k][None], size=(64, 64), mode="bilinear")[0, 0].double()
            share = torch.sigmoid(logits)
            right = torch.where(goal > 0, share, 1 - share)
            alpha = torch.where(goal > 0, 0.25, 0.75).double()
            focal = (-alpha * (1 - right) ** 2 * right.log()).mean()
            dice = 1 - (2 * (share * goal).sum() + 1) / (share.sum() + goal.sum() + 1)
            costs.append((20 * focal + dice, focal, dice))
            inside, wanted = logits > 0, goal > 0
            iou = (inside & wanted).sum() / max(1, int((inside | wanted).sum()))
            ious.append((masks.iou_scores[number, 0, k] - iou).abs())
        there = bool(truth[number].any())
        _, focal, dice = min(costs)
        assert float(found.focal[number]) == pytest.approx(float(focal) * there, rel=1e-4)
        assert float(found.dice[number]) == pytest.approx(float(dice) * there, rel=1e-4)
        assert float(found.iou[number]) == pytest.approx(float(sum(ious) / 3) * there, rel=1e-4)
        entropy = -F.logsigmoid(masks.object_scores[number, 0] * (1 if there else -1))
        assert float(found.presence[number]) == pytest.approx(float(entropy), rel=1e-4)
    assert not truth[2].any()


def test_all_that_is_for_video_learns(model, targets):
    seen = {name: False for name, _ in model.named_parameters()}
    for seed, share in ((0, 1.0), (1, 1.0), (2, 0.0)):
        torch.manual_seed(seed)
        model.zero_grad()
        prompting = ClipPromptConfig(point_share=share, corrections=2)
        outputs = model(images(), targets=targets._replace(prompting=prompting))
        assert set(outputs["losses"]) == set(LOSSES)
        sum(outputs["losses"].values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
            seen[name] |= bool(parameter.grad.any())
    still = [name for name, moved in seen.items() if not moved]
    by_chance = ("mask_decoder.mask_mlps.", "memory.absent", "memory.pointers.absent")  # masks that were never the best
    assert [name for name in still if not name.startswith(by_chance)] == ["memory.no_memory_position"]


def test_it_learns_to_follow(model, targets):
    """Squares that are lighter than the ground."""
    torch.manual_seed(0)
    frames = torch.zeros(2, 5, 3, 64, 64)
    for mask, clip in zip(targets.masks, targets.clip.tolist()):
        frames[clip] += mask[:, None] * torch.tensor([2.0, -1.0, 0.5])[:, None, None]
    lesson = targets._replace(
        prompting=ClipPromptConfig(point_share=1.0, box_share=0.0, corrections=0, prompted_frames=1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        losses = model(frames.flatten(0, 1), targets=lesson)["losses"]
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append({name: float(value.detach()) for name, value in losses.items()})
    first, last = (np.mean([sum(one.values()) for one in part]) for part in (values[:3], values[-5:]))
    assert last < 0.75 * first


def test_plans_are_drawn_as_the_configuration_says(targets):
    torch.manual_seed(0)
    drawn = [plan(targets) for _ in range(400)]
    counts = {kind: sum(one.kind == kind for one in drawn) / 400 for kind in ("mask", "click", "box")}
    assert counts["mask"] == pytest.approx(0.5, abs=0.08)
    assert counts["click"] == pytest.approx(0.25, abs=0.08)
    assert all(one.prompted[0] == 0 and len(one.prompted) <= 2 for one in drawn)
    assert {one.prompted for one in drawn} == {(0,), (0, 1)}  # later the third object is gone
    assert all(one.corrected == () for one in drawn if one.kind == "mask")
    clicked = [one for one in drawn if one.kind != "mask"]
    assert all(set(one.prompted) <= set(one.corrected) and len(one.corrected) <= 2 for one in clicked)
    assert {len(one.corrected) for one in clicked} == {1, 2}
    fixed = targets._replace(
        prompting=ClipPromptConfig(point_share=1.0, box_share=1.0, prompted_frames=1, corrections=0)
    )
    assert plan(fixed) == Plan("box", (0,), ())


def test_without_objects_there_is_nothing_to_learn(model, targets):
    losses = practise_clips(model, model.encode(images()), ClipTargets(targets.masks[:0], targets.clip[:0]))
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(LOSSES, 0.0)


def test_settings_out_of_range_are_named():
    for fields, message in (
        ({"frames": 0}, "ClipPromptConfig.frames is 0; it must be at least 1"),
        ({"point_share": 2}, "ClipPromptConfig.point_share is 2.0; it is a share, from 0 to 1"),
        ({"box_noise": -1}, "box_noise and max_box_noise must be at least 0 and finite"),
        ({"frame": 1}, "Did you mean 'frames'"),
    ):
        with pytest.raises(ValueError, match=message):
            ClipPromptConfig.from_mapping(fields)
