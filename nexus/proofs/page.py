"""What `verify` found, as tables for the terminal and as the page `docs/verified-models.md`."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from nexus.proofs.verify import Parity, Verdict

_INTRODUCTION = """\
# Verified models

Written by `nexus verify --page docs/verified-models.md` (slower, and with the column *also on*, after `--everywhere`);
run `nexus verify 'vit_*'` to repeat a part of it on your machine. Every registered variant is here.

A variant is compared as a small model of its kind (the same configuration, fewer and narrower layers, random weights)
with an independent implementation that holds the same weights, read through the names that published files have.
Outputs and the gradients of all parameters are compared in float64, and again in float32 (allowed: 1e-5). Differences
are relative to the largest value and rounded up to a power of ten; 0 means bit by bit. Where the oracle is *the
paper*, no library has the model: its equations are written once more, in other ways than the model's. Parameters are
counted on the variant itself and compared with the published number.

- *another size*: the small model also runs at another image size; with a number, it was compared there too.
- *compile*: `torch.compile` captures one graph (fullgraph, aot_eager) that gives the same numbers.
- *export*: `torch.export` gives a program with the same numbers.
- *also on*: where else the small model gives the same numbers in float32: on ONNX Runtime, and on NumPy, JAX and MLX
  through mithril (`nexus.deploy`); "-" where that was not tried.

Detectors that suppress overlapping boxes have no one graph: what they return depends on how many boxes are left. Their
detections are compared in float64 alone, where no rounding decides between two like boxes, and their losses by the
same random draws; region pooling and suppression are `nexus.ops` on both sides, and are proven by its own tests.
"""


HEADER = (
    *("variant", "parameters", "published", "equal to", "outputs", "gradients", "float32", "another size"),
    *("compile", "export", "also on", "verdict"),
)


def page(verdicts: Iterable[Verdict]) -> str:
    """Returns the page: one table for each class, one line for each variant. It holds no date and no time."""
    verdicts = sorted(verdicts, key=lambda verdict: (verdict.model.lower(), verdict.name))
    parts = [_INTRODUCTION, f"Compared with {_libraries(verdicts)}.\n"]
    for model, group in groupby(verdicts, key=lambda verdict: verdict.model):
        members = list(group)
        formats = [name for name in members[0].formats if name != "nexus"]
        parts.append(f"## {model}\n")
        parts.append(f"Reads files of: {', '.join(['nexus', *formats])}.\n")
        parts.append(_markdown(HEADER, [_line(verdict) for verdict in members]))
        parts.extend(f"{line}\n" for line in _absent(members))
    return "\n".join(parts)


def table_row(verdict: Verdict) -> dict[str, Any]:
    """Returns the line of `nexus verify`."""
    compared = [parity for parity in verdict.parities if parity.ok is not None]
    return {
        "name": verdict.name,
        "parameters": verdict.parameters,
        "published": _same(verdict),
        "equal to": _names(compared),
        "outputs": _powers(parity.values for parity in compared),
        "gradients": _powers(parity.gradients for parity in compared),
        "other size": _yes(verdict.other_size),
        "compile": _yes(verdict.compiles),
        "export": _yes(verdict.exports),
        "also on": _places(verdict),
        "verdict": summary(verdict),
    }


def summary(verdict: Verdict) -> str:
    """Returns "proven", or what is missing or wrong."""
    missing = [f"{parity.problem}" for parity in verdict.parities if parity.ok is None]
    if verdict.problems:
        return "FAILED: " + "; ".join(verdict.problems)
    if missing:
        return "not compared: " + "; ".join(missing)
    if verdict.parities:
        return "proven"
    return f"counted; compared in {verdict.elsewhere}" if verdict.elsewhere else "counted; no oracle is declared"


def _line(verdict: Verdict) -> list[str]:
    compared = [parity for parity in verdict.parities if parity.ok is not None]
    sizes = [parity.other_size for parity in compared if parity.other_size is not None]
    return [
        f"`{verdict.name}`",
        f"{verdict.parameters:,}",
        _same(verdict),
        _names(compared),
        _powers(parity.values for parity in compared),
        _powers(parity.gradients for parity in compared),
        _powers(parity.float32 for parity in compared),
        f"yes, {_power(max(sizes))}" if sizes else _yes(verdict.other_size),
        _yes(verdict.compiles),
        _yes(verdict.exports),
        _places(verdict),
        summary(verdict),
    ]


def _places(verdict: Verdict) -> str:
    return ", ".join(place for place, found in verdict.runs_on.items() if found == "yes") or "-"


def _absent(verdicts: Sequence[Verdict]) -> list[str]:
    """Returns a sentence for each place where a variant of a class does not run, and why."""
    why: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        for place, found in verdict.runs_on.items():
            if found != "yes":
                why.setdefault((place, found), []).append(verdict.name)
    everyone = len(verdicts)
    return [
        f"Not on {place}{'' if len(names) == everyone else f' ({len(names)} variants, such as `{names[0]}`)'}: "
        f"{' '.join(found.split())[:200]}"
        for (place, found), names in why.items()
    ]


def _libraries(verdicts: Sequence[Verdict]) -> str:
    names = {parity.library for verdict in verdicts for parity in verdict.parities if parity.ok is not None}
    return ", ".join(sorted(names)) or "nothing: no reference library is installed"


def _names(parities: Sequence[Parity]) -> str:
    return ", ".join(dict.fromkeys(parity.library.split()[0] for parity in parities)) or "-"


def _same(verdict: Verdict) -> str:
    if verdict.published is None:
        return "-"
    return "equal" if verdict.published == verdict.parameters else f"{verdict.published:,}"


def _powers(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _power(max(known)) if known else "-"


def _power(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"1e{math.ceil(math.log10(value))}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
