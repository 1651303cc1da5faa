"""Models as ONNX files: written, run in ONNX Runtime and compared with torch before they get their names.

A file is one graph: the whole model, or one of its stages (`model.parts()`). What a runner needs besides stands in the
file's metadata: classes, preprocessing, task, stage and version.
"""

import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import nexus
from nexus.core.config import Config
from nexus.core.modes import in_eval_mode
from nexus.core.module import NexusModule
from nexus.core.parts import Part, run_parts
from nexus.deploy.onnx_compare import largest_differences
from nexus.deploy.onnx_packages import import_onnx
from nexus.tasks.table import task_name

OPSET = 18
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference from torch, as a share of an output's largest value."""
FOLLOWING = ("height", "width", "patches", "low_height", "low_width")
"""Dimensions that follow the size of the images."""
LARGEST_PROTOBUF = 2**31 - 2**20
"""Bytes that fit into one file; weights of a larger model stand beside it."""


class ExportError(ValueError):
    """A model, or one of its stages, cannot become a file, or gives other numbers there."""


class Stage(NamedTuple):
    """A file that was written.

    Attributes:
        name: Of the stage; "model" for the whole model.
        path: Of the file.
        inputs: Their names, each with its shape; a dimension that is open has a name.
        differences: Of each output the largest difference from torch, as a share of its largest value.
        cases: Sizes that were compared: of each open dimension.
    """

    name: str
    path: Path
    inputs: Mapping[str, tuple[int | str, ...]]
    differences: Mapping[str, float]
    cases: tuple[Mapping[str, int], ...]


