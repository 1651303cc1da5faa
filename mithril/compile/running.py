"""A compiled model: its source, running it, its gradients, and the checks of what it is given."""

from __future__ import annotations

import itertools
import linecache
import math
import re
import types as python_types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mithril.codegen.gradient import generate_gradient
from mithril.compile.checks import Checker
from mithril.errors import BackendError, KeyMismatchError, nearest
from mithril.physical.graph import Graph, Value, Variadic, show_shape
from mithril.types import Dim

if TYPE_CHECKING:
    from mithril.backends.base import Backend

Arrays = Mapping[str, Any]
Given = Arrays | None
_NUMBERS = itertools.count()


class PhysicalModel:
    """A model compiled for one backend.

    State (batch-norm statistics, the random key) is explicit: `initial_state()` makes it, `evaluate` takes it and then
    returns the new one beside the outputs. State given among the params is used as it is.
    """

    def __init__(
        self,
        graph: Graph,
        backend: Backend,
        source: str,
        jit: bool | None,
        file_path: str | Path | None,
        training: bool,
        freeze: Callable[[dict[str, Any]], PhysicalModel],
    ):
        self.graph = graph
        self.backend = backend
        self.source = source
        self.training = training
        self.jit = backend.name == "jax" if jit is None else jit
        self._module = load(source, file_path, graph.name)
        run = self._module.evaluate
        self._evaluate = backend.jit(run) if self.jit else backend.prepare(run)
        self._gradient: Any = None
        self._freeze = freeze
        self.constants = {v.name: backend.array(v.data, v.dtype) for v in graph.inputs.values() if v.kind == "constant"}
        for node in graph.nodes:
            if re.fullmatch(r"conv\dd", node.op.name) and node.inputs[1].kind == "constant":
                name = node.inputs[1].name
                self.constants[name] = backend.lay_out(self.constants[name])
        self._states = len(self.state_keys)
        self._checker = Checker(graph, backend)

    # What it consists of

    def _keys(self, *kinds: str) -> list[str]:
        return [v.name for v in self.graph.inputs.values() if v.kind in kinds]

    @property
    def data_keys(self) -> list[str]:
        """Inputs that are given with every call."""
        return self._keys("input")

    @property
    def parameter_keys(self) -> list[str]:
        """Inputs that are learned."""
        return self._keys("parameter")

    @property
    def trainable_keys(self) -> list[str]:
        """Parameters that gradients are taken of."""
        return [v.name for v in self.graph.inputs.values() if v.kind == "parameter" and v.trainable]

    @property
    def state_keys(self) -> list[str]:
        """Inputs that the model itself changes."""
        return self._keys("state")

    @property
    def output_keys(self) -> list[str]:
        """Names of the outputs."""
        return list(self.graph.outputs)

    @property
    def shapes(self) -> dict[str, Any]:
        """Shape of every input and output: numbers, None for sizes that stay open, "..." for an open rank."""
        return {k: _public_shape(v.shape) for k, v in self._values().items()}

    @property
    def types(self) -> dict[str, Any]:
        """Dtype of every input and output."""
        return {k: v.dtype for k, v in self._values().items()}

    def _values(self) -> dict[str, Value]:
        outputs = {k: v for k, v in self.graph.outputs.items() if isinstance(v, Value)}
        return {**self.graph.inputs, **outputs}

    def summary(self) -> str:
        """A table of inputs, parameters and outputs, with counts."""
        rows = [(v.kind, v.name, str(v.dtype), show_shape(v.shape)) for v in self.graph.inputs.values()]
        outputs = [(k, v) for k, v in self.graph.outputs.items() if isinstance(v, Value)]
        rows += [("output", k, str(v.dtype), show_shape(v.shape)) for k, v in outputs]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
        parameters = [v for v in self.graph.inputs.values() if v.kind == "parameter"]
        count = f"{sum(math.prod(self._closed_shape(v)) for v in parameters if not v.is_open):,} parameters"
        count += " (some shapes are open)" if any(v.is_open for v in parameters) else ""
        head = f"{self.graph.name} on {self.backend.name}: {len(self.graph.nodes)} operators, {count}"
        return "\n".join([head, *lines])

    # Values for it

    def randomize_params(self, seed: int = 0) -> dict[str, Any]:
        """Parameters to start from: weights normal with variance 1 / fan-in, scales near 1, biases near 0.

        Equal on all backends.

        Raises:
            KeyMismatchError: a parameter's shape is open.
            BackendError: the seed is no whole number of at least 0.
        """
        from mithril.backends.base import generator

        random = generator(seed)
        values = {}
        for value in self.graph.inputs.values():
            if value.kind == "parameter":
                shape = self._closed_shape(value)
                draws = random.standard_normal(shape)
                if len(shape) > 1:
                    draws = draws / math.sqrt(max(math.prod(shape[1:]), 1))
                else:
                    draws = 0.02 * draws + (0 if value.name.endswith("bias") else 1)
                values[value.name] = self.backend.array(draws, value.dtype)
        return values

    def initial_state(self, seed: int = 0) -> dict[str, Any]:
        """State to start from: variances are 1, other statistics 0, the random key is made from `seed`."""
        state = {}
        for value in self.graph.inputs.values():
            if value.kind == "state" and value.name == "random_key":
                state[value.name] = self.backend.random_key(seed)
            elif value.kind == "state":
                start = 1.0 if "var" in value.name.rsplit("_", 2)[-1] else 0.0
                state[value.name] = self.backend.full(self._closed_shape(value), start, value.dtype)
        return state

    def freeze(self, params: Arrays, state: Arrays | None = None) -> PhysicalModel:
        """The model for inference with these parameters: they become constants, and what depends on them only is
        computed now. Batch norms vanish into the weights before them. It is run with data alone.

        Raises:
            ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
        """
        parameters, inputs, states = self._checker.sort(params, None, state)
        return self._freeze({**self.initial_state(), **parameters, **inputs, **states})

    def as_module(self, params: Arrays | None = None) -> Any:
        """The model as a `torch.nn.Module` with these parameters (random ones without), on the torch backend.

        Its parameters and buffers bear the names of the state dict that the model came from, else the names of
        submodels joined by dots. It takes data by position or by name and returns the outputs by key, or the one
        tensor where the only output is called `output`. In training mode it keeps the model's state itself.

        Raises:
            BackendError: the model was compiled for another backend.
            ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
        """
        if self.backend.name != "torch":
            raise BackendError(f"as_module needs a model compiled for torch, not for {self.backend.name}.")
        from mithril.backends.torch.module import CompiledModule

        own: Any = self  # whose arrays are tensors here
        return CompiledModule(own, params)

    def checked_params(self, params: Given = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters (random ones without any) and state by key, as arrays of the backend.

        Raises:
            ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
        """
        values, _, state = self._checker.sort(params or self.randomize_params(), None, None)
        return values, {**self.initial_state(), **state}

    def for_inference(self) -> PhysicalModel:
        """The model in inference mode; itself where that makes no difference."""
        return self._freeze({}) if self.training and self.state_keys else self

    def state_name(self, key: str) -> str:
        """What an input is called in the state dict that the model came from, else by the names of submodels."""
        return self.graph.inputs[key].state_name or key

    def _closed_shape(self, value: Value) -> tuple[int, ...]:
        if value.is_open:
            raise KeyMismatchError(
                f"The shape {show_shape(value.shape)} of '{value.name}' is open.",
                self._advice_on_shapes(),
            )
        return tuple(value.shape)  # type: ignore[return-value]

    def _advice_on_shapes(self) -> list[str]:
        """Which shapes to give; only keys that the model has are named."""
        open_keys = [v for v in self.graph.inputs.values() if v.kind == "input" and v.is_open]
        if not open_keys:
            return ["It follows from no data: declare it where the model is composed, or give it to compile in shapes."]
        images = isinstance(open_keys[0].shape, tuple) and len(open_keys[0].shape) == 4
        shape = "[None, 3, 224, 224]" if images else "[None, ...]"
        more = "" if images else ", with numbers for all sizes but the batch's"
        return [
            f"It follows from the shapes of the data: compile with shapes={{'{open_keys[0].name}': {shape}}}{more}."
        ]

    # Running

    def evaluate(self, params: Given = None, data: Given = None, state: Given = None) -> Any:
        """Outputs by key, whatever the model is; `(outputs, new_state)` for those who pass `state`.

        Args:
            params: values of `parameter_keys`; values of data keys may be among them, and the other way round.
            data: values of `data_keys`. Arrays of other frameworks and lists are converted.
            state: values of `state_keys`; where neither this nor params has them, `initial_state()`. What the model
                does not change (statistics in inference mode) comes back as it was given.

        Raises:
            ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
        """
        outputs, changed = self.run(*self._sorted(params, data, state))
        return outputs if state is None else (outputs, {**state, **changed})

    def run(self, params: Arrays, data: Arrays, state: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        """Outputs and changed state for arrays of the backend, each in its place; nothing is checked."""
        if self.graph.new_state:
            return self._evaluate(params, data, state)
        return self._evaluate({**params, **state} if state else params, data), {}

    __call__ = evaluate

    def _sorted(self, params: Given, data: Given, state: Given) -> tuple[Arrays, Arrays, Arrays]:
        parameters, inputs, states = self._checker.sort(params or {}, data or {}, state)
        if self.constants:
            parameters = {**self.constants, **parameters}
        if len(states) < self._states:
            states = {**self.initial_state(), **states}
        return parameters, inputs, states

    def evaluate_gradients(
        self, params: Arrays, data: Given = None, output_gradients: Given = None, state: Given = None
    ) -> dict[str, Any]:
        """Gradients by trainable key. See `evaluate_all`."""
        return self.evaluate_all(params, data, output_gradients, state)[1]

    def evaluate_all(
        self, params: Arrays, data: Given = None, output_gradients: Given = None, state: Given = None
    ) -> tuple[Any, ...]:
        """`(outputs, gradients)`, and the new state as a third where the model changes it (in training mode).

        Args:
            output_gradients: by output; those not given count as zero. Not needed where the only output is a scalar.
        """
        parameters, inputs, states = self._sorted(params, data, state)
        changes = bool(self.graph.new_state)
        arguments = (parameters, inputs, states) if changes else ({**parameters, **states}, inputs)
        cotangents = self._cotangents(output_gradients)
        if self._gradient is None:
            self._gradient = self._make_gradient()
        outputs, gradients, new_state = self._gradient(cotangents, *arguments)
        if self.backend.mesh is not None:  # where the next step would need them
            gradients = self.backend.placed_like(gradients, arguments[0])
            new_state = self.backend.placed_like(new_state, arguments[-1])
        return (outputs, gradients, new_state) if changes else (outputs, gradients)

    def _cotangents(self, given: Arrays | None) -> dict[str, Any]:
        values = {k: v for k, v in self.graph.outputs.items() if isinstance(v, Value) and v.dtype.is_floating}
        if given is None:
            scalars = [k for k, v in values.items() if v.shape == ()]
            if len(values) != 1 or not scalars:
                raise KeyMismatchError(
                    f"output_gradients are needed: the outputs {', '.join(self.graph.outputs)} are not one scalar."
                )
            return {scalars[0]: self.backend.full((), 1.0, values[scalars[0]].dtype)}
        for key in given:
            if key not in values:
                raise KeyMismatchError(
                    f"output_gradients has '{key}', which is no floating output.{nearest(key, values)}"
                )
        return {k: v if self.backend.is_array(v) else self.backend.array(v, values[k].dtype) for k, v in given.items()}

    def _make_gradient(self) -> Any:
        """A function of output gradients and the arguments of `evaluate`: `(outputs, gradients, new_state)`."""
        backend, run, trainable = self.backend, self._module.evaluate, self.trainable_keys
        if backend.name == "numpy":
            text = generate_gradient(self.graph, trainable, backend)
            return load(text, None, f"{self.graph.name}_gradient").evaluate_gradients
        changes = bool(self.graph.new_state)

        def gradient(cotangents: Arrays, params: Arrays, data: Arrays, *state: Arrays) -> Any:
            def forward(values: Arrays) -> dict[str, Any]:
                result = run({**params, **values}, data, *state)
                outputs, new_state = result if changes else (result, {})
                return {f"output {k}": v for k, v in outputs.items()} | {f"state {k}": v for k, v in new_state.items()}

            results, pullback = backend.vjp(forward, {k: params[k] for k in trainable})
            gradients = pullback({f"output {k}": v for k, v in cotangents.items()})
            found: dict[str, dict[str, Any]] = {"output": {}, "state": {}}
            for key, value in results.items():
                kind, name = key.split(" ", 1)
                found[kind][name] = value
            return found["output"], gradients, found["state"]

        return backend.jit(gradient) if self.jit else backend.prepare(gradient)


def _public_shape(shape: Any) -> Any:
    sizes = [None if isinstance(size, Dim) else size for size in (shape.tail if isinstance(shape, Variadic) else shape)]
    return ["...", *sizes] if isinstance(shape, Variadic) else sizes


def load(source: str, file_path: str | Path | None, name: str) -> Any:
    """The module of a generated source, whose lines tracebacks can show."""
    if file_path is not None:
        Path(file_path).write_text(source)
        filename = str(file_path)
    else:
        filename = f"<mithril {name} {next(_NUMBERS)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = python_types.ModuleType(name)
    module.__file__ = filename
    exec(compile(source, filename, "exec"), module.__dict__)  # noqa: S102  (our own source)
    return module
