"""How good frozen features are: k nearest neighbours and a linear classifier on top of them.

Features are computed once, without augmentation. Both probes then take seconds.

Dims: n images to learn from, m images to classify, d width, k classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nexus.core.config import nearest
from nexus.core.preprocessing import Preprocessing
from nexus.data import Dataset, Loader, eval_transform, load_dataset
from nexus.data.facets import class_names_of
from nexus.ops.ranking import correct_guesses
from nexus.tasks.source import as_input, evaluating, open_model, preprocessing_of
from nexus.tasks.table import task_of

PROBES = ("knn", "linear")


@dataclass(frozen=True, eq=False)
class Features:
    """What a model says about each image of a data set.

    Attributes:
        values: (n, d), float32, on the CPU.
        labels: int64 (n,).
        class_names: Names of the classes.
    """

    values: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """How well a probe of frozen features classifies.

    Attributes:
        probe: "knn" or "linear".
        metrics: `top1`, and of more than five classes `top5`, from 0 to 1.
        settings: What the probe was made with.
        num_train: Images that it learned from; `num_test` those that it was measured on.
    """

    probe: str
    metrics: dict[str, float]
    settings: dict[str, float]
    num_train: int
    num_test: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return dict(vars(self))


def extract_features(
    model: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    preprocessing: Preprocessing | None = None,
) -> Features:
    """Returns the model's `embeddings` of every image, without augmentation.

    Args:
        model: Gives `embeddings` (b, d), as every classifier of the zoo does. Of a model that is
            pre-trained the part that is kept is taken.
        dataset: Images and labels.
        batch_size: Images that the model sees at once.
        num_workers: Processes that read images; 0 reads them in this one.
        preprocessing: Instead of the model's own.

    Raises:
        ValueError: The model gives no embeddings, or they are not finite.
    """
    transform = eval_transform(preprocessing_of(model, preprocessing))
    model = task_of(model).for_model(model).feature_model(model)
    loader = Loader(dataset, transform, batch_size=batch_size, num_workers=num_workers)
    values, labels = [], []
    with evaluating(model):
        for batch in loader:
            outputs = model(as_input(model, batch["images"]))
            if not isinstance(outputs, dict) or "embeddings" not in outputs:
                raise ValueError(f"{type(model).__name__} gives no 'embeddings' (b, d), which a probe learns from.")
            values.append(outputs["embeddings"].float().cpu())
            labels.append(batch["labels"])
    features = Features(torch.cat(values).clone(), torch.cat(labels), class_names_of(dataset))
    broken = (~features.values.isfinite().all(dim=1)).nonzero()
    if len(broken):
        raise ValueError(
            f"The features of {len(broken)} of {len(dataset)} images are not finite, first of image {int(broken[0])}."
            " The weights are broken, or the training diverged."
        )
    return features


def knn_scores(
    train: Features, queries: Float[Tensor, "m d"], *, neighbours: int = 20, temperature: float = 0.07
) -> Float[Tensor, "m k"]:
    """Returns the votes of the nearest training images for each class, as DINO measures features.

    Nearness is the cosine; each of the nearest votes for its class with weight exp(cosine / temperature) (Caron et al.
    2021, Sec. 4.1, after Wu et al. 2018, Sec. 3.4). There, k is 20 and the temperature 0.07.

    Args:
        train: What is looked up; `neighbours` more than it has are all of it.
        queries: Features to classify.
        neighbours: How many vote.
        temperature: The lower, the more the nearest ones count.

    Raises:
        ValueError: `neighbours` or `temperature` is not above 0.
    """
    if neighbours < 1 or temperature <= 0:
        raise ValueError(f"neighbours is {neighbours} and temperature {temperature}; both must be above 0.")
    known = F.normalize(train.values, dim=1)
    parts = []
    for chunk in F.normalize(queries, dim=1).split(1024):
        cosines, places = (chunk @ known.T).topk(min(neighbours, len(known)), dim=1)
        votes = torch.zeros(len(chunk), len(train.class_names))
        # The largest cosine is 1: taking it off keeps the exponentials of a low temperature finite.
        parts.append(votes.scatter_add_(1, train.labels[places], ((cosines - 1) / temperature).exp()))
    return torch.cat(parts)


class LinearProbe(nn.Module):
    """A linear classifier of standardized features, fitted by L-BFGS.

    The loss is the mean cross-entropy plus `l2 / 2` times the squared norm of the weights (not of the bias), which is
    scikit-learn's logistic regression with C = 1 / (l2 * n).
    """

    def __init__(self, train: Features, *, l2: float = 1e-3, steps: int = 200) -> None:
        """Fits the classifier.

        Args:
            train: What it learns from.
            l2: Strength of the penalty.
            steps: Iterations of L-BFGS, at most.

        Raises:
            ValueError: `l2` is negative, or there is nothing to learn from.
        """
        super().__init__()
        if l2 < 0 or len(train.labels) == 0:
            raise ValueError(f"l2 is {l2} and there are {len(train.labels)} images; neither may be below 0, or none.")
        values = train.values.double()  # in float32 the line search ends before the minimum
        self.register_buffer("mean", values.mean(dim=0))
        self.register_buffer("scale", values.std(dim=0, correction=0).clamp(min=1e-6))
        self.head = nn.Linear(values.shape[1], len(train.class_names), dtype=torch.float64)
        self._fit(train, l2, steps)

    def forward(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """Returns logits in float64."""
        return self.head((features.double() - self.mean) / self.scale)

    def _fit(self, train: Features, l2: float, steps: int) -> None:
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        optimizer = torch.optim.LBFGS(
            self.head.parameters(),
            max_iter=steps,
            history_size=20,
            tolerance_grad=1e-8,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(self(train.values), train.labels)
            value = value + l2 / 2 * self.head.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        self.requires_grad_(False)


def probe(
    model: nn.Module | str | Path,
    data: str | tuple[Dataset, Dataset],
    name: str,
    *,
    split: str = "val",
    root: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    neighbours: int = 20,
    temperature: float = 0.07,
    l2: float = 1e-3,
) -> Probe:
    """Returns how well a probe of a model's frozen features classifies.

    Args:
        model: A module, the folder of a run or of a saved model, or the name of a model with published weights.
        data: What `load_dataset` takes; the probe learns from its "train". Or a pair: to learn from, to measure on.
        name: "knn" (see `knn_scores`) or "linear" (see `LinearProbe`).
        split: Which part of a data set that is named is measured on.
        root: Where the named data set's files are.
        batch_size: Images that the model sees at once.
        num_workers: Processes that read images.
        device: None means where the module is, or a GPU if there is one.
        neighbours: Of "knn".
        temperature: Of "knn".
        l2: Of "linear".

    Raises:
        ValueError: There is no such probe, or model and data do not fit.
    """
    if name not in PROBES:
        raise ValueError(f"There is no probe {name!r}. {nearest(name, PROBES)}")
    module = open_model(model, device)
    parts = tuple(load_dataset(data, part, root=root) for part in ("train", split)) if isinstance(data, str) else data
    train, test = (extract_features(module, part, batch_size=batch_size, num_workers=num_workers) for part in parts)
    if name == "knn":
        settings: dict[str, float] = {"neighbours": neighbours, "temperature": temperature}
        scores = knn_scores(train, test.values, neighbours=neighbours, temperature=temperature)
    else:
        settings = {"l2": l2}
        scores = LinearProbe(train, l2=l2)(test.values)
    hits = correct_guesses(scores, test.labels)
    metrics = {"top1": hits[:, 0].float().mean().item()}
    if scores.shape[1] > 5:
        metrics["top5"] = hits.any(dim=1).float().mean().item()
    return Probe(name, metrics, settings, len(train.labels), len(test.labels))
