"""Batches: what belongs to the items is split with them, everything else is shared."""

import pytest
import torch

from nexus.data.batch import batch_length, place, split


def test_values_of_the_batchs_length_are_split_and_others_shared():
    words = torch.ones(3, 26)
    batch = {
        "index": torch.arange(4),
        "targets": [{"boxes": torch.full((n, 4), float(n))} for n in range(4)],
        "sizes": ((1, 1), (2, 2), (3, 3), (4, 4)),
        "words": words,
        "question": "How?!",
        "scale": torch.tensor(2.0),
    }
    first, second = split(batch, 2)
    assert first["index"].tolist() == [0, 1]
    assert [len(target["boxes"]) for target in second["targets"]] == [2, 3]
    assert second["sizes"] == ((3, 3), (4, 4))
    assert first["words"] is second["words"] is words
    assert (first["question"], second["scale"]) == ("How?!", torch.tensor(2.0))
    with pytest.raises(ValueError, match="A batch of 4 items cannot be split into 3 equal parts"):
        split(batch, 3)
    with pytest.raises(ValueError, match=r"has the keys images; it must have 'index'"):
        batch_length({"images": 1})


def test_tensors_are_placed_wherever_they_stand():
    batch = {"index": torch.arange(2), "targets": [{"boxes": torch.ones(1, 4)}], "path": "a", "sizes": [(1, 2)]}
    placed = place(batch, torch.device("meta"))
    assert placed["index"].device.type == placed["targets"][0]["boxes"].device.type == "meta"
    assert (placed["path"], placed["sizes"]) == ("a", [(1, 2)])
