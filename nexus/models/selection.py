"""Which model for which need: three selection matrices, answered from the cards of the registered variants.

A card says what it is good for in `ModelCard.good_for`: keys of the tables below, with the suffix `:alternative`
where it is the second choice.
"""

from typing import Any

from nexus.core.card import LONG_NAMES, ModelCard, task_called
from nexus.core.config import nearest
from nexus.models.registry import list_models, model_info

TASKS = {
    "classification": "a label for each image",
    "detection": "boxes with labels",
    "instance-segmentation": "a mask for each object",
    "semantic-segmentation": "a label for each pixel",
    "pose-estimation": "keypoints of people",
    "open-vocabulary-detection": "boxes for words that were not trained",
    "video-segmentation": "masks that follow objects",
}
CONSTRAINTS = {
    "real-time": "more than 30 images per second",
    "high-accuracy": "slower, but better",
    "mobile": "small and cheap enough for the edge",
    "zero-shot": "no fine-tuning needed",
    "few-shot": "transfers from few examples",
    "interactive": "masks from clicks and boxes",
}
DATA = {
    "none": "use a pre-trained foundation model as it is",
    "10-100": "few-shot transfer: a linear probe on frozen features",
    "1k-10k": "fine-tune a pre-trained backbone",
    "100k+": "train from scratch; any architecture",
}
_MATRICES = {"task": TASKS, "constraint": CONSTRAINTS, "data": DATA}


def recommend(
    *, task: str | None = None, constraint: str | None = None, data: str | None = None
) -> list[dict[str, Any]]:
    """Returns the models that answer every given need, recommended ones first.

    Args:
        task: A key of `TASKS`.
        constraint: A key of `CONSTRAINTS`.
        data: A key of `DATA`, or a number of labelled images such as "5000".

    Returns:
        One row for each family of models: `need`, `advice`, `choice` ("recommended" or "alternative"), `family`,
        `models` (names). Without any need, the rows of all three matrices.

    Raises:
        ValueError: A need is unknown (the nearest is named), or no registered model answers all of them.
    """
    needs = {"task": task and task_called(task), "constraint": constraint, "data": _amount(data) if data else None}
    given = {kind: need for kind, need in needs.items() if need is not None}
    for kind, need in given.items():
        if need not in _MATRICES[kind]:
            known = [*_MATRICES[kind], *(LONG_NAMES if kind == "task" else ())]
            raise ValueError(f"There is no {kind} {need!r}. {nearest(need, known)}")
    cards = [model_info(name) for name in list_models()]
    if not given:
        return [row for kind, matrix in _MATRICES.items() for need in matrix for row in _answers(cards, {kind: need})]
    rows = _answers(cards, given)
    if not rows:
        wanted = " and ".join(f"{kind} {need!r}" for kind, need in given.items())
        raise ValueError(
            f"No registered model answers {wanted}. Ask for fewer needs at once; `nexus recommend` lists all."
        )
    return rows


def _amount(data: str) -> str:
    """Returns the row of the data matrix for a number of labelled images; other text as it is."""
    if not data.isdecimal():
        return data
    count = int(data)
    return "none" if count < 10 else "10-100" if count < 1_000 else "1k-10k" if count < 100_000 else "100k+"


def _answers(cards: list[ModelCard], needs: dict[str, str]) -> list[dict[str, Any]]:
    families: dict[tuple[bool, str], list[str]] = {}
    for card in cards:
        if all(need in card.good_for or f"{need}:alternative" in card.good_for for need in needs.values()):
            second = any(need not in card.good_for for need in needs.values())
            families.setdefault((second, card.model_class.__name__), []).append(card.name)
    advice = "; ".join(_MATRICES[kind][need] for kind, need in needs.items())
    return [
        {
            "need": ", ".join(needs.values()),
            "advice": advice,
            "choice": "alternative" if second else "recommended",
            "family": family,
            "models": names,
        }
        for (second, family), names in sorted(families.items())
    ]
