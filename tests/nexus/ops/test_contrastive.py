"""Losses over pairs of images and texts: their formulas, and the same numbers on one process and on two."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from nexus.ops.contrastive import sigmoid_contrastive_loss, softmax_contrastive_loss

LOSSES = {
    "softmax": lambda images, texts, scale, bias: softmax_contrastive_loss(images, texts, scale) + 0 * bias,
    "sigmoid": sigmoid_contrastive_loss,
}


def pairs(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(count, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [F.normalize(rows, dim=-1) for rows in drawn]


def gradients(name: str, images: torch.Tensor, texts: torch.Tensor) -> list[torch.Tensor]:
    """Returns the loss and its gradients by images, texts, scale and bias."""
    scale, bias = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    inputs = [value.clone().requires_grad_() for value in (images, texts, scale, bias)]
    loss = LOSSES[name](*inputs)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def test_softmax_is_the_mean_of_both_directions():
    images, texts = pairs(2)
    cosines = 3 * images @ texts.T
    by_image = -(cosines.diag() - cosines.exp().sum(1).log()).mean()
    by_text = -(cosines.diag() - cosines.exp().sum(0).log()).mean()
    found = softmax_contrastive_loss(images, texts, torch.tensor(3.0))
    torch.testing.assert_close(found, (by_image + by_text) / 2)


def test_sigmoid_judges_every_pair_alone():
    images, texts = pairs(3)
    total = 0.0
    for i in range(3):
        for j in range(3):
            sign = 1 if i == j else -1
            total -= F.logsigmoid(sign * (3 * images[i] @ texts[j] - 2)).item()
    found = sigmoid_contrastive_loss(images, texts, torch.tensor(3.0), torch.tensor(-2.0))
    assert found.item() == pytest.approx(total / 3, abs=1e-12)


def _rank(rank: int, size: int, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    part = slice(3 * rank, 3 * rank + 3)
    found = {name: gradients(name, *(rows[part] for rows in pairs())) for name in LOSSES}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_see_what_one_does(tmp_path):
    """The mean over processes of the loss, and of the gradients as DDP takes it, are those of the whole batch."""
    mp.spawn(_rank, args=(2, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in LOSSES:
        loss, images, texts, scale, bias = gradients(name, *pairs())
        first, second = (rank[name] for rank in ranks)
        for index, wanted in ((0, loss), (3, scale), (4, bias)):
            torch.testing.assert_close((first[index] + second[index]) / 2, wanted, rtol=0, atol=1e-12)
        for index, wanted in ((1, images), (2, texts)):
            torch.testing.assert_close(torch.cat([first[index], second[index]]) / 2, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_must_match(name):
    images, texts = pairs()
    with pytest.raises(
        ValueError, match=r"images have embeddings \(6, 5\) and texts \(4, 5\); the loss needs one text"
    ):
        LOSSES[name](images, texts[:4], torch.tensor(1.0), torch.tensor(0.0))
