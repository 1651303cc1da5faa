"""Configurations of other libraries: read key by key. What is not read, and not known to change nothing, is refused."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from nexus.core.documents import FileError
from nexus.core.preprocessing import LARGEST_SIDE

OF_TRANSFORMERS = frozenset(
    [
        "_name_or_path",
        "_commit_hash",
        "_attn_implementation",
        "_attn_implementation_internal",
        "_attn_implementation_autoset",
        "architectures",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "model_type",
        "return_dict",
        "use_return_dict",
        "output_hidden_states",
        "output_attentions",
        "use_cache",
        "torchscript",
        "is_encoder_decoder",
        "is_decoder",
        "add_cross_attention",
        "cross_attention_hidden_size",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "pruned_heads",
        "finetuning_task",
        "task_specific_params",
        "problem_type",
        "id2label",
        "label2id",
        "num_labels",
        "initializer_range",
        "initializer_factor",
        "init_std",
        "init_xavier_std",
        "initializer_bias_prior_prob",
        "logit_scale_init_value",
        "layerscale_value",
        "stage_names",
        "out_features",
        "out_indices",
        "encoder_stride",
        "apply_layernorm",
        "reshape_hidden_states",
        "use_mask_token",
        "pooler_output_size",
        "pooler_act",
        "gradient_checkpointing",
        "use_timm_backbone",
        "bos_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "prefix",
        "max_length",
        "min_length",
        "do_sample",
        "early_stopping",
        "num_beams",
        "num_beam_groups",
        "diversity_penalty",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "repetition_penalty",
        "length_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "bad_words_ids",
        "num_return_sequences",
        "output_scores",
        "return_dict_in_generate",
        "remove_invalid_values",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
        "tokenizer_class",
        "tf_legacy_loss",
        "use_bfloat16",
        "auxiliary_loss",
    ]
)
"""Keys of every config.json of transformers that change no number of inference: names, fresh weights, text generation,
which outputs are returned."""
OF_DETECTORS = frozenset(
    [
        "activation_dropout",
        "attention_dropout",
        "backbone_kwargs",
        "bbox_cost",
        "bbox_loss_coefficient",
        "class_cost",
        "decoder_layerdrop",
        "dice_loss_coefficient",
        "disable_custom_kernels",
        "encoder_layerdrop",
        "eos_coefficient",
        "eval_size",
        "focal_loss_alpha",
        "focal_loss_gamma",
        "giou_cost",
        "giou_loss_coefficient",
        "mask_loss_coefficient",
        "matcher_alpha",
        "matcher_bbox_cost",
        "matcher_class_cost",
        "matcher_gamma",
        "matcher_giou_cost",
        "max_position_embeddings",
        "num_hidden_layers",
        "use_focal_loss",
        "use_pretrained_backbone",
        "weight_loss_bbox",
        "weight_loss_giou",
        "weight_loss_vfl",
    ]
)
"""Keys of DETR and its kin that are for training alone, or say how the same numbers are computed."""
NO_CHUNKS = {"chunk_size_feed_forward": 0}
"""Keys that would change something, with the value at which they do not."""


class ForeignSettings:
    """A mapping out of somebody else's file, of which every key must be read.

    Every reading checks the type and names the file and the key where it is wrong; null is as if the key were absent.

    Args:
        values: The mapping.
        where: The file, for messages.
        builder: What is built with it, likewise.
        path: Of the mapping inside the file.
    """

    def __init__(self, values: Any, where: str = "config.json", builder: str = "the model", path: str = "") -> None:
        if not isinstance(values, Mapping):
            raise FileError(f"{where}{': ' + path if path else ''} is a {type(values).__name__}; it must be a mapping.")
        self._values, self._where, self._builder, self._path = values, where, builder, path
        self._read: set[str] = set()
        self._sections: list[ForeignSettings] = []

    def refuse(self, key: str, rule: str) -> FileError:
        """Returns the error for the value of `key`, which does not follow `rule`."""
        return FileError(f"{self._where}: {self._path}{key} is {repr(self._values.get(key))[:80]}; {rule}.")

    def get(self, key: str, default: Any = None) -> Any:
        """Returns a value of any type."""
        self._read.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int, least: int = 0) -> int:
        value = self.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.refuse(key, f"it must be a whole number of at least {least}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not _is_number(value):
            raise self.refuse(key, "it must be a number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "it must be true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "it must be text")
        return value

    def integers(self, key: str, default: Collection[int], least: int = 0) -> tuple[int, ...]:
        value = self.get(key, default)
        good = isinstance(value, list | tuple) and len(value) <= 64
        if not good or any(not isinstance(one, int) or isinstance(one, bool) or one < least for one in value):
            raise self.refuse(key, f"it must be a list of whole numbers of at least {least}")
        return tuple(value)

    def numbers(self, key: str, default: Collection[float]) -> tuple[float, ...]:
        value = self.get(key, default)
        if not isinstance(value, list | tuple) or not 0 < len(value) <= 64 or not all(map(_is_number, value)):
            raise self.refuse(key, "it must be a list of numbers")
        return tuple(float(one) for one in value)

    def sides(self, key: str, default: int) -> int | tuple[int, int]:
        """Returns the size of an image: one number, or (height, width)."""
        value = self.get(key, default)
        if isinstance(value, list | tuple):
            height, width = self.integers(key, (), 1) if len(value) == 2 else (0, 0)
            value = (height, width)
        sides = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(one, int) or isinstance(one, bool) or not 1 <= one <= LARGEST_SIDE for one in sides):
            raise self.refuse(key, f"it must be a number of pixels, at most {LARGEST_SIDE}, or [height, width]")
        return value

    def section(self, key: str) -> "ForeignSettings":
        """Returns the mapping under `key`, empty if there is none; its keys must be read too."""
        inner = ForeignSettings(self.get(key, {}), self._where, self._builder, f"{self._path}{key}.")
        self._sections.append(inner)
        return inner

    def expect(self, **built: Any) -> None:
        """Refuses keys whose value is not the one that the model is built with, or one of a tuple of such."""
        for key, value in built.items():
            known = value if isinstance(value, tuple) else (value,)
            found = self.get(key, known[0])
            if not any(found == one and isinstance(found, bool) == isinstance(one, bool) for one in known):
                raise self.refuse(key, f"{self._builder} is built with {known[0]!r}")

    def labels(self) -> tuple[str, ...]:
        """Returns the names of the classes in `id2label`, in the order of their numbers."""
        names = self.get("id2label", {})
        try:
            numbered = {int(key): str(name) for key, name in names.items()}
        except (AttributeError, ValueError, TypeError):
            raise self.refuse("id2label", "it must map numbers to names") from None
        if len(numbered) != len(names):
            raise self.refuse("id2label", "two of its names have one number")
        return tuple(numbered[number] for number in sorted(numbered))

    def num_classes(self, default: int = 2) -> int:
        """Returns how many classes there are names for, or `num_labels`."""
        return len(self.labels()) or self.integer("num_labels", default)

    def num_head_classes(self) -> int:
        """Returns the outputs of the head; 0 where `architectures` say that it is a bare backbone."""
        names = self.get("architectures", [])
        if not isinstance(names, list) or not any("Classification" in str(name) for name in names):
            return 0
        return self.num_classes()

    def finish(self, without_effect: Collection[str] = OF_TRANSFORMERS) -> None:
        """Refuses keys that were not read, unless they have no effect.

        Raises:
            FileError: Some key was not read; all are named.
        """
        for inner in self._sections:
            inner.finish(without_effect)
        self.expect(**{key: value for key, value in NO_CHUNKS.items() if key in self._values})
        left = [str(key) for key in self._values if key not in self._read and key not in without_effect]
        left = [key for key in left if self._values.get(key) is not None]
        if left:
            names = ", ".join(f"{self._path}{key}"[:60] for key in left[:6])
            raise FileError(
                f"{self._where} has {names}, which {'is' if len(left) == 1 else 'are'} not known here and may change"
                " what the model computes. Remove what does not matter, or build the model and load_weights into it."
            )


def hub_labels(values: Mapping[str, Any], where: object) -> tuple[str, ...]:
    """Returns the names of the classes in a config.json of transformers, in order."""
    return ForeignSettings(values, str(where)).labels()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
