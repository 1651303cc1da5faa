"""Models that are written down once the ranks of their inputs are known."""

from __future__ import annotations

import inspect
from typing import Any

from mithril.errors import ConnectionError, MithrilError, OperatorError
from mithril.logical.connection import expansion, show_place
from mithril.logical.model import Model
from mithril.logical.wires import Keys


class Operator(Model):
    """A model whose `create_model()` runs when the shapes of its inputs have been inferred.

    In `create_model`, an `IOKey` that bears the name of an input has that input's shape: `B, C, H, W = input.shape`
    unpacks, known sizes are plain integers, unknown ones are symbolic and can be computed with.

    `input_names` and `output_names` name the keys, in order; the first of each is the canonical one. Keys of a
    call that are in neither are taken for inputs and checked when the model is created.
    """

    input_names: tuple[str, ...] = ("input",)
    output_names: tuple[str, ...] = ("output",)
    fixed_keys = Keys(is_open=True)

    library: dict[str, type[Operator]] = {}
    """Those of mithril itself by class name, which a model's JSON may name."""

    def __init_subclass__(cls, **kwargs: object):
        super().__init_subclass__(**kwargs)
        cls.fixed_keys = Keys(tuple(cls.input_names), tuple(cls.output_names), is_open=True)
        if cls.__module__.startswith("mithril."):
            Operator.library[cls.__name__] = cls

    def __init__(self, name: str | None = None):
        super().__init__(name=name)
        self._created: dict[Any, Model] = {}

    def create_model(self) -> Model:
        """The model for the shapes of this use."""
        raise NotImplementedError(f"{type(self).__name__} does not define create_model.")

    def expand(self, shapes: dict[str, tuple[Any, ...]], path: str) -> Model:
        """The created model for input shapes; equal shapes give the same one."""
        key = tuple(sorted(shapes.items()))
        if key not in self._created:
            with expansion(shapes):
                model = self._create(path)
            if not isinstance(model, Model):
                raise OperatorError(f"{path}: create_model of {self.type_name} returned {model!r}, not a Model.")
            missing = [k for k in shapes if k not in model.connections and not (k == "input" and model.cin_key)]
            if missing:
                raise ConnectionError(
                    f"{path} has no key '{missing[0]}': the model that it created has {', '.join(model.input_keys)}.",
                    [f"created by {self.type_name}, which was made at {show_place(self.place)}"],
                )
            self._created[key] = model
        return self._created[key]

    def _create(self, path: str) -> Model:
        try:
            return self.create_model()
        except MithrilError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise OperatorError(f"{path}: {error}") from error

    def arguments(self) -> dict[str, Any]:
        """What its constructor was given, by the attributes of the same names."""
        return {name: getattr(self, name) for name in self.argument_names()}

    @classmethod
    def argument_names(cls) -> list[str]:
        """What its constructor takes, its name apart."""
        return [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "name")]
