"""SAM's training: the dialogue against `SAM.predict`, one object after another; losses against their formulas."""

import math

import pytest
import torch

from nexus.models.cv import SAM, SAMConfig
from nexus.models.cv.sam import Targets, practice
from nexus.models.cv.sam.mask_decoder import enlarge
from nexus.models.cv.sam.practice import Prompted, judged, practise, schedule, tokens
from nexus.ops.clicks import PromptConfig
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SMALL

SIDE = SMALL["image_size"]


def small(**changes) -> SAM:
    torch.manual_seed(0)
    model = SAM(SAMConfig(**SMALL | changes))
    randomize(model)
    return model


def objects() -> Targets:
    """Three objects: two discs in the first image and a rectangle in the third of three."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    discs = [(x - a) ** 2 + (y - b) ** 2 < r**2 for a, b, r in ((20, 30, 9), (45, 15, 12))]
    rectangle = (x >= 5) & (x < 40) & (y >= 50) & (y < 60)
    return Targets(torch.stack([*discs, rectangle]), torch.tensor([0, 0, 2]))


def first_wrong(wanted, found):
    """In place of chance: the first pixel of the error."""
    error = (wanted ^ found).flatten(1)
    place = error.float().argmax(dim=1)
    return torch.stack([place % SIDE, place // SIDE], dim=1), wanted.flatten(1).gather(1, place[:, None])[:, 0].long()


def naive_focal(logits, truth):
    total = 0.0
    for x, inside in zip(logits.flatten().tolist(), truth.flatten().tolist()):
        p = 1 / (1 + math.exp(-x)) if inside else 1 - 1 / (1 + math.exp(-x))
        total -= (0.25 if inside else 0.75) * (1 - p) ** 2 * math.log(p)
    return total / truth.numel()


def naive_dice(logits, truth):
    p, t = logits.double().sigmoid(), truth.double()
    return float(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))


def by_hand(model, embedding, truth, box, clicked):
    """Focal, dice and IoU loss of each round of one object, by `SAM.predict` alone."""
    points, labels, low, found, rounds = [], [], None, torch.zeros_like(truth), []
    for number, click in enumerate([box is None, *clicked]):
        if click:
            place, label = first_wrong(truth[None], found[None])
            points.append(place[0].tolist())
            labels.append(int(label))
        prompt = {} if box is None else {"boxes": box}
        prompt |= {"points": points, "labels": labels} if points else {}
        prompt |= {} if low is None else {"masks": low}
        several = number == 0 and box is None
        said = model.predict(image_embedding=embedding, prompt=prompt, multimask=several)
        masks, scores = said["masks"][0, 0], said["iou_scores"][0, 0]
        ious = [float(((m > 0) & truth).sum() / ((m > 0) | truth).sum()) for m in masks]
        losses = [(naive_focal(m, truth), naive_dice(m, truth)) for m in masks]
        focal, dice = min(losses, key=lambda pair: 20 * pair[0] + pair[1])
        rounds.append((focal, dice, sum((s - i) ** 2 for s, i in zip(scores.tolist(), ious)) / len(ious)))
        best = scores.argmax()
        low, found = said["low_res_masks"][0, 0, best], masks[best] > 0
    return rounds


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_dialogue_is_that_of_predict_one_object_after_another(share, monkeypatch):
    model, targets = small().eval(), objects()._replace(prompting=PromptConfig(box_share=share, box_noise=0.0))
    clicked = [True, False, True]
    monkeypatch.setattr(practice, "random_clicks", first_wrong)
    monkeypatch.setattr(practice, "schedule", lambda settings: clicked)
    with torch.no_grad():
        embeddings = model.image_encoder(torch.randn(3, 3, SIDE, SIDE))
        losses = practise(model, embeddings, targets)
        rounds = []
        for mask, image in zip(targets.masks, targets.image.tolist()):
            rows, columns = mask.nonzero().unbind(1)
            box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            rounds += by_hand(model, embeddings[image : image + 1], mask, box if share else None, clicked)
    focal, dice, iou = torch.tensor(rounds, dtype=torch.float64).mean(dim=0).tolist()
    assert float(losses["focal"]) == pytest.approx(20 * focal, rel=1e-4)
    assert float(losses["dice"]) == pytest.approx(dice, rel=1e-4)
    assert float(losses["iou"]) == pytest.approx(iou, rel=1e-4)


def test_points_and_boxes_stand_in_one_batch():
    model = small()
    points, labels = torch.rand(4, 3, 2) * SIDE, torch.tensor([[1, 0, 1]]).expand(4, 3)
    boxes = torch.tensor([[3.0, 4, 30, 40]]).expand(4, 4)
    boxed = torch.tensor([True, False, False, True])
    mixed = tokens(model.prompt_encoder, Prompted(points, labels, boxes, boxed), (4, 4))
    for place, own in enumerate(boxed.tolist()):
        one = slice(place, place + 1)
        given = (points[one, 1:], labels[one, 1:], boxes[one]) if own else (points[one], labels[one], None)
        torch.testing.assert_close(mixed[one], model.prompt_encoder.sparse((4, 4), *given))
    first = tokens(model.prompt_encoder, Prompted(points[:, :1], labels[:, :1], boxes, boxed), (4, 4))
    assert first.shape == (4, 2, SMALL["embed_dim"])


def test_rounds_are_those_of_the_paper():
    torch.manual_seed(0)
    places = []
    for _ in range(900):
        rounds = schedule(PromptConfig())
        assert (len(rounds), sum(rounds), rounds[-1]) == (10, 8, False)
        places.append(rounds.index(False))
    counts = torch.bincount(torch.tensor(places), minlength=9)
    assert counts.min() > 60  # of 100 expected
    assert schedule(PromptConfig(rounds=2, refinements=0)) == [True, True]
    assert schedule(PromptConfig(rounds=0, refinements=1)) == [False]


def test_only_the_mask_of_least_loss_learns_and_all_scores_do():
    torch.manual_seed(0)
    truth = (torch.rand(2, SIDE // 4, SIDE // 4) < 0.4).repeat_interleave(4, 1).repeat_interleave(4, 2)
    logits = torch.randn(2, 4, SIDE // 4, SIDE // 4)
    logits[0, 2] = truth[0, ::4, ::4] * 4.0 - 2
    logits[1, 3] = truth[1, ::4, ::4] * 4.0 - 2
    logits.requires_grad_()
    scores = torch.tensor([[9.0, 0.1, 0.3, 0.7], [0.5, 0.1, 0.3, 0.2]], requires_grad=True)
    answer = judged(logits, scores, torch.tensor([False, True]), truth)
    (answer.focal + answer.dice + answer.iou).sum().backward()
    learned = logits.grad.flatten(2).any(dim=2)
    assert learned.tolist() == [[False, False, True, False], [True, False, False, False]]
    assert (scores.grad != 0).tolist() == [[False, True, True, True], [True, False, False, False]]
    assert torch.equal(
        answer.found[0], enlarge(logits[None, :1, 3:], (SIDE, SIDE))[0, 0, 0] > 0
    )  # the one that is expected most of is corrected
    assert torch.equal(answer.low[1, 0], logits[1, 0])


def test_all_parameters_learn():
    model, targets = small(), objects()
    torch.manual_seed(1)
    many = Targets(targets.masks.repeat(6, 1, 1), targets.image.repeat(6), PromptConfig(rounds=2))
    outputs = model(torch.randn(3, 3, SIDE, SIDE), targets=many)
    assert set(outputs["losses"]) == {"focal", "dice", "iou"}
    sum(outputs["losses"].values()).backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    ambiguous = {f"mask_decoder.mask_mlps.{number}." for number in (1, 2, 3)}  # of these one is best at a time
    assert len({start for start in ambiguous for name in still if name.startswith(start)}) <= 2
    assert not [name for name in still if not name.startswith(tuple(ambiguous))]


@pytest.mark.parametrize("prompting", [PromptConfig(rounds=0, refinements=0), PromptConfig(rounds=1, box_share=1.0)])
def test_every_parameter_has_a_part_whatever_is_drawn(prompting):
    """Processes that share gradients wait for all of them."""
    model = small()
    for targets in (objects(), Targets(torch.zeros(0, SIDE, SIDE).bool(), torch.zeros(0).long())):
        model.zero_grad()
        losses = model(torch.randn(3, 3, SIDE, SIDE), targets=targets._replace(prompting=prompting))["losses"]
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert len(targets.masks) or not any(parameter.grad.any() for parameter in model.parameters())


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = small().eval()
        model.set_gradient_checkpointing(checkpointing)
        torch.manual_seed(3)
        images = torch.randn(3, 3, SIDE, SIDE)
        losses = model(images, targets=objects()._replace(prompting=PromptConfig(rounds=1)))["losses"]
        sum(losses.values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": -1}, "rounds is -1; it must be at least 0"),
        ({"max_objects": 0}, "max_objects is 0; it must be at least 1"),
        ({"box_share": 1.5}, "box_share is 1.5; it is a share, from 0 to 1"),
        ({"box_noise": math.inf}, "box_noise and max_box_noise must be at least 0 and finite"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        PromptConfig(**setting)
