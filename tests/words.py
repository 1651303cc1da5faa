"""A vocabulary of BERT's kind, small, with the ids of its marks where bert-base-uncased has them."""

from pathlib import Path
from typing import Any

MARKS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?", 1010: ","}
WORDS = (
    *("cat", "dog", "red", "car", "a", "beside", "fire", "hydra", "##nt", "person", "on", "bench", "disc", "square"),
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "##s", "the"),
)


def bert_tokenizer(transformers: Any, folder: Path) -> Any:
    """Returns a tokenizer of transformers, of a vocabulary that is written into `folder`."""
    words = {**{200 + place: word for place, word in enumerate(WORDS)}, **MARKS}
    path = folder / "vocab.txt"
    path.write_text("\n".join(words.get(number, f"[unused{number}]") for number in range(1030)), encoding="utf-8")
    return transformers.BertTokenizer(vocab=str(path))
