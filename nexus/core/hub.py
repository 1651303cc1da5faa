"""The Hugging Face hub: files of a repository, and what its config.json files say in timm's and transformers' words."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus.core.download import check_sha256, home, offline, reachable
from nexus.core.files import WeightsError
from nexus.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
PREFIX = "hf-hub:"
_RESAMPLE: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}  # the numbers of PIL's filters


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
        except (errors.HfHubHTTPError, OSError) as error:
            problem = str(error).split("\n")[0] or type(error).__name__
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
        for part in sorted(set(json.loads(weights.read_text())["weight_map"].values())):
            hub_file(repo, [part])
    return weights


def hub_folder(repo: str) -> Path:
    """Returns a folder that holds config.json, the weights, and what else a repository says about a model."""
    config = hub_file(repo, ["config.json"])
    hub_weights(repo)
    settings = json.loads(config.read_text())
    if "class" in settings:  # save_pretrained wrote it
        for name in settings.get("files") or ():
            hub_file(repo, [name])
    if "model_type" in settings:
        try:
            hub_file(repo, ["preprocessor_config.json"])
        except WeightsError:
            return config.parent  # models without one use the library's default preprocessing
    return config.parent


def hub_num_classes(mapping: Mapping[str, Any]) -> int:
    """Returns the outputs of the head that a transformers config.json describes; 0 if it describes a bare backbone."""
    if not any("Classification" in name for name in mapping.get("architectures") or ()):
        return 0
    names = mapping.get("id2label")
    return len(names) if names else mapping.get("num_labels", 2)


def preprocessing_from_timm(settings: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing in a timm `pretrained_cfg`."""
    _, height, width = settings.get("test_input_size") or settings.get("input_size") or (3, 224, 224)
    crop = settings.get("test_crop_pct") or settings.get("crop_pct") or 0.875
    squash = settings.get("crop_mode") == "squash"
    return Preprocessing(
        image_size=(height, width),
        resize="squash" if squash else "shorter",
        resize_size=None if squash else int(min(height, width) / crop),
        interpolation=settings.get("interpolation") or "bicubic",
        mean=tuple(settings.get("mean") or IMAGENET_MEAN),
        std=tuple(settings.get("std") or IMAGENET_STD),
    )


def preprocessing_from_hub(settings: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing in a preprocessor_config.json of transformers."""
    size = settings.get("size") or 224
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
    box = _sides(crop if crop is not None else size)
    if shorter and settings.get("crop_pct") and shorter < 384:  # the hub's ResNet: size is after the crop
        shorter, box = int(shorter / settings["crop_pct"]), (shorter, shorter)
    return Preprocessing(
        image_size=box,
        resize="shorter" if shorter else "squash",
        resize_size=shorter,
        interpolation=_RESAMPLE.get(settings.get("resample", 2), "bicubic"),
        mean=tuple(settings.get("image_mean") or IMAGENET_MEAN),
        std=tuple(settings.get("image_std") or IMAGENET_STD),
    )


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        side = size.get("shortest_edge")
        return (side, side) if side else (size["height"], size["width"])
    return (size, size) if isinstance(size, int) else tuple(size)
