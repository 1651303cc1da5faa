"""`verify`: runs the proof of each variant on this machine and says what came out."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from nexus.core.card import ModelCard
from nexus.core.config import Config
from nexus.core.module import NexusModule
from nexus.core.outline import outlined
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs.family import PAPER, Family, Oracle
from nexus.proofs.libraries import OracleMissing, import_library
from nexus.proofs.parity import compare
from nexus.proofs.table import family_of

Check = Callable[[nn.Module, Tensor], None]  # raises where a module on these images gives other numbers elsewhere


@dataclass(frozen=True)
class Parity:
    """How a small model of a family's kind compares with one oracle.

    Attributes:
        library: The package and its version, or the package alone where it is missing.
        ok: Whether all differences are within their tolerances; None where the package is missing.
        values: Largest relative difference of outputs in float64.
        gradients: Likewise of the gradients of all parameters; None where they are not compared.
        float32: Likewise of outputs and gradients in float32.
        other_size: Of outputs in float64 at another image size; None where the oracle takes none.
        problem: What went wrong, or why the package is missing; empty if all is well.
    """

    library: str
    ok: bool | None
    values: float | None = None
    gradients: float | None = None
    float32: float | None = None
    other_size: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is proven of a variant.

    Attributes:
        name: The registered name.
        model: The class.
        parameters: Counted on the meta device.
        published: The number on the card; None where none is published.
        parities: One per oracle; empty where none can be installed, or no proof is declared.
        formats: Names of the checkpoint formats that are read; "nexus" is our own.
        other_size: Whether a small model takes another image size; None where the paper fixes the size.
        compiles: Whether `torch.compile` captures one graph that gives the same numbers.
        exports: Whether `torch.export` does.
        elsewhere: Where a proof in the repository compares it, if a user's machine cannot.
        runs_on: For each place that was asked for, "yes", or why it does not run there.
        problems: Everything that failed, in words.
    """

    name: str
    model: str
    parameters: int
    published: int | None
    parities: tuple[Parity, ...]
    formats: tuple[str, ...]
    other_size: bool | None
    compiles: bool | None
    exports: bool | None
    elsewhere: str
    runs_on: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed; what could not be run because a package is missing has not failed."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class _Behaviour:
    """What holds for every variant whose small model has the same configuration."""

    parities: tuple[Parity, ...] = ()
    other_size: bool | None = None
    compiles: bool | None = None
    exports: bool | None = None
    runs_on: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def verify(pattern: str = "*", places: Mapping[str, Check] | None = None) -> Iterator[Verdict]:
    """Yields a verdict for each registered variant whose name matches a shell pattern, in alphabetical order.

    A variant is compared with its oracles as a small model: the same configuration with fewer and narrower layers.
    Variants that differ in size alone share one comparison. Parameters are counted on the variant itself.

    Args:
        pattern: A shell pattern.
        places: Where else small models shall run and give the same numbers (`nexus.deploy.PLACES`). That one does not
            run there is told, and is no failure.
    """
    done: list[tuple[type[NexusModule], Config, _Behaviour]] = []
    for name in list_models(pattern):
        card, family = model_info(name), family_of(name)
        behaviour = _Behaviour()
        if family is not None:
            config = family.small(cast("Config", card.config))  # the zoo has no plain mappings
            known = [b for model, small, b in done if model is card.model_class and small == config]
            behaviour = known[0] if known else _behaviour(card.model_class, config, family, places or {})
            if not known:
                done.append((card.model_class, config, behaviour))
        yield _verdict(card, behaviour, family.elsewhere if family else "")


def _verdict(card: ModelCard, behaviour: _Behaviour, elsewhere: str) -> Verdict:
    with outlined():
        parameters = create_model(card.name).num_parameters()
    problems = list(behaviour.problems)
    if card.num_parameters is not None and parameters != card.num_parameters:
        problems.append(f"it has {parameters:,} parameters, and {card.num_parameters:,} are published")
    return Verdict(
        name=card.name,
        model=card.model_class.__name__,
        parameters=parameters,
        published=card.num_parameters,
        parities=behaviour.parities,
        formats=("nexus", *(format.name for format in card.model_class.formats)),
        other_size=behaviour.other_size,
        compiles=behaviour.compiles,
        exports=behaviour.exports,
        elsewhere=elsewhere,
        runs_on=behaviour.runs_on,
        problems=tuple(problems),
    )


