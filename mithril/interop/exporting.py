"""A torch module as a functional graph of aten operators: torch.export, and what can go wrong with it."""

from __future__ import annotations

import inspect
import io
import linecache
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from mithril.errors import ConversionError
from mithril.interop.gradients import detach_no_grad, own_gradients_refused
from mithril.interop.mapping.decompose import decompose, unmapped
from mithril.types import free_name, identifier, is_name

MAY_ALIAS = {"dropout", "contiguous", "reshape", "flatten", "to", "type_as", "expand_as", "view_as", "detach_"}
"""Operators that may return their input itself although their schema does not say so."""


@dataclass
class Exported:
    """The graph of a module, with names that its user knows."""

    graph: Graph
    inputs: dict[Node, str]
    """Placeholders of tensors that the user gives, with their names."""
    tensors: dict[Node, str]
    """Placeholders of parameters and buffers, with their names in the state dict."""
    values: dict[str, torch.Tensor]
    """Their values by name."""
    learned: set[str]
    """Names of those that are parameters."""
    constants: dict[Node, torch.Tensor]
    """Tensors that `forward` makes, or buffers that are not part of the state dict."""
    outputs: dict[str, Any]
    """Nodes and numbers by name."""
    sizes: dict[str, str]
    """Names of open sizes by torch's symbols: `s77` is `batch`."""


def export_module(
    module: nn.Module, example_inputs: Any, dynamic_shapes: Any = None, kwargs: Mapping[str, Any] | None = None
) -> Exported:
    """Export a module and make its graph functional."""
    kwargs = dict(kwargs or {})
    program = _export(module, example_inputs, kwargs, _named_sizes(dynamic_shapes))
    detach_no_grad(program)
    if unmapped(program) or not rename_in_place(program.graph):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its tree specs
            program = decompose(program)
        _check_mutations(program)
    found = Exported(program.graph, {}, {}, {}, set(), {}, _outputs(program), {})
    names = _input_names(module, example_inputs, kwargs)
    _sort_placeholders(program, module, iter(names), found)
    found.sizes = _size_names(found.inputs, dynamic_shapes, names)
    return found


def _sort_placeholders(program: ExportedProgram, module: nn.Module, names: Iterator[str], found: Exported) -> None:
    """Tell the graph's inputs apart: the user's, parameters and buffers, and constants."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    first_names: dict[int, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        first_names.setdefault(id(tensor), name)
    for spec in program.graph_signature.input_specs:
        node, target = placeholders.get(getattr(spec.arg, "name", "")), spec.target or ""
        if spec.kind is InputKind.USER_INPUT:
            name = next(names)
            if node is not None and not isinstance(spec.arg, ConstantArgument):
                found.inputs[node] = name
        elif node is None or spec.kind is InputKind.TOKEN or spec.kind is InputKind.CUSTOM_OBJ:
            raise ConversionError(f"The module reads '{target}', a {spec.kind.name}, which has no mapping.")
        elif spec.kind is InputKind.CONSTANT_TENSOR or spec.persistent is False:
            found.constants[node] = program.constants[target]
        else:
            value = _attribute(module, target)
            name = found.tensors[node] = first_names.get(id(value), target)
            found.values[name] = value.detach()
            if spec.kind is InputKind.PARAMETER and value.requires_grad:
                found.learned.add(name)


def _export(module: nn.Module, args: Any, kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    if not isinstance(module, nn.Module):
        raise ConversionError(f"from_torch needs a torch.nn.Module, not {type(module).__name__}.")
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _quiet(), own_gradients_refused(module):
            return export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:
        raise _explain(error, module) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings, and what it writes to standard error when tracing fails: our error says it."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def as_arguments(example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of an example: a tensor, a tuple of arguments, or a mapping by name."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


# Names


def _named_sizes(shapes: object) -> Any:
    """Sizes that are named with a string, as torch's own: `{"images": {0: "batch"}}`."""
    if isinstance(shapes, str):
        return Dim(shapes)
    if isinstance(shapes, Mapping):
        return {key: _named_sizes(value) for key, value in shapes.items()}
    if isinstance(shapes, tuple | list):
        return type(shapes)(_named_sizes(value) for value in shapes)
    return shapes


