"""Tokenizers of CLIP and SigLIP: from their libraries, from a trained model's files, or made of a data set's words."""

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from nexus.core.documents import parse_json
from nexus.core.download import offline
from nexus.core.hub import PREFIX
from nexus.core.module import NexusModule
from nexus.models.cv.image_text import ImageTextModel

DEFAULT_TEMPLATES = ("a photo of a {}.",)
TEMPLATES_FILE = "templates.json"
PADDING, UNKNOWN, END = "[PAD]", "[UNK]", "[END]"


class Reader:
    """From texts to ids, cut and padded to the length of a model's texts. SigLIP was trained on texts in lower case."""

    def __init__(self, tokenizer: Any, length: int, *, lower: bool) -> None:
        self.tokenizer, self.length, self.lower = tokenizer, length, lower

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "t n"]:
        given = [text.lower() for text in texts] if self.lower else list(texts)
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length}
        return self.tokenizer(given, return_tensors="pt", **settings).input_ids

    def knows(self, text: str) -> bool:
        """Whether none of the words is strange; tokenizers of parts of words know them all."""
        return UNKNOWN not in self.tokenizer.tokenize(text.lower() if self.lower else text)


def load_tokenizer(model: ImageTextModel, source: str | Path | None = None) -> Reader:
    """Returns a function from texts to the ids that `model` reads, with the tokenizer of transformers.

    Args:
        model: Says how long its texts are and which ids it knows.
        source: A folder with the tokenizer's files, or a repository of the hub. None: the one that was saved with the
            model, or that of its card.

    Raises:
        ValueError: The tokenizer cannot be had, or has ids that the model does not know.
        ImportError: transformers is not installed.
    """
    return _checked(model, *find_tokenizer(model, source))


def find_tokenizer(model: NexusModule, source: str | Path | None = None) -> tuple[Any, str]:
    """Returns a tokenizer of transformers, and where it comes from.

    Args:
        model: Whose tokenizer it is.
        source: See `load_tokenizer`.

    Raises:
        ValueError: The tokenizer cannot be had.
        ImportError: transformers is not installed.
    """
    if source is None and any(name.startswith("tokenizer") for name in model.files):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in model.files.items():
                (Path(folder) / name).write_bytes(content)
            return open_tokenizer(folder), "saved with the model"
    name = str(source) if source is not None else _published_tokenizer(model)
    return open_tokenizer(name), name


def bring_tokenizer(
    model: ImageTextModel, source: str | None, texts: Iterable[str], templates: Sequence[str]
) -> Reader:
    """Gives a model that is to be trained its tokenizer and templates, which are saved with it; returns the former.

    Args:
        model: Keeps both among its `files`.
        source: See `load_tokenizer`; or "words": one that knows the words of `texts` alone.
        texts: The sentences that the model is trained on, for "words".
        templates: Sentences that classes are put into.

    Raises:
        ValueError: The tokenizer cannot be had, or has more ids than the model.
    """
    if source == "words":
        tokenizer = word_tokenizer(texts)
    elif source is None and model.files:
        return load_tokenizer(model)
    else:
        tokenizer, _ = find_tokenizer(model, source)
    model.files = {**tokenizer_files(tokenizer), TEMPLATES_FILE: json.dumps(list(templates)).encode()}
    return _checked(model, tokenizer, source or "of its card")


def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """Returns the files of a tokenizer of transformers by name, as they are saved with a model."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def templates_of(model: NexusModule) -> tuple[str, ...]:
    """Returns the sentences that a model was trained to see classes in, or a plain one."""
    kept = model.files.get(TEMPLATES_FILE)
    return DEFAULT_TEMPLATES if kept is None else _template_texts(kept)


def _template_texts(content: bytes) -> tuple[str, ...]:
    texts = parse_json(content, TEMPLATES_FILE)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{TEMPLATES_FILE} of the model must list sentences such as 'a photo of a {{}}.'; save it again."
        )
    return tuple(texts)


def word_tokenizer(texts: Iterable[str]) -> Any:
    """Returns a tokenizer of transformers that knows the words and marks of `texts`, in lower case, and no others.

    Every text ends with the highest id, as CLIP's do.

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        raise _no_transformers() from None
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})
    ids = {word: place for place, word in enumerate([PADDING, UNKNOWN, *words, END])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, ids[END])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PADDING, unk_token=UNKNOWN, eos_token=END)


def open_tokenizer(name: str) -> Any:
    """Returns a tokenizer of transformers.

    Args:
        name: A folder with its files, or a repository of the hub.

    Raises:
        ValueError: There is none, or its files are broken.
        ImportError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise _no_transformers() from None
    try:  # without trust_remote_code=False it asks at the terminal whether to run the folder's code
        local = offline() or Path(name).is_dir()
        return AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    except BaseException as error:  # tokenizers raises bare Exception, and panics, which are none
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"There is no tokenizer at {name!r} ({reason}). Pass a folder that holds its files, such as "
            "tokenizer.json, or a repository of the hub that can be reached."
        ) from None


def _no_transformers() -> ImportError:
    return ImportError("Tokenizers come from transformers: pip install transformers.")


def _checked(model: ImageTextModel, tokenizer: Any, name: str) -> Reader:
    known = model.config.vocab_size
    if len(tokenizer) > known:
        raise ValueError(
            f"The tokenizer {name!r} has {len(tokenizer)} ids and the model knows {known}: it is that of another model."
            f" A model that starts from nothing may have vocab_size={len(tokenizer)}."
        )
    reader = Reader(tokenizer, model.config.context_length, lower=model.lower_case)
    try:
        ids = reader(["a"])
    except BaseException as error:  # what its settings ask for it cannot do, such as padding without a mark for it
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"The tokenizer {name!r} cannot be used ({reason}); get its files again.") from None
    if tuple(ids.shape) != (1, reader.length) or not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise ValueError(f"The tokenizer {name!r} gives ids that the model does not know; it is that of another model.")
    return reader


def _published_tokenizer(model: NexusModule) -> str:
    if isinstance(model, ImageTextModel) and model.tokenizer:
        return model.tokenizer
    urls = [weights.url for weights in model.card.weights] if model.card else []
    for url in urls:
        if url.startswith(PREFIX):
            return url.removeprefix(PREFIX)
    raise ValueError(
        f"This {type(model).__name__} has no card that names its tokenizer; pass its folder or repository."
    )
