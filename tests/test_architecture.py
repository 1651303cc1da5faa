"""The house holds: who may import whom, what an import costs, what no file may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From left to right; a room imports its own kind and what stands to its left. Rooms of one step do not know each other.
MITHRIL = [
    {"types", "errors"},
    {"ops"},
    {"logical"},
    {"models"},
    {"physical"},
    {"codegen"},
    {"backends"},
    {"compile"},
    {"interop", "training"},
]
NEXUS = [
    {"core"},
    {"ops"},
    {"layers"},
    {"models"},
    {"data"},
    {"visualization"},
    {"tasks"},
    {"training", "evaluation", "predict"},
    {"deploy", "proofs"},
    {"app"},
    {"cli"},
]


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Yields the absolute names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def step(package: str, module: str, order: list[set[str]]) -> int | None:
    """Returns the place of a module's room in the order; None for the package's own `__init__`."""
    parts = module.split(".")
    if parts[0] != package or len(parts) < 2:
        return None
    places = [place for place, rooms in enumerate(order) if parts[1] in rooms]
    return places[0] if places else None


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(("package", "order"), [("mithril", MITHRIL), ("nexus", NEXUS)])
def test_rooms_import_only_what_stands_to_their_left(package, order):
    wrong = []
    for path in sources(package):
        name = str(path.relative_to(ROOT))
        here = step(package, ".".join(path.relative_to(ROOT).with_suffix("").parts), order)
        if here is None:
            assert path.name in ("__init__.py", "__main__.py"), f"{name} stands in no room of DESIGN.md"
            continue
        room = path.relative_to(ROOT).with_suffix("").parts[1]
        for module in imports(path):
            there = step(package, module, order)
            if there is None:
                continue
            other = module.split(".")[1]
            if there > here or (there == here and other != room and {"types", "errors"} != {room, other}):
                wrong.append(f"{name} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_mithril_knows_nothing_of_nexus():
    assert not [(p, m) for p in sources("mithril") for m in imports(p) if m.split(".")[0] == "nexus"]


def test_only_deploy_and_the_demo_know_mithril():
    allowed = (ROOT / "nexus" / "deploy", ROOT / "nexus" / "cli", ROOT / "nexus" / "app")
    knowing = [p for p in sources("nexus") for m in imports(p) if m.split(".")[0] == "mithril"]
    assert not [p for p in knowing if not any(p.is_relative_to(folder) for folder in allowed)]


def run_time_imports(path: Path, package: str) -> Iterator[str]:
    """Yields the modules of a package that a file imports, at the top or inside functions, but not for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)


def test_the_zoo_and_what_it_stands_on_have_no_circle():
    """Imports inside functions count; what types alone need does not."""
    rooms = ("core", "ops", "layers", "models")
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for room in rooms
        for path in sources(f"nexus/{room}")
    }
    graph = {name: {one for one in run_time_imports(path, "nexus") if one in files} for name, path in files.items()}
    left = dict(graph)
    while free := [name for name, wanted in left.items() if not wanted & left.keys() - {name}]:
        for name in free:
            del left[name]
    assert not left, f"These import each other: {', '.join(sorted(left))}"


def test_core_knows_no_zoo():
    """Neither by an import nor by a string: `nexus.core.catalogue` is asked for cards."""
    knowing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("nexus/core")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("nexus.models")
    ]
    assert not knowing


def test_optional_packages_are_imported_by_the_function_that_needs_them():
    optional = {"jax", "mlx", "onnx", "onnxruntime", "sklearn", "tensorboard", "matplotlib", "scipy", "huggingface_hub"}
    optional |= {"transformers", "torchvision", "timm", "cv2"}
    eager = [
        f"{path.relative_to(ROOT)}: {module}"
        for package in ("mithril", "nexus")
        for path in sources(package)
        for module in imports(path, top_level=True)
        if module.split(".")[0] in optional and "backends" not in path.parts
    ]
    assert not eager, "\n".join(eager)


LONG: set[str] = set()
"""Files over the bound until they are cut where a second idea begins."""


