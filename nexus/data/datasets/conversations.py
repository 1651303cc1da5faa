"""Conversations about images, in JSON lines as LLaVA's and InternVL's data has them.

`conversations:PATH` names a `.jsonl` with a mapping a line: `image` (a path, relative to the file, or a list of them),
`conversations`, a list of turns `{"from": "human" or "gpt", "value": "..."}` in which `<image>` is the place of each
image, and `split` if wanted. Where it says nothing of splits, images are held out as those of `folder:PATH` are.
Further keys, such as `id`, `width` and `height`, are not looked at.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nexus.core.config import nearest
from nexus.data.dataset import DataError, Image
from nexus.data.datasets.folder import listed_file, listed_split
from nexus.data.documents import parse_json, read_text
from nexus.data.facets import IMAGE_PLACE, Turn
from nexus.data.holding_out import HELD_OUT, held_out_draw
from nexus.data.images import EXTENSIONS, load_image, num_channels, open_image
from nexus.data.places import SPLITS

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""Who speaks, by what the files call them."""
EXAMPLE = (
    '{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nHow many?"}, {"from": "gpt", ...}]}'
)


class _Line(NamedTuple):
    """A conversation, its images, and where it stands."""

    files: tuple[str, ...]
    turns: tuple[Turn, ...]
    split: str | None
    where: str


class ConversationFile:
    """The conversations of one split.

    Attributes:
        conversations: The turns of each; a user begins, and the assistant has the last word.
    """

    def __init__(self, path: str | Path, split: str = "train") -> None:
        """Reads the conversations; no image is decoded, the first one's header is read for the number of channels.

        Raises:
            DataError: The file, a line, a turn, an image or the split is not as it should be; the message says where.
            ImageError: The first image cannot be used.
        """
        path = Path(path).expanduser()
        self.name = f"conversations:{path}"
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}. {nearest(split, SPLITS)}")
        if not path.is_file() or path.suffix != ".jsonl":
            raise DataError(f"{path} is no .jsonl file; conversations are JSON lines such as {EXAMPLE}.")
        talks = list(_read(path))
        self._files = [_images(path.parent, talk) for talk in talks]
        chosen = _chosen(talks, split)
        if not chosen:
            raise DataError(f"{path} has no conversations of the split {split!r}.")
        self._files = [self._files[place] for place in chosen]
        self.conversations = tuple(talks[place].turns for place in chosen)
        self.in_channels = num_channels(open_image(self._files[0][0]))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> "Pictures":
        """Returns the images of a conversation, decoded."""
        return Pictures([load_image(file) for file in self._files[index]], self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of the first image of a conversation."""
        return str(self._files[index][0])


class Pictures(NamedTuple):
    """The images of a conversation.

    Attributes:
        images: In the order of their places in it.
        path: Of the first.
    """

    images: list[Image]
    path: str


def _read(path: Path) -> Iterator[_Line]:
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            where = f"{path}, line {number}"
            yield _talk(parse_json(text, where), where)


def _talk(row: Any, where: str) -> _Line:
    if not isinstance(row, Mapping) or not isinstance(row.get("conversations"), list):
        raise DataError(f"{where} is no conversation; a line is {EXAMPLE}.")
    image, split = row.get("image"), row.get("split")
    files = image if isinstance(image, list) else [image]
    if not files or not all(isinstance(file, str) and file.strip() for file in files):
        raise DataError(f"{where}: image is {str(image)[:60]!r}; it is the path of an image, or a list of paths.")
    if split is not None and not isinstance(split, str):
        raise DataError(f"{where}: the split is {str(split)[:40]}; it must be train, val or test.")
    split = listed_split(split, where)
    turns = tuple(_turn(one, f"{where}, turn {place}") for place, one in enumerate(row["conversations"]))
    _check_turns(turns, where)
    _check_places(turns, len(files), where)
    return _Line(tuple(files), turns, split, where)


def _turn(row: Any, where: str) -> Turn:
    speaker, text = (row.get("from"), row.get("value")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise DataError(f'{where} is {str(row)[:60]}; it is {{"from": "human", "value": "..."}}.')
    if speaker not in ROLES:
        raise DataError(f"{where} is from {speaker[:40]!r}. {nearest(speaker[:40], ROLES)}")
    if not text.strip():
        raise DataError(f"{where} says nothing; fill in its value or delete the line.")
    return Turn(ROLES[speaker], text.strip())


def _check_turns(turns: tuple[Turn, ...], where: str) -> None:
    for place, turn in enumerate(turns):
        wanted = "assistant" if place % 2 else "user"
        if turn.role != wanted:
            raise DataError(
                f"{where}, turn {place} is the {turn.role}'s, and the {wanted} is next: human begins, both take turns."
            )
    if not turns or turns[-1].role != "assistant":
        raise DataError(f"{where}: the last turn is no answer of gpt; there is nothing to learn from it.")


def _check_places(turns: tuple[Turn, ...], images: int, where: str) -> None:
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant" and IMAGE_PLACE in turn.text]
    if answers:
        raise DataError(f"{where}, turn {answers[0]} is an answer with {IMAGE_PLACE}; images stand in questions alone.")
    places = sum(turn.text.count(IMAGE_PLACE) for turn in turns)
    if places != images:
        wrong = "is missing" if places < images else "is superfluous"
        raise DataError(f"{where}: {IMAGE_PLACE} {wrong}: the turns have {places}, and there are {images} images.")


def _images(folder: Path, talk: _Line) -> list[Path]:
    found = [listed_file(folder, file, talk.where) for file in talk.files]
    for file in found:
        if file.suffix.lower() not in EXTENSIONS:
            raise DataError(f"{talk.where}: {file.name!r} is not an image; use {', '.join(sorted(EXTENSIONS))}.")
    return found


def _chosen(talks: list[_Line], split: str) -> list[int]:
    """Returns the places of the split's conversations, as they say, or by hash of the first image."""
    if any(talk.split for talk in talks):
        return [k for k, talk in enumerate(talks) if talk.split == split]
    if split == "test":
        return []
    return [k for k, talk in enumerate(talks) if (held_out_draw(talk.files[0]) < HELD_OUT) == (split == "val")]
