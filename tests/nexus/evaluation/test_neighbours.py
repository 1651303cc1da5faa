"""Nearest neighbours and retrieval on cases small enough to count by hand."""

import math

import pytest
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.data import load_dataset
from nexus.evaluation.neighbours import embed_dataset, neighbour_scores
from nexus.models.cv import DINOv2
from nexus.tasks.image_text import retrieval_recall


def test_votes_weigh_the_exponential_of_the_cosine():
    references = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    scores = neighbour_scores(
        torch.tensor([[3.0, 0.0]]), references, torch.tensor([1, 0, 2]), 3, num_neighbours=2, temperature=0.5
    )
    first, second = math.exp(1 / 0.5), math.exp(0.0)
    torch.testing.assert_close(scores, torch.tensor([[second, first, 0.0]]) / (first + second))


def test_digits_are_found_by_a_network_that_was_never_trained():
    """Even random features of pixels tell digits apart: the reference images must be what the queries are compared with."""
    torch.manual_seed(0)
    model = DINOv2(
        {"image_size": 8, "patch_size": 4, "in_channels": 1, "embed_dim": 48, "num_layers": 1, "num_heads": 2}
    )
    preprocessing = Preprocessing(image_size=(8, 8), mean=(0.5,), std=(0.5,))
    sets = [load_dataset("digits", split) for split in ("train", "val")]
    (references, labels), (queries, wanted) = (embed_dataset(model, data, preprocessing=preprocessing) for data in sets)
    assert references.shape == (1437, 48)
    assert labels.tolist() == sets[0].labels.tolist()
    guesses = neighbour_scores(queries, references, labels, 10).argmax(dim=1)
    assert (guesses == wanted).float().mean() > 0.5
    shuffled = neighbour_scores(queries, references, labels.roll(7), 10).argmax(dim=1)
    assert (shuffled == wanted).float().mean() < 0.3


def test_recall_in_both_directions():
    similarities = torch.tensor([[0.9, 0.15, 0.8, 0.7], [0.2, 0.1, 0.3, 0.4]])
    found = retrieval_recall(similarities, torch.tensor([0, 0, 1, 1]), at=(1, 2))
    assert found == {
        "image_to_text_recall@1": 100.0,
        "image_to_text_recall@2": 100.0,
        "text_to_image_recall@1": 50.0,
        "text_to_image_recall@2": 100.0,
    }


def test_mistakes_are_explained():
    rows = torch.eye(3)
    with pytest.raises(ValueError, match="num_neighbours is 4; with these references it must be 1 to 3"):
        neighbour_scores(rows, rows, torch.arange(3), 3, num_neighbours=4)
    with pytest.raises(ValueError, match="There are 3 references and 2 labels"):
        neighbour_scores(rows, rows, torch.arange(2), 3)
    with pytest.raises(ValueError, match="There are 3 texts and 2 owners"):
        retrieval_recall(rows, torch.arange(2))
    with pytest.raises(ValueError, match="every one of the 3 images"):
        retrieval_recall(rows, torch.tensor([0, 1, 1]))