def test_files_and_functions_can_be_read():
    long = [
        f"{p.relative_to(ROOT)}"
        for n in ("mithril", "nexus")
        for p in sources(n)
        if len(p.read_text().split("\n")) > 451
    ]
    assert not long, f"over 450 lines: {long}"


def test_no_file_of_a_stranger_can_run_code():
    """Weights, archives and graphs are data: what could run code from them stands in one named place each."""
    allowed = {
        ("nexus/data/datasets/pickles.py", "pickle.Unpickler"): "the reader that knows arrays and nothing else",
        ("nexus/core/torchscript.py", "pickle.Unpickler"): "the reader that knows tensors and bare modules",
        ("mithril/compile/folding.py", "exec"): "the source that this compiler has just written",
        ("mithril/compile/running.py", "exec"): "the source that this compiler has just written",
    }
    dangerous = {"pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "yaml.load", "yaml.unsafe_load"}
    safe = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
    found = []
    for path in (*sources("nexus"), *sources("mithril")):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            if text in dangerous and (name, text) not in allowed:
                found.append(f"{name}:{node.lineno} uses {text}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in safe:
                keyword, value = safe[ast.unparse(node.func)]
                if {k.arg: ast.unparse(k.value) for k in node.keywords}.get(keyword) != value:
                    found.append(f"{name}:{node.lineno} {ast.unparse(node.func)} without {keyword}={value}")
    assert not found, "\n".join(found)


def loaded_after(statement: str) -> set[str]:
    """Returns the top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_import_loads_no_framework():
    frameworks = {"torch", "jax", "mlx", "matplotlib", "transformers", "PIL"}
    assert not loaded_after("import mithril") & frameworks
    assert not loaded_after("import nexus") & frameworks


def test_help_does_not_wait_for_torch():
    assert not loaded_after("import nexus.cli") & {"torch", "numpy", "matplotlib", "PIL"}


FRAME = ("training", "evaluation", "predict.py", "deploy", "app", "cli")


def declared(folder: str, base: str) -> set[str]:
    """Returns the classes below a folder of nexus that are made of `base`, directly or not."""
    parents = {
        node.name: {ast.unparse(parent).partition("[")[0] for parent in node.bases}
        for path in (ROOT / "nexus" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = {base}
    while more := {name for name, of in parents.items() if of & found} - found:
        found |= more
    return found - {base}


def kinds_named(tree: ast.AST, tasks: dict[str, str], classes: set[str]) -> Iterator[str]:
    """Yields where a file names a kind of model: a class, a folder of a task, or a task's name as a value."""
    folders = tuple(tasks.values())
    for node in ast.walk(tree):
        place = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            text = (
                node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else node.name
            )
            if text.rpartition(".")[2] in classes or text.startswith(folders):
                yield f"{place}: {text}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith((*folders, "nexus.models.cv")):
            yield f"{place}: {node.module}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in (*tasks, *folders):
            yield f"{place}: {node.value!r}"


def test_the_frame_knows_no_kind_of_model():
    """What depends on the kind stands in its folder of `tasks`: no name of a task or model, no question for its type."""
    from nexus.tasks.table import TASKS

    classes = declared("models", "NexusModule") | declared("tasks", "Task") | {"Prediction", "Detections"}
    assert {"VisionTransformer", "CLIP", "FasterRCNN", "MAE", "DetectionTask"} <= classes
    files = [
        p for room in FRAME for p in ([ROOT / "nexus" / room] if room.endswith(".py") else sources(f"nexus/{room}"))
    ]
    assert len(files) > 30
    found = [
        f"{path.relative_to(ROOT)}, {where}"
        for path in files
        for where in kinds_named(ast.parse(path.read_text()), TASKS, classes)
    ]
    assert not found, "\n".join(found)


def test_a_kind_that_is_named_is_seen():
    tasks, classes = {"toy-kind": "nexus.tasks.toy"}, {"CLIP"}
    for line in (
        "from nexus.models.cv import CLIP",
        "isinstance(x, CLIP)",
        "y == 'toy-kind'",
        "import nexus.tasks.toy.a",
    ):
        assert list(kinds_named(ast.parse(line), tasks, classes)), line
    assert not list(kinds_named(ast.parse("'a toy-kind of model'; x.clip; import nexus.tasks.table"), tasks, classes))
