"""Writes the reference pages from docstrings, and the lines of `nexus models`: `make docs`."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("Args", "Returns", "Raises", "Yields", "Attributes")
HEAD = "Written by `make docs` from the docstrings; a test holds it to them."


def signature(thing: Any, skip: int = 0) -> str:
    """The arguments with their defaults, without types."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "()"
    plain = [p.replace(annotation=p.empty) for p in list(found.parameters.values())[skip:]]
    plain = [p if p.default is p.empty else p.replace(default=Shown(p.default)) for p in plain]
    return str(found.replace(parameters=plain, return_annotation=found.empty))


class Shown:
    """A default as one would write it."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        if inspect.isroutine(self.value) or inspect.isclass(self.value):
            return self.value.__name__
        text = repr(self.value)
        return re.sub(r"<(?:\w+\.)*(\w+)[^>]*>", r"\1", text)


def prose(thing: Any) -> list[str]:
    """A docstring as Markdown: its sections become lists."""
    lines, section = [], ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        indent = len(line) - len(line.lstrip())
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            lines += [f"*{section}*", ""]
        elif not section or not line:
            lines.append(line)
            section = section if line else ""
        elif indent == 4 and section != "Returns":
            name, _, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}" if text else f"- {name}")
        else:
            lines.append(("  " if section != "Returns" else "") + line.strip())
    return lines


def entry(name: str, thing: Any, level: int = 3) -> Iterator[str]:
    """A heading, the signature and the docstring; for a class also its public methods and properties."""
    yield f"{'#' * level} {name}"
    yield ""
    own = inspect.isclass(thing) and thing.__init__ is not object.__init__ and not issubclass(thing, Exception)
    if own or inspect.isroutine(thing):
        yield from ["```py", f"{name}{signature(thing)}", "```", ""]
    yield from [*prose(thing), ""]
    if inspect.isclass(thing):
        for member, value in sorted(vars(thing).items()):
            found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            described = isinstance(found, property) or inspect.isroutine(found)
            if not member.startswith("_") and described and _says_more(thing, member, found):
                yield from method(name, member, found, isinstance(value, staticmethod))


def _says_more(owner: type, name: str, found: Any) -> bool:
    """Whether it has a docstring, and not one that a base class of ours has said."""
    bases = [base for base in owner.__mro__[1:] if base.__module__.split(".")[0] in ("mithril", "nexus")]
    texts = {inspect.getdoc(vars(base)[name]) for base in bases if name in vars(base)}
    return inspect.getdoc(found) not in {None, *texts}


def method(owner: str, name: str, found: Any, static: bool) -> Iterator[str]:
    """One method or property of a class."""
    call = "" if isinstance(found, property) else signature(found, skip=0 if static else 1)
    yield f"**`{owner}.{name}{call}`**"
    yield ""
    yield from [*prose(found), ""]


def entries(module: Any, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from entry(name, getattr(module, name))


def operators() -> Iterator[str]:
    """The operator table, one row each."""
    from mithril.logical.primitive import primitive_class
    from mithril.ops.table import OPS, REQUIRED

    yield from ["| class | inputs | attributes | outputs |", "|---|---|---|---|"]
    for row in sorted(OPS.values(), key=lambda row: row.name):
        attributes = [k if v is REQUIRED else f"{k}={Shown(v)!r}" for k, v in row.attributes.items()]
        cells = [", ".join(f"`{word}`" for word in words) for words in (row.inputs, attributes, row.outputs)]
        yield f"| `{primitive_class(row).__name__}` | {' | '.join(cells)} |"
    yield ""


def mithril_page() -> str:
    """Everything public of mithril."""
    import mithril as ml
    from mithril import interop, models, training
    from mithril.logical.primitive import Primitive

    backends = ("TorchBackend", "JaxBackend", "MlxBackend", "NumpyBackend")
    layers = [
        name
        for name in models.__all__
        if not (inspect.isclass(getattr(models, name)) and issubclass(getattr(models, name), Primitive))
        and getattr(models, name).__module__.startswith("mithril.models")
    ]
    lines = ["# Reference of mithril", "", HEAD, ""]
    lines += ["## Compose", "", *entries(ml, ("Model", "IOKey", "Connection", "Operator", "register_op"))]
    lines += ["## Compile and run", "", *entries(ml, ("compile", "PhysicalModel", "Backend", *backends))]
    lines += ["## Train", "", *entries(training, ("TrainModel", "l1", "l2", "tikhonov"))]
    lines += ["## From torch and back", "", *entries(interop, interop.__all__)]
    lines += ["## Types and errors", "", *entries(ml, ("DType", "Dim", "Tensor", "MithrilError"))]
    lines += ["## Layers and models", "", "In `mithril.models`, beside the classes of the operators.", ""]
    lines += entries(models, sorted(layers, key=str.lower))
    lines += ["## Operators", "", "Classes of `mithril.models`; `?` marks an input that may be absent, `*` a list.", ""]
    return "\n".join([*lines, *operators()]).rstrip() + "\n"


def nexus_page() -> str:
    """What `import nexus` gives."""
    import nexus

    lines = ["# Reference of nexus", "", HEAD, "The models themselves stand in [models.md](models.md).", ""]
    return "\n".join([*lines, *entries(nexus, (name for name in nexus.__all__ if name[0] != "_"))]).rstrip() + "\n"


PAGES = {"mithril-reference.md": mithril_page, "nexus-reference.md": nexus_page}


def main(folder: Path) -> None:
    for name, page in PAGES.items():
        text = re.sub(r"\n{3,}", "\n\n", page())
        (folder / name).write_text(text, encoding="utf-8")
    # `make format` also reads the code blocks of pages, so a page is stale unless it is written as ruff would.
    ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--config", str(ROOT / "pyproject.toml")]
    subprocess.run([*ruff, *(str(folder / name) for name in PAGES)], check=True)


def keep_rows() -> None:
    """Writes the file that `nexus models` reads."""
    from nexus.cli.listing import FILE, write_rows

    (ROOT / "nexus" / "cli" / FILE).write_text(write_rows(), encoding="utf-8")


if __name__ == "__main__":
    keep_rows()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
