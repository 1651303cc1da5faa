"""The language model of InternVL: one of the families of transformers, built without any code of a repository."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from nexus.core.config import nearest
from nexus.core.torchvision import import_torchvision

FAMILIES = ("qwen2", "qwen3", "llama", "phi3", "mistral")
"""What `model_type` may be. InternLM 2 has no class in transformers."""


def build_language(settings: Mapping[str, Any]) -> nn.Module:
    """Returns a language model with fresh weights.

    Args:
        settings: Its configuration as transformers writes it, with `model_type`.

    Raises:
        ValueError: The family is another one, or transformers refuses the configuration.
        ImportError: transformers is not installed.
    """
    family = settings["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"The language model is of the family {family!r:.60}. {nearest(str(family)[:60], FAMILIES)}")
    import_torchvision(needed=False)
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise ImportError(
            "InternVL's language model comes from transformers: pip install 'nexus-vision[language]'."
        ) from None
    rest = {key: value for key, value in settings.items() if key not in ("model_type", "auto_map", "architectures")}
    try:
        config = AutoConfig.for_model(family, **rest)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"transformers builds no {family} of this configuration ({reason}).") from None
