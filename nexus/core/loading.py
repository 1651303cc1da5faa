"""From a weight file to a model: compared by their headers, on `meta`, and only then allocated."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from nexus.core.checkpoints import Checkpoint
from nexus.core.config import Config
from nexus.core.documents import FileError
from nexus.core.files import WeightsError, open_checkpoint, reading
from nexus.core.formats import State, adapt_input_channels, to_our_names
from nexus.core.outline import Undrawn, outlined
from nexus.core.stored import StoredState, load_all

if TYPE_CHECKING:
    from nexus.core.module import NexusModule

_log = logging.getLogger("nexus")

LARGEST_SETTING = 1 << 20
"""A number in a configuration of a published model: more tokens, classes, channels or pixels in a side are none's."""
_PACKAGE = __name__.partition(".")[0]
TENSOR_MARGIN, ELEMENT_MARGIN = 8, 64 << 20
"""A model may have so many times the tensors of its file (joined ones are split), and so many elements more."""
SHARING = 4
"""Views in a file may have so many times the elements that it stores: tied weights do, expanded ones have no end."""
_UNFIT = (ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, StopIteration)
"""What building and renaming raise where sizes or names are those of another model."""


def load_weights(model: NexusModule, file: str | Path, *, new_head: bool = False) -> None:
    """Loads a weight file into a model, whichever of its formats it is written in; all of it or nothing.

    Args:
        model: Is changed in place.
        file: See `nexus.core.files.read_state`.
        new_head: Keep the model's own head where the file's has another shape, or has none.

    Raises:
        WeightsError: The file cannot be read, or its names or shapes do not fit.
    """
    fitting = _Fitting(open_checkpoint(Path(file)), new_head)
    with _quiet():
        stored = fitting.find(model)
    model.load_state_dict(fitting.convert(model, fitting.load(stored)))


