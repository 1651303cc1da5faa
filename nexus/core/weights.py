"""Models with trained weights: from a name, a file, a folder, the hub or an address, and back to a folder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nexus.core import hub, packages
from nexus.core.card import ModelCard, Weights
from nexus.core.catalogue import catalogue
from nexus.core.config import Config, nearest
from nexus.core.download import download
from nexus.core.files import SUFFIXES, WeightsError, write_whole
from nexus.core.formats import State
from nexus.core.loading import build_pretrained, load_weights, misfits, setting
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing

__all__ = ["Source", "find_source", "load_pretrained", "load_weights", "push_to_hub", "read_folder", "save_pretrained"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


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


def find_source(source: str | Path, cls: type[NexusModule] = NexusModule) -> Source:
    """Returns what `source` (see `load_pretrained`) is, fetching its weight file if need be.

    Raises:
        ValueError: It is none of the kinds that are known, or cannot be had.
    """
    text = str(source)
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
    name, _, tag = text.partition(".")
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
    if weights.url.startswith(packages.PREFIX):
        return packages.package_file(weights.url, weights.sha256)
    if not weights.url.startswith(hub.PREFIX):
        return download(weights.url, sha256=weights.sha256)
    repo, _, name = weights.url.removeprefix(hub.PREFIX).partition("#")
    return hub.hub_file(repo, [name]) if name else hub.hub_weights(repo)


def _published(file: Path, card: ModelCard, weights: Weights) -> Source:
    config = card.config.replace(**weights.changes)
    return Source(file, card.model_class, config, weights.preprocessing, tuple(weights.class_names), card)


def _registered(card: ModelCard, weights: Weights) -> Source:
    return _published(fetch_weights(weights), card, weights)


def _bare_file(path: Path, cls: type[NexusModule]) -> Source:
    """A file alone: a published one is known by its name; for others the class's default configuration is taken."""
    for card, weights in _all_weights():
        if weights.url.endswith("/" + path.name) and issubclass(card.model_class, cls):
            return _published(path, card, weights)
    if cls is NexusModule:
        raise ValueError(
            f"{path.name} is not a published file, so nothing says which model it is for. "
            "Name the class, VisionTransformer.from_pretrained(...), or create the model and load_weights into it."
        )
    return Source(path, cls, cls.config_class() if cls.config_class else {})


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
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}")
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}).") from None
    file = next((folder / name for name in hub.WEIGHT_FILES if (folder / name).is_file()), folder / WEIGHTS_FILE)
    if "class" in settings:
        return _from_nexus(settings, file, cls, path)
    if "architecture" in settings:
        return _from_timm(settings, file)
    if "model_type" in settings:
        return _from_transformers(settings, file, folder, cls)
    raise WeightsError(
        f"{path} names no model; it needs 'class', or timm's 'architecture', or 'model_type' ({source})."
    )


def _from_nexus(settings: Mapping[str, Any], file: Path, cls: type[NexusModule], path: Path) -> Source:
    classes = {known.__name__: known for known in [*_zoo_classes(), cls]}
    name = settings["class"]
    if name not in classes or classes[name] is NexusModule:
        raise ValueError(
            f"{path} is for the class {name!r}, which is not part of the zoo. Call {name}.from_pretrained."
        )
    model_class, config = classes[name], settings.get("config", {})
    preprocessing = settings.get("preprocessing")
    cards = {card.name: card for card in catalogue().all_cards()}
    return Source(
        file,
        model_class,
        model_class.config_class.from_mapping(config) if model_class.config_class else config,
        Preprocessing.from_mapping(preprocessing) if preprocessing else None,
        tuple(settings.get("class_names") or ()),
        cards.get(settings.get("name") or ""),
        {name: _beside(path, name).read_bytes() for name in settings.get("files") or ()},
    )


def _beside(path: Path, name: str) -> Path:
    """Returns a file that a configuration names, which must lie in its folder."""
    file = path.parent / name
    if Path(name).name != name or not file.is_file():
        raise WeightsError(f"{path} names the file {name!r}, which is not in {path.parent}; save the model again.")
    return file


def _from_timm(settings: Mapping[str, Any], file: Path) -> Source:
    card = _timm_card(settings["architecture"])
    pretrained = settings.get("pretrained_cfg") or settings
    changes: dict[str, Any] = {}
    num_classes = settings.get("num_classes", pretrained.get("num_classes"))
    if num_classes is not None:
        changes["num_classes"] = num_classes
    names = tuple(str(name) for name in settings.get("label_names") or pretrained.get("label_names") or ())
    return Source(
        file, card.model_class, card.config.replace(**changes), hub.preprocessing_from_timm(pretrained), names, card
    )


def _timm_card(architecture: str) -> ModelCard:
    """Returns the card of the variant that timm calls so: by our name, or by the name of a file that it lists."""
    start = f"{hub.PREFIX}timm/{architecture}."
    named = (card for card, weights in _all_weights() if weights.url.startswith(start))
    return next(named, None) or catalogue().model_info(architecture)


def _from_transformers(settings: Mapping[str, Any], file: Path, folder: Path, cls: type[NexusModule]) -> Source:
    kind = settings["model_type"]
    readers = {kind: known for known in _zoo_classes() for kind in known.hub_types}
    model_class = cls if kind in cls.hub_types else readers.get(kind)
    if model_class is None:
        raise ValueError(f"{folder / CONFIG_FILE} has the model_type {kind!r}. {nearest(kind, readers)}")
    beside = folder / "preprocessor_config.json"
    preprocessing = hub.preprocessing_from_hub(json.loads(beside.read_text())) if beside.is_file() else None
    labels = settings.get("id2label") or {}
    names = tuple(labels[key] for key in sorted(labels, key=int))
    return Source(file, model_class, model_class.config_from_hub(settings), preprocessing, names)


def _zoo_classes() -> list[type[NexusModule]]:
    return list(dict.fromkeys(card.model_class for card in catalogue().all_cards()))


def save_pretrained(model: NexusModule, folder: Path) -> Path:
    """Writes `model.safetensors`, `config.json` and the model's `files`, which `from_pretrained(folder)` reads again.

    Each file appears only when it is complete, the configuration last.

    Raises:
        ValueError: The model was changed so that its configuration no longer describes it.
    """
    from safetensors.torch import save_file

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
    with torch.device("meta"):
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
        ValueError: The hub refused it (no token, no right to write).
    """
    import tempfile

    from huggingface_hub import HfApi, errors

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=f"Add a {type(model).__name__}"
            )
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"The hub did not take {repo_id!r}: {reason}. `hf auth login` sets a token.") from None
    return commit.commit_url