def _behaviour(
    model_class: type[NexusModule], config: Config, family: Family, places: Mapping[str, Check]
) -> _Behaviour:
    """Runs a small model against its oracles, and by itself."""
    parities = tuple(_parity(model_class, config, family, oracle) for oracle in family.oracles)
    problems = [f"{parity.library}: {parity.problem}" for parity in parities if parity.ok is False]

    def check(what: str, run: Callable[[], None]) -> bool:
        problem = _attempt(run)
        if problem:
            problems.append(f"{what}: {problem}")
        return not problem

    torch.manual_seed(0)
    model, images = model_class(config).eval(), _images(family.image_size)
    captured = _Read(model, family)
    other = family.other_size
    sizes = None if other is None else check("another image size", lambda: _assert_finite(captured(_images(other))))
    compiles = None if family.dynamic else check("torch.compile", lambda: _compile(captured, images))
    exports = None if family.dynamic else check("torch.export", lambda: _export(captured, images))
    tried = {} if family.dynamic else places
    runs_on = {place: _attempt(partial(run, captured, images)) or "yes" for place, run in tried.items()}
    return _Behaviour(parities, sizes, compiles, exports, runs_on, tuple(problems))


def _parity(model_class: type[NexusModule], config: Config, family: Family, oracle: Oracle) -> Parity:
    try:
        library = ModuleType(PAPER) if oracle.library == PAPER else import_library(oracle.library)
    except OracleMissing as error:
        return Parity(oracle.library, None, problem=str(error))
    name = PAPER if oracle.library == PAPER else f"{oracle.library} {library.__version__}"
    found: dict[str, float | None] = {}
    problem = _attempt(lambda: found.update(_differences(model_class, config, family, oracle, library)))
    bounds = {
        "values": oracle.tolerance,
        "gradients": oracle.tolerance,
        "other_size": oracle.other_tolerance,
        "float32": oracle.float32_tolerance or 0.0,
    }
    apart = [f"{what} differ by {found[what]:.1e}" for what, bound in bounds.items() if (found.get(what) or 0) > bound]
    problem = problem or ", ".join(apart)
    return Parity(name, not problem, **found, problem=problem)


def _differences(
    model_class: type[NexusModule], config: Config, family: Family, oracle: Oracle, library: ModuleType
) -> dict[str, float | None]:
    """Returns the largest differences of a small model from one oracle, by the names of `Parity`."""
    torch.manual_seed(0)
    theirs, ours = oracle.build(library, config), model_class(config)
    oracle.randomize(theirs)
    fresh = copy.deepcopy(theirs)  # some of them remember the first size that they saw
    calls = {"run": oracle.run, "read": oracle.read, "publish": oracle.publish}
    images = _images(family.image_size)
    exact = compare(ours, theirs, images, gradients=oracle.gradients, **calls)
    assert exact.spelling == oracle.spelling, f"its weights were taken for {exact.spelling!r}"
    found: dict[str, float | None] = {"values": exact.values}
    found["gradients"] = exact.largest_gradient if oracle.gradients else None
    if oracle.other_size and family.other_size is not None:
        found["other_size"] = compare(ours, fresh, _images(family.other_size), gradients=False, **calls).values
    if oracle.float32_tolerance is not None:
        single = compare(ours, theirs, images, dtype=torch.float32, gradients=oracle.gradients, **calls)
        found["float32"] = max(single.values, single.largest_gradient)
    return found


class _Read(nn.Module):
    """A model whose forward pass returns the one tensor that its family is compared by."""

    def __init__(self, model: NexusModule, family: Family) -> None:
        super().__init__()
        self.model, self.read = model, family.read

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.model, images)


def _images(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def _compile(model: nn.Module, images: Tensor) -> None:
    """Captures one graph; the compiler behind it is torch's own."""
    with torch.no_grad():
        wanted = model(images)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), wanted, rtol=1e-4, atol=1e-5)


def _export(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


def _assert_finite(values: Tensor) -> None:
    assert values.isfinite().all(), "the outputs are not finite"


def _attempt(run: Callable[[], None]) -> str:
    """Returns what went wrong, in one line; a proof that breaks must not hide the others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"
    return ""
