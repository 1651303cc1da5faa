"""The Hugging Face hub: files of a repository, and folders of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus.core.documents import read_json
from nexus.core.download import check_sha256, home, offline, reachable
from nexus.core.files import WeightsError, part_names

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
PREFIX = "hf-hub:"
MODEL_FILES = frozenset(
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "tokenizer.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "templates.json",
    ]
)
"""What a model may keep beside its weights: a tokenizer's data, and the sentences that classes are put into."""


def model_files(settings: Mapping[str, Any], path: Path) -> list[str]:
    """Returns the names under `files` in a config.json of ours, which must be of the closed list.

    Raises:
        WeightsError: One is not.
    """
    names = settings.get("files") or []
    if not isinstance(names, list) or len(names) > len(MODEL_FILES):
        raise WeightsError(f"{path} has files that are a {type(names).__name__}; it must list some names.")
    for name in names:
        if not isinstance(name, str) or name not in MODEL_FILES:
            raise WeightsError(
                f"{path} names the file {repr(name)[:80]} among files; known are {', '.join(sorted(MODEL_FILES))}."
            )
    return names


def hub_file(repo: str, names: Sequence[str]) -> Path:
    """Returns the first of `names` that the repository has, fetched into the hub's cache and checked.

    A copy in `home() / "hub" / org / repo` comes before the network.

    Raises:
        WeightsError: The repository or all the files are missing, closed, or cannot be reached.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or ".." in repo:
        raise WeightsError(f"{repo!r} is not a repository of the hub; it must be 'organisation/name'.")
    folder = home() / "hub" / repo
    for name in names:
        if (folder / name).is_file():
            return folder / name
    from huggingface_hub import constants, errors, hf_hub_download

    cached_only = offline() or not reachable(constants.ENDPOINT)
    address = f"https://huggingface.co/{repo}/resolve/main/{names[0]}"
    problem = f"it has none of {', '.join(names)}"
    for name in names:
        try:
            path = Path(hf_hub_download(repo, name, local_files_only=cached_only))
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                problem = "it is not in the cache and the hub cannot be reached, or the network is switched off"
            continue
        except errors.GatedRepoError:
            problem = "it is gated: accept its licence on its page and set HF_TOKEN"
            break
        except errors.RepositoryNotFoundError:
            problem = "there is no such repository, or it is private: check the name, or set HF_TOKEN"
            break
        except Exception as error:  # those of the hub's client have no base of their own, and changed with it
            problem = " ".join(str(error).split())[:300] or type(error).__name__
            break
        _check_blob(path)
        return path
    raise WeightsError(
        f"{names[0]} of {PREFIX}{repo} cannot be had: {problem}. Once you have {address}, put it into {folder}."
    )


def _check_blob(path: Path) -> None:
    """Checks a cached file against its own name: the hub's cache calls large files by their sha256."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        check_sha256(blob, blob.name)


def hub_weights(repo: str) -> Path:
    """Returns the weight file of a repository, or the index of its parts, which are fetched too."""
    weights = hub_file(repo, WEIGHT_FILES)
    if weights.name.endswith(".index.json"):
        for part in part_names(weights):
            hub_file(repo, [part])
    return weights


def hub_folder(repo: str) -> Path:
    """Returns a folder that holds config.json, the weights, and what else a repository says about a model."""
    config = hub_file(repo, ["config.json"])
    hub_weights(repo)
    settings = read_json(config)
    if not isinstance(settings, dict):
        raise WeightsError(f"{config} holds a {type(settings).__name__}; a model's configuration is a mapping.")
    if "class" in settings:  # save_pretrained wrote it
        for name in model_files(settings, config):
            hub_file(repo, [name])
    if "model_type" in settings:
        try:
            hub_file(repo, ["preprocessor_config.json"])
        except WeightsError:
            return config.parent  # models without one use the library's default preprocessing
    return config.parent
