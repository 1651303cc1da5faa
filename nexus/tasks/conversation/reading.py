"""From conversations and images to what a model of both reads.

Dims: b conversations, n tokens, i tiles of all, c channels, h w pixels.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nexus.core.hub import PREFIX
from nexus.data import eval_transform
from nexus.data.facets import Turn
from nexus.models.cv.internvl import InternVL
from nexus.tasks.conversation.templates import CLOSE, OPEN, TOKEN, find_template, write_prompt
from nexus.tasks.conversation.tiles import cut_tiles
from nexus.tasks.image_text.tokenizers import open_tokenizer
from nexus.tasks.source import preprocessing_of

if TYPE_CHECKING:
    from PIL.Image import Image


class Read(NamedTuple):
    """What goes into a model.

    Attributes:
        images: (i, c, h, w) tiles; None without images.
        tokens: (b, n) ids, filled up on the left.
        places: (b, n) where tokens of tiles stand.
        mask: (b, n) 0 where a text is filled up.
    """

    images: Tensor | None
    tokens: Tensor
    places: Tensor
    mask: Tensor


class Reader:
    """Writes conversations as the model was trained to read them.

    Attributes:
        tokenizer: Of transformers.
        stop: Ids that end an answer.
    """

    def __init__(self, model: InternVL, tokenizer: str | Path | None = None) -> None:
        """Opens the tokenizer.

        Args:
            model: Says how conversations and images are read.
            tokenizer: A folder or a repository of the hub; None is what was saved with the model, or its card's.

        Raises:
            ValueError: There is none, or it does not fit the model.
            ImportError: transformers is not installed.
        """
        self.model, self.template = model, find_template(model.config.template)
        self.tokenizer = _open(model, tokenizer)
        known = model.language.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > known:
            raise ValueError(
                f"The tokenizer has {len(self.tokenizer)} ids and the model knows {known}: it is that of another model."
            )
        self._image_id = self._id(TOKEN)
        for mark in (OPEN, CLOSE):
            self._id(mark)
        self.stop = [self._id(self.template.stop)]
        if self.tokenizer.eos_token_id is not None and self.tokenizer.eos_token_id not in self.stop:
            self.stop.append(self.tokenizer.eos_token_id)
        self._transform = eval_transform(preprocessing_of(model, None))

    def _id(self, mark: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(mark)
        if not isinstance(found, int) or self.tokenizer.convert_ids_to_tokens(found) != mark:
            raise ValueError(f"The tokenizer does not know {mark}, which InternVL needs: it is that of another model.")
        return found

    def tiles(self, image: "Image") -> "list[Image]":
        """Returns an image in tiles, as the model's configuration says."""
        config = self.model.config
        return cut_tiles(image, config.image_size, config.min_tiles, config.max_tiles, thumbnail=config.thumbnail)

    def __call__(
        self, conversations: Sequence[Sequence[Turn]], images: "Sequence[Sequence[Image]]", system: str | None = None
    ) -> Read:
        """Returns conversations, each with its images, as one batch."""
        cut = [[self.tiles(image) for image in one] for one in images]
        per_tile = self.model.config.tokens_per_tile
        texts = [
            write_prompt(turns, [len(tiles) for tiles in mine], self.template, per_tile, system)
            for turns, mine in zip(conversations, cut, strict=True)
        ]
        rows = [self.tokenizer(text, add_special_tokens=True)["input_ids"] for text in texts]
        longest = max(map(len, rows))
        tokens = torch.tensor([[self.stop[0]] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        shown = [self._transform(tile) for mine in cut for tiles in mine for tile in tiles]
        like = next(self.model.parameters())
        pictures = torch.stack(shown).to(like.device, like.dtype) if shown else None
        tokens, mask = tokens.to(like.device), mask.to(like.device)
        return Read(pictures, tokens, (tokens == self._image_id) & (mask == 1), mask)

    def text(self, ids: Tensor) -> str:
        """Returns what ids of an answer say."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _open(model: InternVL, source: str | Path | None) -> Any:
    if source is not None:
        return open_tokenizer(str(source))
    if any(name.startswith("tokenizer") for name in model.files):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in model.files.items():
                (Path(folder) / name).write_bytes(content)
            return open_tokenizer(folder)
    urls = [weights.url for weights in model.card.weights] if model.card else []
    named = next((url.removeprefix(PREFIX) for url in urls if url.startswith(PREFIX)), None)
    if named is None:
        raise ValueError(
            "The model was saved without its tokenizer; name the folder or the repository that has it:"
            " tokenizer=FOLDER, or --tokenizer FOLDER."
        )
    return open_tokenizer(named)
