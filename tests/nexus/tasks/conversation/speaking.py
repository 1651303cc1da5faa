"""A small InternVL and a tokenizer of bytes, for tests."""

import torch

from nexus.core.preprocessing import Preprocessing
from nexus.models.cv import InternVL

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
SMALL = {
    "image_size": 56,
    "patch_size": 14,
    "embed_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_dim": 48,
    "max_tiles": 4,
    "language": {
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 264,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}


def small_model(**changes) -> InternVL:
    torch.manual_seed(0)
    model = InternVL({**SMALL, **changes}).eval()
    model.preprocessing = Preprocessing(image_size=(56, 56), resize="squash")
    return model


def save_tokenizer(folder, *, without: str = "") -> str:
    """Writes a tokenizer whose words are bytes, and which knows the marks of InternVL; returns the folder."""
    from nexus.proofs.libraries import import_library

    transformers = import_library("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": [mark for mark in MARKS if mark != without]})
    fast.save_pretrained(folder)
    return str(folder)
