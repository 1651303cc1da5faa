"""Models with trained weights: from a name, a file, a folder, the hub or an address, and back to a folder."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nexus.core import hub, packages
from nexus.core.card import BY_HAND, ModelCard, Weights
from nexus.core.catalogue import catalogue
from nexus.core.config import Config, nearest
from nexus.core.documents import FileError, read_bytes, read_json
from nexus.core.download import check_sha256, download, home, offline, reachable
from nexus.core.files import SUFFIXES, WeightsError, beside, write_whole
from nexus.core.foreign import hub_labels
from nexus.core.formats import State
from nexus.core.loading import build_pretrained, load_weights, misfits, setting
from nexus.core.outline import outlined
from nexus.core.preprocessing import Preprocessing
from nexus.core.processors import FILE as PROCESSOR_FILE
from nexus.core.processors import preprocessing_from_hub
from nexus.core.timm_folders import config_from_timm, preprocessing_from_timm

if TYPE_CHECKING:
    from nexus.core.module import NexusModule

__all__ = ["Source", "find_source", "load_pretrained", "load_weights", "push_to_hub", "read_folder", "save_pretrained"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
KEPT_FILE = 64 << 20
"""Bytes of one of the files that a model keeps beside its weights."""


@dataclass
class Source:
    """What a source turned out to be: a weight file, and how to build the model that it fits."""

    file: Path
    model_class: type[NexusModule]
    config: Config | Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    card: ModelCard | None = field(default=None, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def load_pretrained(
    source: str | Path,
    cls: type[NexusModule],
    changes: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Any:
    """Returns a model of class `cls` with trained weights, in evaluation mode.

    Changed fields are honoured: another `num_classes` gets a fresh head (and a line in the log), another `image_size`
    resampled positions, other `in_channels` an adapted first layer.

    Args:
        source: A registered name with an optional tag, a file, a folder, `"hf-hub:org/repo"`, or `"https://..."`.
        cls: The class that the caller named; `NexusModule` takes whatever the source is.
        changes: Fields of the configuration to change.
        dtype: Of floating-point weights; None: float32.
        device: Where they go; None: the CPU.

    Raises:
        ValueError: The source is unknown, of another class, or cannot be read, or does not fit the configuration.
    """
    found = find_source(source, cls)
    if not issubclass(found.model_class, cls):
        raise ValueError(f"{source} is a {found.model_class.__name__}, not a {cls.__name__}.")
    config = found.config
    if changes:
        config = config.replace(**changes) if isinstance(config, Config) else {**config, **changes}
    model = build_pretrained(
        found.model_class, config, found.file, new_head="num_classes" in changes, dtype=dtype, device=device
    )
    same_head = setting(config, "num_classes") == setting(found.config, "num_classes")
    model.class_names = found.class_names if same_head else ()
    model.preprocessing = found.preprocessing and found.preprocessing.fitted(changes)
    model.card, model.files = found.card, found.files
    return model.eval()


def find_source(source: str | Path, cls: type[NexusModule]) -> Source:
    """Returns what `source` (see `load_pretrained`) is, fetching its weight file if need be.

    Raises:
        ValueError: It is none of the kinds that are known, or cannot be had.
    """
    text = str(source)
    if not isinstance(source, str | Path) or not text:
        raise WeightsError(f"The source of weights is {source!r}; give a registered name, a file or a folder.")
    if text.startswith(hub.PREFIX):
        repo, _, name = text.removeprefix(hub.PREFIX).partition("#")
        if not name:
            return read_folder(hub.hub_folder(repo), cls, text)
        return _bare_file(hub.hub_file(repo, [name]), cls)
    if text.startswith(("http://", "https://")):
        weights = next((weights for _, weights in _all_weights() if weights.url == text), None)
        return _bare_file(download(text, sha256=weights.sha256 if weights else ""), cls)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, cls, text)
    if path.is_file():
        return _bare_file(path, cls)
    if isinstance(source, Path) or text.lower().endswith(SUFFIXES) or "/" in text:
        raise WeightsError(f"There is no file or folder {text}.")
    name, tag = catalogue().split_name(text)
    try:
        card = catalogue().model_info(name)
    except ValueError as error:
        raise ValueError(f"{error} Nor is there a file or folder {text}.") from None
    return _registered(card, card.find_weights(tag or None))


def fetch_weights(weights: Weights) -> Path:
    """Returns the path of a published weight file, fetched and checked.

    Raises:
        WeightsError: It cannot be had; the message says where it is and where to put it.
    """
    if weights.url.startswith(BY_HAND):
        return _fetched_by_hand(weights.url.removeprefix(BY_HAND), weights.sha256)
    if weights.url.startswith(packages.PREFIX):
        return packages.package_file(weights.url, weights.sha256)
    if not weights.url.startswith(hub.PREFIX):
        return download(weights.url, sha256=weights.sha256)
    repo, _, name = weights.url.removeprefix(hub.PREFIX).partition("#")
    return hub.hub_file(repo, [name]) if name else hub.hub_weights(repo)


def _fetched_by_hand(address: str, sha256: str) -> Path:
    folder, _, name = address.rpartition("/")
    path = home() / "weights" / name
    if not path.is_file():
        raise WeightsError(
            f"{name} lies in a folder that a browser opens and a program does not: {folder}. Fetch it there and put it"
            f" at {path}, or name its place instead of the model."
        )
    check_sha256(path, sha256)
    return path


def _published(file: Path, card: ModelCard, weights: Weights) -> Source:
    config = card.changed(weights.changes)
    return Source(file, card.model_class, config, weights.preprocessing, tuple(weights.class_names), card)


def _registered(card: ModelCard, weights: Weights) -> Source:
    return _published(fetch_weights(weights), card, weights)


def _bare_file(path: Path, cls: type[NexusModule]) -> Source:
    """A file alone: a published one is known by its name; for others the class's default configuration is taken."""
    for card, weights in _all_weights():
        if weights.url.endswith("/" + path.name) and issubclass(card.model_class, cls):
            return _published(path, card, weights)
    if _is_base(cls):
        if (mimetypes.guess_type(path)[0] or "").startswith("image/"):
            raise ValueError(
                f"{path.name} is a picture, and the model is wanted here: a name, a run, or a weight file."
            )
        raise ValueError(
            f"{path.name} is not a published file, so nothing says which model it is for. "
            "Name the class, VisionTransformer.from_pretrained(...), or create the model and load_weights into it."
        )
    return Source(path, cls, cls.config_class() if cls.config_class else {}, _agreed_preprocessing(cls))


