"""A detector measured by two processes has the figures of one."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from nexus.core.preprocessing import Preprocessing
from nexus.data.detection import DigitScenes
from nexus.evaluation import evaluate
from nexus.tasks import DetectionTask


class Guesser(nn.Module):
    """Boxes and labels that follow from the pixels of an image alone, some of them near the objects."""

    task = "detection"

    def __init__(self):
        super().__init__()
        self.preprocessing = Preprocessing(image_size=(96, 96), resize="none", mean=(0,) * 3, std=(1,) * 3)

    def forward(self, images, targets=None, *, image_sizes=None):
        outputs = {"boxes": [], "scores": [], "labels": []}
        for image in images:
            chance = torch.Generator().manual_seed(int(image.sum()))
            corner = 70 * torch.rand(100, 2, generator=chance)
            side = 10 + 20 * torch.rand(100, 1, generator=chance)
            outputs["boxes"].append(torch.cat([corner, corner + side], 1))
            outputs["scores"].append(torch.rand(100, generator=chance).sort(descending=True).values)
            outputs["labels"].append(torch.randint(10, (100,), generator=chance))
        return outputs


def measured():
    data = DigitScenes("val", count=23)
    return evaluate(Guesser(), data, batch_size=8, preprocessing=Guesser().preprocessing).to_json()


def one_of_two(rank, port, results):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results[rank] = measured()
    dist.destroy_process_group()


def test_two_processes_measure_what_one_does():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.start_processes(one_of_two, (port, results), nprocs=2, start_method="spawn")
        first, second = results[0], results[1]
    alone = measured()
    assert alone["num_images"] == 23
    assert alone["metrics"]["AR100"] > 0.001, "the figures would be equal for want of any"
    assert first == second == alone


def test_no_image_at_all_is_an_error():
    with pytest.raises(ValueError, match="not one image was seen"):
        DetectionTask().metrics().compute()