class Whole(nn.Module):
    """The stages of a model one after another.

    Attributes:
        input_names: Of what it takes, in order.
        output_names: Of what no later stage reads, and of what belongs to the model's answer.
    """

    def __init__(self, parts: Mapping[str, Part], inputs: Sequence[str], answers: Sequence[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.input_names = tuple(inputs)
        read = {name for part in parts.values() for name in part.input_names}
        made = [name for part in parts.values() for name in part.output_names]
        self.output_names = tuple(name for name in made if name in answers or name not in read)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        given = run_parts(_parts_of(self.parts), **dict(zip(self.input_names, inputs, strict=True)))
        return {name: given[name] for name in self.output_names}


def export_onnx(
    model: NexusModule,
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    open_size: bool = False,
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
) -> list[Stage]:
    """Writes a model for ONNX Runtime, and compares what it gives there with torch. Returns what was written.

    The number of images is open, and so are those of prompts, points and texts.

    Args:
        model: In float32; it is written as it is in evaluation mode.
        path: `NAME.onnx` for the whole model in one file; without an ending a folder, with a file for each stage.
        image_size: (height, width) in pixels; None is the size that the model is made for.
        open_size: Leave the height and width of images open, too.
        opset: Version of ONNX's operators.
        tolerance: Largest difference from torch, as a share of an output's largest value.

    Raises:
        ExportError: A stage has no graph, or gives something else in ONNX Runtime; nothing is written then.
        ValueError: The path is of another kind, or the model is not in float32.
        ImportError: A package of the extra "onnx" is not installed.
    """
    path = Path(path)
    if path.suffix not in ("", ".onnx"):
        raise ValueError(f"{path} ends in {path.suffix!r}; give NAME.onnx for one file, or a folder for the stages.")
    _check_model(model)
    for package in PACKAGES:
        import_onnx(package)
    with in_eval_mode(model), torch.no_grad(), _staging(path) as folder:
        job = _Job(model, image_size, open_size, opset, tolerance)
        if path.suffix:
            graphs: dict[str, Any] = {"model": job.whole()}
            names = {"model": path.name}
        else:
            graphs = dict(job.parts)
            names = {name: f"{place}_{name}.onnx" for place, name in enumerate(graphs, start=1)}
        stages = [job.write(name, graph, folder / names[name], tuple(graphs)) for name, graph in graphs.items()]
        _move(folder, path.parent if path.suffix else path)
    return [stage._replace(path=(path if path.suffix else path / names[stage.name])) for stage in stages]


class _Job:
    """One model on its way: its stages, and what they are tried with."""

    def __init__(
        self, model: NexusModule, size: tuple[int, int] | None, open_size: bool, opset: int, tolerance: float
    ) -> None:
        self.model, self.opset, self.tolerance, self.open_size = model, opset, tolerance, open_size
        made_for = model.example_inputs(size)
        self.size = (made_for["images"].shape[-2], made_for["images"].shape[-1])
        free = model.free_dims()
        closed = () if open_size else FOLLOWING
        self.free = {
            name: {axis: what for axis, what in free.get(name, {}).items() if what not in closed} for name in made_for
        }
        names = {what for axes in self.free.values() for what in axes.values()}
        self.counted = sorted(names - set(FOLLOWING))
        step = _step(model)
        self.other_size = (self.size[0] + 2 * step, self.size[1] + step) if open_size else self.size
        self.parts = self._parts()
        self.inputs = tuple(made_for)

    def _parts(self) -> dict[str, Part]:
        specs = self.model.part_specs()
        for name, spec in specs.items():
            if not spec.graph:
                raise ExportError(
                    f"{type(self.model).__name__} cannot be exported: how much its stage {name!r} gives depends on the"
                    " values, so that there is no one graph. A DETR, RT-DETR or YOLOv10 can (`nexus models --task"
                    " detection`); the first stages of this one are modules of their own: model.parts()."
                )
        try:
            return self.model.parts(self.other_size)
        except ValueError as error:
            if not self.open_size:
                raise
            raise ExportError(f"The image size cannot be open{self._advice()}: {error}") from error

    def whole(self) -> Whole:
        return Whole(self.parts, self.inputs, self.model.answers)

    def example(self, size: tuple[int, int], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Returns example inputs with so many images, prompts, ...: those of the model, again and again."""
        example = self.model.example_inputs(size)
        for name, value in example.items():
            for axis, what in self.free[name].items():
                if what in counts:
                    places = torch.arange(counts[what], device=value.device) % value.shape[axis]
                    example[name] = example[name].index_select(axis, places)
        return example

    def cases(self) -> Iterator[tuple[tuple[int, int], dict[str, int]]]:
        """Yields what a graph is tried with: image sizes, and a number for each other open dimension."""
        step = _step(self.model)
        sizes = [self.size]
        if self.open_size:
            sizes += [(self.size[0] + step, self.size[1]), (self.size[0] + 2 * step, self.size[1] + 3 * step)]
        for number, size in enumerate(sizes):
            for count in (1, 2, 3) if number == 0 else (1, 3):
                yield size, {what: 1 + (count + place - 1) % 3 for place, what in enumerate(self.counted)}

    def write(self, name: str, graph: Any, path: Path, stages: Sequence[str]) -> Stage:
        """Writes one graph, and compares it."""
        given = self._known(self.other_size, dict.fromkeys(self.counted, 2))
        shapes = self._open_axes(graph.input_names)
        self._convert(name, graph, tuple(given[key] for key in graph.input_names), shapes, path, stages)
        session = _session(path)
        taken = {one.name: tuple(one.shape) for one in session.get_inputs()}
        differences: dict[str, float] = {}
        tried = []
        for size, counts in self.cases():
            given = self._known(size, counts)
            inputs = {key: given[key] for key in graph.input_names}
            wanted = graph(*inputs.values())
            case = {**counts, **({"height": size[0], "width": size[1]} if self.open_size else {})}
            found = self._run(name, session, inputs, case)
            for key, value in largest_differences(wanted, found).items():
                if not value <= self.tolerance:
                    raise ExportError(self._refusal(name, key, value, case))
                differences[key] = max(value, differences.get(key, 0.0))
            tried.append(case)
        return Stage(name, path, taken, differences, tuple(tried))

    def _known(self, size: tuple[int, int], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Returns what the model is given, and what torch's stages make of it."""
        return run_parts(self.parts, **self.example(size, counts))

    def _open_axes(self, names: Sequence[str]) -> tuple[dict[int, str], ...]:
        """Returns the open dimensions of tensors: those whose size follows one of the model's inputs'."""
        if all(name in self.free for name in names):
            return tuple(self.free[name] for name in names)
        base = dict.fromkeys(self.counted, 2)
        plain, axes = self._known(self.other_size, base), {name: dict(self.free.get(name, {})) for name in names}
        for what in (*base, *(("height", "width") if self.open_size else ())):
            if what in FOLLOWING:
                place, step = ("height", "width").index(what), 4 * _step(self.model)
                size = tuple(side + step * (place == axis) for axis, side in enumerate(self.other_size))
                changed = self._known((size[0], size[1]), base)
            else:
                changed = self._known(self.other_size, {**base, what: 3})
            for name in names:
                pairs = enumerate(zip(plain[name].shape, changed[name].shape, strict=True))
                for axis, (old, new) in pairs:
                    if old != new and axis not in axes[name]:
                        axes[name][axis] = what if (old, new) == (2, 3) else f"{name}_{axis}"
        return tuple(axes[name] for name in names)

    def _convert(
        self,
        name: str,
        graph: Any,
        inputs: tuple[Tensor, ...],
        shapes: tuple[dict[int, str], ...],
        path: Path,
        stages: Sequence[str],
    ) -> None:
        try:
            with _quietly():
                program = torch.onnx.export(
                    graph,
                    inputs,
                    dynamic_shapes={"inputs": shapes},
                    input_names=list(graph.input_names),
                    output_names=list(graph.output_names),
                    opset_version=self.opset,
                    dynamo=True,
                    verbose=False,
                )
        except Exception as error:
            raise ExportError(
                f"The stage {name!r} of {type(self.model).__name__} cannot become a graph{self._advice()}: {error}"
            ) from error
        assert program is not None
        program.model.producer_name, program.model.producer_version = "nexus", nexus.__version__
        program.model.metadata_props.update(self._metadata(name, stages))
        size = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
        program.save(path, external_data=size > LARGEST_PROTOBUF)

    def _metadata(self, name: str, stages: Sequence[str]) -> dict[str, str]:
        model = self.model
        facts: dict[str, Any] = {
            "nexus_version": nexus.__version__,
            "model": model.card.name if model.card else type(model).__name__,
            "task": task_name(model),
            "stage": name,
            "stages": list(stages),
            "class_names": list(model.class_names),
            "image_size": None if self.open_size else list(self.size),
            "config": model.config.to_dict() if isinstance(model.config, Config) else None,
            "multiple_of": getattr(model, "multiple_of", 1),
            "preprocessing": self._preprocessing(),
        }
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}

    def _preprocessing(self) -> dict[str, Any] | None:
        """Returns how an image becomes the input; a fixed size other than its own is what images are resized to."""
        own = self.model.preprocessing
        if own is None:
            return None
        fixed = own.resize in ("shorter", "squash", "crop", "none") and not self.open_size
        return (own.fitted({"image_size": self.size}) if fixed and own.image_size != self.size else own).to_dict()

    def _run(self, name: str, session: Any, inputs: Mapping[str, Tensor], case: Mapping[str, int]) -> dict[str, Any]:
        wanted = {one.name for one in session.get_inputs()}
        try:
            outputs = session.run(None, {key: value.cpu().numpy() for key, value in inputs.items() if key in wanted})
        except Exception as error:
            raise ExportError(
                f"The graph of {name!r} fails in ONNX Runtime at {_told(case)}{self._advice()}: {error}"
            ) from error
        return dict(zip((one.name for one in session.get_outputs()), outputs, strict=True))

    def _refusal(self, name: str, key: str, value: float, case: Mapping[str, int]) -> str:
        return (
            f"{key} of {name!r} differs from torch by {value:.1e} of its largest value at {_told(case)}; allowed are"
            f" {self.tolerance:g}{self._advice()}."
        )

    def _advice(self) -> str:
        return f" ({type(self.model).__name__} may need a fixed image size: leave it so)" if self.open_size else ""


def _told(case: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in case.items())


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, NexusModule):
        raise ValueError(f"A {type(model).__name__} does not name its stages; export_onnx takes a NexusModule.")
    kinds = {value.dtype for value in model.parameters()}
    if kinds - {torch.float32}:
        raise ValueError(f"The model is in {', '.join(map(str, sorted(kinds, key=str)))}; export model.float().")


def _step(model: NexusModule) -> int:
    """Returns pixels by which an image's sides may grow."""
    patch = getattr(model.config, "patch_size", None)
    return 2 * patch if isinstance(patch, int) and patch > 4 else 32


def _parts_of(modules: nn.ModuleDict) -> dict[str, Part]:
    return {name: part for name, part in modules.items() if isinstance(part, Part)}


def _session(path: Path) -> Any:
    onnxruntime: Any = import_onnx()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path`, on the same disk, which is gone afterwards."""
    home = next(folder for folder in path.absolute().parents if folder.is_dir())
    folder = Path(tempfile.mkdtemp(dir=home, prefix=f".{path.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.replace(target / file.name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps torch's progress and its warnings about its own calls to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