def _agreed_preprocessing(cls: type[NexusModule]) -> Preprocessing | None:
    """What all published weights of a class were evaluated with; None where they differ, or there are none."""
    known = {weights.preprocessing for card, weights in _all_weights() if card.model_class is cls}
    return known.pop() if len(known) == 1 else None


def _is_base(cls: type[torch.nn.Module]) -> bool:
    """Tells `NexusModule` itself, which stands for any model, from its subclasses."""
    return torch.nn.Module in cls.__bases__


def _all_weights() -> Iterable[tuple[ModelCard, Weights]]:
    return ((card, weights) for card in catalogue().all_cards() for weights in card.weights)


def read_folder(folder: Path, cls: type[NexusModule], source: str) -> Source:
    """Reads a folder of `save_pretrained`, of timm, or of transformers, as its config.json tells.

    Raises:
        ValueError: config.json is missing or damaged, or describes no model that is known here.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} has no {CONFIG_FILE}; it is not a model that save_pretrained wrote.")
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise WeightsError(
            f"{path} is not valid JSON (it holds a {type(settings).__name__}); a configuration is a mapping."
        )
    file = next((folder / name for name in hub.WEIGHT_FILES if (folder / name).is_file()), folder / WEIGHTS_FILE)
    readers = {"class": _from_nexus, "architecture": _from_timm, "model_type": _from_transformers}
    key = next((key for key in readers if key in settings), None)
    if key is None:
        raise WeightsError(
            f"{path} names no model; it needs 'class', or timm's 'architecture', or 'model_type' ({source})."
        )
    if not isinstance(settings[key], str):
        raise WeightsError(f"{path}: {key} is {repr(settings[key])[:80]}; it must be a name.")
    with _of_file(path):
        return readers[key](settings, file, cls, path)


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Names the file in whatever rule of a configuration was broken by what stands in it."""
    try:
        yield
    except FileError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def _from_nexus(settings: Mapping[str, Any], file: Path, cls: type[NexusModule], path: Path) -> Source:
    classes = {known.__name__: known for known in [*_zoo_classes(), cls]}
    name, config = settings["class"], settings.get("config", {})
    if name not in classes or _is_base(classes[name]):
        raise WeightsError(
            f"{path} is for the class {name!r:.100}, which is not part of the zoo. Call {name[:100]}.from_pretrained."
        )
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: config is a {type(config).__name__}; it must be a mapping.")
    model_class, preprocessing, names = classes[name], settings.get("preprocessing"), settings.get("class_names")
    names = [] if names is None else names
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise WeightsError(f"{path}: class_names must be a list of names.")
    if preprocessing is not None and not isinstance(preprocessing, dict):
        raise WeightsError(f"{path}: preprocessing is a {type(preprocessing).__name__}; it must be a mapping.")
    cards = {card.name: card for card in catalogue().all_cards()}
    card = settings.get("name")
    return Source(
        file,
        model_class,
        model_class.config_class.from_mapping(config) if model_class.config_class else config,
        Preprocessing.from_mapping(preprocessing) if preprocessing else None,
        tuple(names),
        cards.get(card) if isinstance(card, str) else None,
        {name: read_bytes(beside(path, name), KEPT_FILE) for name in hub.model_files(settings, path)},
    )