def _input_names(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Names of all leaves of the arguments, by the parameters of `forward`: `images`, `features_0`."""
    by_position = inspect.signature(module.forward).bind_partial(*args).arguments
    leaves = (name for key, value in {**by_position, **kwargs}.items() for name, _ in named_leaves(value, key))
    names: list[str] = []
    for name in leaves:
        names.append(free_name(identifier(name), names))
    return names


def named_leaves(value: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, sequences and dataclasses, with their paths joined by underscores."""
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value)
    elif isinstance(value, tuple | list):
        parts = enumerate(value)
        name = name or "output"
    elif is_dataclass(value) and not isinstance(value, type):
        parts = ((f.name, getattr(value, f.name)) for f in fields(value))
    else:
        yield name or "output", value
        return
    for key, part in parts:
        yield from named_leaves(part, f"{name}_{key}" if name else str(key))


def _outputs(program: ExportedProgram) -> dict[str, Any]:
    """What `forward` returns, by name: nodes and numbers. None is left out."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    leaves = output.args[0][len(output.args[0]) - len(program.graph_signature.user_outputs) :]
    assert program.call_spec.out_spec is not None
    returned = pytree.tree_unflatten(list(leaves), program.call_spec.out_spec)
    named: dict[str, Any] = {}
    for name, leaf in named_leaves(returned):
        if leaf is not None:
            named[free_name(identifier(name), named)] = leaf
    if not named:
        raise ConversionError("The module returns nothing.")
    return named


def _size_names(inputs: Mapping[Node, str], dynamic_shapes: Any, names: Sequence[str]) -> dict[str, str]:
    """The user's name for each open size; torch's where there is none."""
    given: dict[tuple[str, int], str] = {}
    if isinstance(dynamic_shapes, Mapping):
        per_input = dict(dynamic_shapes)
    else:
        per_input = dict(zip(names, dynamic_shapes or ()))
    for name, shape in per_input.items():
        pairs = shape.items() if isinstance(shape, Mapping) else enumerate(shape or ())
        for axis, size in pairs:
            word = size if isinstance(size, str) else getattr(size, "__name__", None)
            if isinstance(axis, int) and word is not None and is_name(word):
                given[name, axis] = word
    found: dict[str, str] = {}
    for node, name in inputs.items():
        for axis, size in enumerate(getattr(node.meta["val"], "shape", ())):
            if not isinstance(size, int):
                found.setdefault(str(size), given.get((name, axis), identifier(str(size))))
    return found


def _attribute(module: nn.Module, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


# Making the graph functional


def schema_of(node: Node) -> Any:
    """The schema of the operator that a node calls; None for Python functions."""
    return getattr(node.target, "_schema", None)


def _may_alias(node: Node) -> bool:
    """Whether the node's result may be its input, or a view of it."""
    schema = schema_of(node)
    if schema is None:
        return True
    return schema.name.split("::")[1] in MAY_ALIAS or any(r.alias_info is not None for r in schema.returns)


