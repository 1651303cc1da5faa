"""From what a user names to a model that is ready to run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nexus.core.modes import in_eval_mode
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data.adapt import Adapted
from nexus.data.batch import Batch, place
from nexus.data.facets import Pictured


def open_model(source: nn.Module | str | Path, device: torch.device | str | None = None) -> nn.Module:
    """Returns the model that `source` means, on a device.

    Args:
        source: A module, which is taken as it is; the folder of a training run or of `save_pretrained`; a weight
            file; or a registered name, whose published weights are then loaded.
        device: None leaves a module where it is, and puts what is loaded here on the GPU if there is one.

    Raises:
        ValueError: There is no such folder, file or name; the nearest name is given.
    """
    device = None if device is None else _existing(device)
    if isinstance(source, nn.Module):
        return source if device is None else source.to(device)
    if not isinstance(source, str | Path) or not str(source):
        shown = f"the class {source.__name__}" if isinstance(source, type) else repr(source)
        raise ValueError(f"The model is {shown}; give a module, a registered name, a folder or a weight file.")
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        if not (folder / "model" / "config.json").is_file():
            if (folder / "model").is_dir():
                raise ValueError(
                    f"{folder / 'model'} lacks config.json, without which nobody knows what its weights are. Copy the"
                    " file from where the folder came from, or write the model again: `nexus train` with --resume."
                )
            if (folder / "recipe.yaml").is_file():
                raise ValueError(
                    f"The run in {folder} has not finished, so it holds no model yet. Let it go on: `nexus train` with"
                    f" its recipe and changes, --run-dir {folder} and --resume."
                )
            raise ValueError(
                f"{folder} holds no model: neither config.json (a saved model) nor model/config.json (a finished run)."
            )
        folder = folder / "model"
    model = NexusModule.from_pretrained(folder if folder.exists() else str(source))
    return model.to(device or default_device())


def _existing(device: torch.device | str) -> torch.device:
    """The device that is meant, where this machine has it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch tells a missing CUDA by an assertion
        has = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(f"There is no device {str(device)!r} here; use {has}, or leave it out.") from error
    return torch.device(device)


def default_device() -> torch.device:
    """Returns the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's first parameter is; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def as_input(model: nn.Module, images: Tensor) -> Tensor:
    """Returns images where a model is, and as exact as its weights are: a model in bfloat16 takes bfloat16."""
    kinds = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next(kinds, torch.float32) if images.is_floating_point() else images.dtype
    return images.to(device_of(model), dtype, non_blocking=True)


def place_for(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Returns a batch with all its tensors where a model is, and its `images` as the model takes them."""
    placed = {key: place(value, device_of(model)) for key, value in batch.items()}
    if isinstance(placed.get("images"), Tensor):
        placed["images"] = as_input(model, placed["images"])
    return placed


def preprocessing_of(model: nn.Module, given: Preprocessing | None = None) -> Preprocessing:
    """Returns the preprocessing that was given, or the model's own, or its card's.

    Raises:
        ValueError: There is none of them.
    """
    if given is not None:
        return given
    if isinstance(model, NexusModule):
        if model.preprocessing is not None:
            return model.preprocessing
        if model.card is not None:
            return model.card.preprocessing
    raise ValueError(
        f"{type(model).__name__} does not say how an image becomes its input."
        " Pass preprocessing=Preprocessing(image_size=(224, 224), mean=..., std=...), or set model.preprocessing."
    )


def input_preprocessing(model: nn.Module, dataset: object, given: Preprocessing | None = None) -> Preprocessing | None:
    """Returns how the images of a data set become the model's input: None where there are none.

    Tensors of floats of someone else's data set go in as they are.
    """
    if isinstance(dataset, Adapted) and dataset.as_input:
        return untouched(dataset.in_channels)
    return preprocessing_of(model, given) if isinstance(dataset, Pictured) else None


def untouched(channels: int) -> Preprocessing:
    """Returns the preprocessing that leaves pixels as they are."""
    return Preprocessing(resize="none", mean=(0.0,) * channels, std=(1.0,) * channels)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode, without gradients, and leaves every part of it as it was found."""
    with in_eval_mode(model), torch.inference_mode():
        yield