def build_pretrained(
    model_class: type[NexusModule],
    config: Config | Mapping[str, Any],
    file: Path,
    *,
    new_head: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> NexusModule:
    """Returns a model with the weights of a file, built without memory, which takes the file's tensors as its own.

    Args:
        model_class: What is built.
        config: Its configuration. One that wants more than the file has is refused before it is built.
        file: See `nexus.core.files.read_state`.
        new_head: See `load_weights`.
        dtype: Of floating-point weights; None: that of the model.
        device: Where they go; None: the CPU.

    Raises:
        WeightsError: The file cannot be read, or does not fit the configuration.
    """
    _check_placement(dtype, device)
    fitting = _Fitting(open_checkpoint(file), new_head)
    sketch = _sketch(model_class, config, fitting.checkpoint)
    with _quiet():
        stored = fitting.find(sketch)
        tensors = fitting.load(stored)
        state = fitting.convert(sketch, dict(tensors))
    if any(value.is_meta for value in state.values()):  # the file lacks some: they are drawn as in a fresh model
        model = model_class(config)
        model.load_state_dict(fitting.convert(model, tensors))
    else:
        tensors.clear()
        with _building(model_class, file):
            model = _with_buffers(model_class, config)
        _take(model, state, dtype, device)
    return model.to(device=device, dtype=dtype)


def _check_placement(dtype: Any, device: Any) -> None:
    """Raises ValueError unless weights can be of this dtype and on this device."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype is {dtype!r}; weights are floats: give one of torch's, such as torch.bfloat16.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch tells a missing CUDA by an assertion
        raise ValueError(f"There is no device {str(device)!r} here; use cpu, or leave it out.") from error


class _Fitting:
    """A checkpoint on its way into a model: the weights that fit, under the model's names and in its sizes."""

    def __init__(self, checkpoint: Checkpoint, new_head: bool) -> None:
        self.checkpoint, self._new_head = checkpoint, new_head

    def find(self, model: NexusModule) -> StoredState:
        """Returns the weights in the file that fit, after they were compared without reading their numbers."""
        own = model.state_dict()

        def fit(state: StoredState) -> int:
            try:
                return len(own.keys() & to_our_names(_outline(state), model.formats)[0].keys())
            except _UNFIT:
                return 0

        named = self.checkpoint.named()
        score = fit(named) if named else 0
        if score < sum(not key.endswith(_COUNTS) for key in own):
            named = self.checkpoint.best(fit, max(1, len(own) // 4), score) or named
        stored = named or self.checkpoint.weights()
        _, elements = self.checkpoint.extent()
        if sum(value.numel() for value in stored.values()) > SHARING * elements + LARGEST_SETTING:
            raise WeightsError(f"{self.checkpoint.path} repeats its numbers more than {SHARING} times; it is refused.")
        self.convert(model, _outline(stored))
        return stored

    def load(self, stored: StoredState) -> State:
        with reading(self.checkpoint.path):
            return load_all(stored)

    def convert(self, model: NexusModule, state: State) -> State:
        """Returns weights in the names and sizes of `model`, or raises `WeightsError` where they do not fit."""
        path, own = self.checkpoint.path, model.state_dict()
        try:
            ours, spelling = to_our_names(state, model.formats)
            ours = model.fit_state(_fit_channels(ours, own, model.config))
        except _UNFIT as error:
            raise WeightsError(f"{path} does not fit {type(model).__name__}: {_line(error)}.") from None
        if self._new_head:
            ours = _keep_own_head(ours, own, model.head_prefixes, path)
        for key in own:  # files older than torch 0.4.1 do not count batches
            if key.endswith(_COUNTS):
                ours.setdefault(key, torch.zeros((), dtype=torch.int64))
        if problems := misfits(ours, own, model.head_prefixes):
            name = type(model).__name__
            raise WeightsError(f"{path} (names of {spelling}) does not fit {name}: {'; '.join(problems)}.")
        return ours


_COUNTS = "num_batches_tracked"


def _outline(state: StoredState) -> State:
    return {key: value.meta() for key, value in state.items()}


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps remarks on fresh weights back while a model is compared; loading says them once."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    _log.addFilter(nothing)
    try:
        yield
    finally:
        _log.removeFilter(nothing)


def _sketch(model_class: type[NexusModule], config: Config | Mapping[str, Any], checkpoint: Checkpoint) -> NexusModule:
    """Returns the model on `meta`; stops as soon as it wants much more than the file has."""
    path, (tensors, elements) = checkpoint.path, checkpoint.extent()
    if isinstance(config, Config) and type(config).__module__.startswith(f"{_PACKAGE}."):
        _check_settings(config.to_dict(), tensors, path)  # a number of one's own class may mean anything
    seen = [0, 0]

    def count(module: nn.Module, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            seen[:] = seen[0] + 1, seen[1] + value.numel()
        if seen[0] > TENSOR_MARGIN * (tensors + 64) or seen[1] > 2 * elements + ELEMENT_MARGIN:
            raise WeightsError(
                f"{path} has {tensors:,} tensors with {elements:,} numbers, and its configuration wants a "
                f"{model_class.__name__} with more: they do not belong together."
            )

    with _building(model_class, path), warnings.catch_warnings(), _registering(count):
        warnings.simplefilter("ignore")  # remarks on layers without weights
        try:
            with outlined():
                return model_class(config)
        except NotImplementedError:  # it computes with its fresh weights
            seen[:] = 0, 0
            return model_class(config)


@contextmanager
def _building(model_class: type[NexusModule], path: Path) -> Iterator[None]:
    """Turns what a model says of odd numbers in its configuration into one line."""
    try:
        yield
    except FileError:
        raise
    except ValueError as error:  # a rule of the configuration, in words already
        raise WeightsError(f"{path}: {error}") from None
    except _UNFIT as error:
        name = model_class.__name__
        raise WeightsError(f"{path}: no {name} can be built with its configuration ({_line(error)}).") from None


def _check_settings(settings: Any, tensors: int, path: Path, key: str = "") -> None:
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            _check_settings(value, tensors, path, str(name))
    elif isinstance(settings, list):
        for value in settings:
            _check_settings(value, tensors, path, key)
    elif isinstance(settings, int) and settings > (tensors if key.endswith("num_layers") else LARGEST_SETTING):
        raise WeightsError(
            f"{path}: its configuration has {key} = {settings}, which no model of {tensors} tensors has."
        )


@contextmanager
def _registering(look: Callable[[nn.Module, str, Any], Any]) -> Iterator[None]:
    """Calls `look` with every parameter and buffer that this thread gives to a module; what it returns is taken."""
    thread = threading.get_ident()

    def here(module: nn.Module, name: str, value: Any) -> Any:
        return look(module, name, value) if threading.get_ident() == thread else None

    hooks = [
        torch_modules.register_module_parameter_registration_hook(here),
        torch_modules.register_module_buffer_registration_hook(here),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _with_buffers(model_class: type[NexusModule], config: Config | Mapping[str, Any]) -> NexusModule:
    """Returns a model whose parameters are on `meta`, and whose buffers, computed from the configuration, are real."""

    def outline(module: nn.Module, name: str, value: Any) -> Any:
        return nn.Parameter(value.detach().to("meta"), value.requires_grad) if isinstance(value, nn.Parameter) else None

    with _registering(outline), Undrawn():
        return model_class(config)


def _take(model: NexusModule, state: State, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
    """Makes the tensors of `state` the model's, one after another, each with memory of its own."""
    own, taken = model.state_dict(keep_vars=True), set()
    for key in list(state):
        kind = dtype if dtype is not None and own[key].is_floating_point() else own[key].dtype
        value = state[key].detach().to(device=device, dtype=kind).contiguous()
        memory = value.untyped_storage()
        if memory.nbytes() != value.nbytes or memory.data_ptr() in taken:
            value = value.clone()
        taken.add(value.untyped_storage().data_ptr())
        state[key] = value
    model.load_state_dict(state, assign=True)
    _tie(model, own)


def _tie(model: NexusModule, before: Mapping[str, Any]) -> None:
    """Shares again what several names of the model shared before its weights were assigned."""
    first: dict[int, str] = {}
    for key, value in before.items():
        name = first.setdefault(id(value), key)
        if name != key and isinstance(value, nn.Parameter):
            place, _, leaf = key.rpartition(".")
            setattr(model.get_submodule(place), leaf, model.get_parameter(name))


def _keep_own_head(state: State, own: Mapping[str, Tensor], heads: tuple[str, ...], path: Path) -> State:
    theirs = {key: value.shape for key, value in state.items() if key.startswith(heads)}
    ours = {key: value.shape for key, value in own.items() if key.startswith(heads)}
    if theirs == ours:
        return state
    if ours:
        _log.warning("The head was freshly initialised: %s has another one, or none.", path.name)
    body = {key: value for key, value in state.items() if not key.startswith(heads)}
    return body | {key: own[key] for key in ours}


def _fit_channels(state: State, own: Mapping[str, Tensor], config: Any) -> State:
    """Adapts the convolutions that read the image when the model was built for other channels than the file."""
    channels = setting(config, "in_channels")
    fitted = dict(state)
    for key, value in state.items():
        wanted = list(own[key].shape) if key in own else []
        given = list(value.shape)
        if len(wanted) == 4 and given != wanted and given == [wanted[0], 3, *wanted[2:]] and wanted[1] == channels:
            fitted[key] = adapt_input_channels(value, channels)
    return fitted


def misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: tuple[str, ...]) -> list[str]:
    """Returns in words how the names and shapes of `state` differ from a model's own."""
    problems = []
    if missing := [key for key in own if key not in state]:
        problems.append(f"it lacks {_some(missing)}")
    if unexpected := [key for key in state if key not in own]:
        problems.append(f"it has {_some(unexpected)} too many")
    shapes = [
        f"{key} is {tuple(value.shape)} and should be {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    if shapes:
        problems.append(_some(shapes))
    if problems and all(key.startswith(heads) for key in own.keys() ^ state.keys()) and _only_head(shapes, heads):
        problems.append("only the head differs: pass num_classes=... to keep the rest and start a fresh head")
    return problems


def _only_head(shapes: Iterable[str], heads: tuple[str, ...]) -> bool:
    return all(text.startswith(heads) for text in shapes)


def _some(items: list[str]) -> str:
    rest = len(items) - 6
    return ", ".join(item[:120] for item in items[:6]) + (f" and {rest} more" if rest > 0 else "")


def setting(config: Config | Mapping[str, Any], name: str) -> Any:
    """Returns a field of a configuration, or of the mapping that stands for one; None where it is absent."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
