"""Model cards as rows of tables."""

from difflib import get_close_matches
from typing import Any

from nexus.core.card import ModelCard
from nexus.core.config import nearest
from nexus.models.registry import all_cards, list_models, model_info


def card_row(card: ModelCard) -> dict[str, Any]:
    """Returns the line of `nexus models`."""
    metric = next((m for weights in card.weights for m in weights.metrics), None)
    return {
        "name": card.name,
        "task": card.task,
        "parameters": card.num_parameters,
        "image": "x".join(map(str, card.preprocessing.image_size)),
        "published": f"{metric.name} {metric.value:g}" if metric else None,
        "weights": len(card.weights),
    }


def card_details(card: ModelCard) -> dict[str, Any]:
    """Returns the card's facts, without the weights."""
    return {
        "name": card.name,
        "class": card.model_class.__name__,
        "task": card.task,
        "parameters": card.num_parameters,
        "config": card.settings,
        "preprocessing": card.preprocessing.to_dict(),
        "good for": list(card.good_for),
        "paper": card.paper,
    }


def weight_rows(card: ModelCard) -> list[dict[str, Any]]:
    """Returns one line for each published weight file."""
    return [
        {
            "tag": weights.tag,
            "licence": weights.licence,
            "size": "x".join(map(str, weights.preprocessing.image_size)),
            "results": "; ".join(f"{m.name} {m.value:g} ({m.source})" for m in weights.metrics),
            "sha256": weights.sha256,
            "url": weights.url,
        }
        for weights in card.weights
    ]


def recommendation_row(row: dict[str, Any], shown: int = 3) -> dict[str, Any]:
    """Returns a line of `nexus recommend`: the family's smallest variants stand for all; `--json` has every name."""
    names = sorted(row["models"], key=lambda name: model_info(name).num_parameters or 0)
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return {**row, "models": ", ".join(names[:shown]) + more}


def no_match(pattern: str, task: str | None = None) -> str:
    """Returns what to say of a pattern that no model's name matches: one that does, or the nearest name."""
    names = list_models(task=task)
    if not names:
        return f"No model is for the task {task!r}. {nearest(str(task), {card.task for card in all_cards()})}"
    part = pattern.strip("*")
    parts = [f"*{part}*"] if any(part in name for name in names) else get_close_matches(part, names, n=1)
    hint = f" Try '{parts[0]}';" if parts else ""
    return f"No model{f' for {task}' if task else ''} matches {pattern!r}.{hint} `nexus models` lists them all."
