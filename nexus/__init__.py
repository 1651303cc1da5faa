"""Nexus: vision models proven equal to their references, with training, evaluation and deployment around them.

Importing this package imports nothing else; each name below is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nexus.core.catalogue import offer

__version__ = "0.1.0"

_HOMES = {
    "create_model": "nexus.models.registry",
    "list_models": "nexus.models.registry",
    "model_info": "nexus.models.registry",
    "register": "nexus.models.registry",
    "ModelCard": "nexus.core.card",
    "NexusModule": "nexus.core.module",
    "Config": "nexus.core.config",
    "Preprocessing": "nexus.core.preprocessing",
    "WeightInitMixin": "nexus.core.initialization",
    "fit": "nexus.training",
    "find_lr": "nexus.training.rates",
    "cross_validate": "nexus.training.folds",
    "evaluate": "nexus.evaluation",
    "Predictor": "nexus.predict",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from nexus.core.card import ModelCard
    from nexus.core.config import Config
    from nexus.core.initialization import WeightInitMixin
    from nexus.core.module import NexusModule
    from nexus.core.preprocessing import Preprocessing
    from nexus.evaluation import evaluate
    from nexus.models.registry import create_model, list_models, model_info, register
    from nexus.predict import Predictor
    from nexus.training import fit
    from nexus.training.folds import cross_validate
    from nexus.training.rates import find_lr


def _zoo() -> Any:
    from nexus.models import registry

    return registry


offer(_zoo)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nexus' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
