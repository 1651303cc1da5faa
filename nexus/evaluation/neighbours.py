"""What frozen embeddings are worth to their nearest neighbours.

Neighbours: Wu et al. 2018, Sec. 3.4, https://arxiv.org/abs/1805.01978, as DINO and DINOv2 measure them.

Dims: b queries, n references, d width, k classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.preprocessing import Preprocessing
from nexus.data import Dataset, Loader, eval_transform
from nexus.tasks.source import as_input, evaluating, preprocessing_of


def embed_dataset(
    model: nn.Module, data: Dataset, *, batch_size: int = 64, preprocessing: Preprocessing | None = None
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
    """Returns the model's `embeddings` of all images, and their labels, in the order of the data set."""
    transform = eval_transform(preprocessing_of(model, preprocessing))
    loader = Loader(data, transform, batch_size=batch_size, seed=0, shuffle=False, drop_last=False)
    rows, labels = [], []
    with evaluating(model):
        for batch in loader:
            rows.append(model(as_input(model, batch["images"]))["embeddings"].float().cpu())
            labels.append(batch["labels"])
    return torch.cat(rows), torch.cat(labels)


def neighbour_scores(
    queries: Float[Tensor, "b d"],
    references: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    *,
    num_neighbours: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "b k"]:
    """Returns for each query the share of the votes that each class gets from its nearest references.

    Args:
        queries: Embeddings of any length; cosines are compared.
        references: Embeddings whose labels are known.
        labels: Of the references.
        num_classes: Columns of the result.
        num_neighbours: Nearest references that vote; 20 is DINOv2's.
        temperature: A vote weighs the exponential of the cosine over this.

    Raises:
        ValueError: There are fewer references than neighbours, or not a label for each.
    """
    if len(labels) != len(references):
        raise ValueError(f"There are {len(references)} references and {len(labels)} labels; each needs one.")
    if not 1 <= num_neighbours <= len(references):
        raise ValueError(
            f"num_neighbours is {num_neighbours}; with these references it must be 1 to {len(references)}."
        )
    cosines = F.normalize(queries, dim=-1) @ F.normalize(references, dim=-1).T
    nearest, places = cosines.topk(num_neighbours, dim=-1)
    votes = ((nearest - nearest[:, :1]) / temperature).exp()  # the nearest one's weight cancels: it is only kept finite
    scores = votes.new_zeros(len(queries), num_classes).scatter_add_(1, labels[places], votes)
    return scores / scores.sum(dim=-1, keepdim=True)