def rename_in_place(graph: Graph) -> bool:
    """Let everything after an in-place operator read its result, where that says the same.

    Returns whether it does for all of them, and no other construct needs torch's functionalization: a value that is
    changed must be fresh, and no view of it that was made before may be read later.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    changes: list[tuple[Node, Node]] = []
    for node in graph.nodes:
        if node.op == "get_attr":
            return False
        if node.op != "call_function" or not getattr(schema_of(node), "is_mutable", False):
            continue
        target = node.args[0]
        fresh = isinstance(target, Node) and target.op == "call_function"
        in_place = any(target is old and order[new] < order[node] for old, new in changes)
        if not isinstance(target, Node) or not fresh or in_place or not _is_fresh(target):
            return False
        views = [user for user in target.users if order[user] < order[node] and _may_alias(user)]
        if any(order[later] > order[node] for view in views for later in view.users):
            return False
        changes.append((target, node))
    for target, node in changes:
        target.replace_all_uses_with(node, delete_user_cb=lambda user, at=order[node]: order[user] > at)
    return True


def _is_fresh(node: Node) -> bool:
    """Whether the value is a tensor of its own, or that of another in-place operator on one."""
    schema = schema_of(node)
    if schema is not None and schema.is_mutable and isinstance(node.args[0], Node):
        return node.args[0].op == "call_function" and _is_fresh(node.args[0])
    return not _may_alias(node)


def _check_mutations(program: ExportedProgram) -> None:
    """Refuse modules that change their inputs or buffers."""
    nodes = {node.name: node for node in program.graph.nodes}
    for result, name in program.graph_signature.user_inputs_to_mutate.items():
        raise ConversionError(
            f"The module changes its input '{name}' in place, which no other framework can do.",
            [*whereabouts(nodes[result]), "Work on a copy: x = x.clone(), or use the operator without the underscore."],
        )
    for result, name in program.graph_signature.buffers_to_mutate.items():
        raise ConversionError(
            f"The module changes its buffer '{name}' while it runs.",
            [
                *whereabouts(nodes[result]),
                "Call module.eval() before from_torch, so that statistics are only read. "
                "What changes then too must be an input and an output of forward.",
            ],
        )


# Places


def source_line(node: Node) -> tuple[str, int, str] | None:
    """File, line and text that made the node: the innermost frame outside of torch."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', node.meta.get("stack_trace") or "")
    own = [f for f in frames if not _is_torch(f[0]) and not f[0].startswith("<")] or frames
    return (own[-1][0], int(own[-1][1]), own[-1][2]) if own else None


def whereabouts(node: Node) -> list[str]:
    """Notes for a message: the module and its line."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", "")
    notes = [f"in {path or 'the module itself'} ({str(kind).rsplit('.', 1)[-1]})"] if stack else []
    line = source_line(node)
    return [*notes, f"{line[0].rsplit('/', 1)[-1]}:{line[1]}: {line[2]}"] if line else notes


def _is_torch(file: str) -> bool:
    return "/torch/" in file.replace("\\", "/")


def _explain(error: Exception, module: nn.Module) -> ConversionError:
    """An error of torch.export in one sentence, with the module and line where it came up."""
    paths = {id(part): path for path, part in module.named_modules()}
    place, path, trace = "", "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        owner = frame.f_locals.get("self")
        file = frame.f_code.co_filename
        if isinstance(owner, nn.Module) and id(owner) in paths and not _is_torch(file):
            path = f"{paths[id(owner)] or 'the module itself'} ({type(owner).__name__})"
            line = linecache.getline(file, trace.tb_lineno).strip()
            place = f"{file.rsplit('/', 1)[-1]}:{trace.tb_lineno}: {line}"
        trace = trace.tb_next
    if isinstance(error, ConversionError):
        notes = [note for note in (f"in {path}" if path else "", place) if note]
        return ConversionError(error.message, [*notes, *error.notes])
    text = str(error)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    notes = [
        note for note in (f"in {path}" if path else "", place, f"torch.export says: {first.strip()[:300]}") if note
    ]
    if "data-dependent" in text or "Data-dependent" in text or "unbacked" in text or "Eq(u" in text:
        advice = (
            "Compute both and choose with torch.where; or decide by a shape, an attribute or a number given to forward."
        )
        return ConversionError("The module's control flow depends on the values of its data.", [*notes, advice])
    if "Constraints violated" in text:
        fixed = [line.strip() for line in text.splitlines() if " = " in line][-1:]
        hint = "Somewhere it makes a number of the size (len(x) does, x.shape[0] does not), or the example's size is 1."
        return ConversionError("A size that dynamic_shapes leaves open is fixed by the module.", [*fixed, hint])
    if isinstance(error, TypeError) and "argument" in text:
        return ConversionError("The example inputs do not fit the module's forward.", notes)
    return ConversionError("torch.export cannot trace the module.", notes)