def _from_timm(settings: Mapping[str, Any], file: Path, cls: type[NexusModule], path: Path) -> Source:
    card = _timm_card(settings["architecture"])
    if not isinstance(card.config, Config):
        raise WeightsError(f"{path}: {card.name} has a plain mapping as configuration, which timm's words do not fit.")
    config, names = config_from_timm(settings, card.config, str(path))
    return Source(file, card.model_class, config, preprocessing_from_timm(settings, str(path)), names, card)


def _timm_card(architecture: str) -> ModelCard:
    """Returns the card of the variant that timm calls so: by our name, or by the name of a file that it lists."""
    start = f"{hub.PREFIX}timm/{architecture}."
    named = (card for card, weights in _all_weights() if weights.url.startswith(start))
    return next(named, None) or catalogue().model_info(architecture)


def _from_transformers(settings: Mapping[str, Any], file: Path, cls: type[NexusModule], path: Path) -> Source:
    kind = settings["model_type"]
    readers = {kind: known for known in _zoo_classes() for kind in known.hub_types}
    model_class = cls if kind in cls.hub_types else readers.get(kind)
    if model_class is None:
        raise ValueError(f"it has the model_type {kind!r:.100}. {nearest(kind[:100], readers)}")
    beside_it = path.parent / PROCESSOR_FILE
    preprocessing = None
    if beside_it.is_file():
        with _of_file(beside_it):
            preprocessing = preprocessing_from_hub(read_json(beside_it), kind, str(beside_it))
    return Source(file, model_class, model_class.config_from_hub(settings), preprocessing, hub_labels(settings, path))


def _zoo_classes() -> list[type[NexusModule]]:
    return list(dict.fromkeys(card.model_class for card in catalogue().all_cards()))


def save_pretrained(model: NexusModule, folder: Path) -> Path:
    """Writes `model.safetensors`, `config.json` and the model's `files`, which `from_pretrained(folder)` reads again.

    Each file appears only when it is complete, the configuration last.

    Raises:
        ValueError: The model was changed so that its configuration no longer describes it.
    """
    from safetensors.torch import save_file

    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file; name a folder to save the model into.")
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    config = _described_config(model, state)
    settings = {
        "class": type(model).__name__,
        "name": model.card.name if model.card else None,
        "task": model.task,
        "config": config,
        "preprocessing": model.preprocessing.to_dict() if model.preprocessing else None,
        "class_names": list(model.class_names),
        **({"files": sorted(model.files)} if model.files else {}),
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / WEIGHTS_FILE, lambda path: save_file(state, path, metadata={"format": "pt"}))
    for name, content in model.files.items():
        write_whole(folder / name, lambda path, content=content: path.write_bytes(content))
    write_whole(folder / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def _described_config(model: NexusModule, state: State) -> dict[str, Any]:
    """Returns the configuration as plain values; a head that was replaced by an `nn.Linear` changes num_classes."""
    if not isinstance(model.config, Config):
        return dict(model.config)
    config = model.config
    head = getattr(model, "head", None)
    if setting(config, "num_classes") is not None and isinstance(head, torch.nn.Linear | torch.nn.Identity):
        config = config.replace(num_classes=getattr(head, "out_features", 0))
    with outlined():
        built = type(model)(config).state_dict()
    problems = misfits(state, built, model.head_prefixes)
    if problems:
        raise ValueError(
            f"This {type(model).__name__} was changed after it was built, and its configuration cannot say how: "
            f"{'; '.join(problems)}. Save its state_dict, or make a subclass that builds the change."
        )
    return config.to_dict()


def push_to_hub(model: NexusModule, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Uploads what `save_pretrained` writes to the Hugging Face hub and returns the commit's address.

    Raises:
        ValueError: The hub cannot be reached, or refused it (no token, no right to write).
    """
    import tempfile

    from huggingface_hub import HfApi, constants

    if offline() or not reachable(constants.ENDPOINT):
        raise ValueError(
            f"{repo_id!r} cannot be uploaded: the hub cannot be reached, or the network is switched off. "
            f"save_pretrained writes the same folder; `hf upload {repo_id} FOLDER` sends it later."
        )

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=f"Add a {type(model).__name__}"
            )
        except Exception as error:  # those of the hub's client have no base of their own, and changed with it
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"The hub did not take {repo_id!r}: {reason}. `hf auth login` sets a token.") from None
    return commit.commit_url
