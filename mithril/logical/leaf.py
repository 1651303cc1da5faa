"""Models that are not composed: operators, whose keys their class knows."""

from typing import Any

from mithril.errors import ConnectionError
from mithril.logical.connection import Connection, Wiring
from mithril.logical.model import Model


class Leaf(Model):
    """A model that nothing can be added to. `input_names` and `output_names` name its keys, in order; the first of each
    is the canonical one."""

    input_names: tuple[str, ...] = ("input",)
    output_names: tuple[str, ...] = ("output",)

    @property
    def input_keys(self) -> list[str]:
        return list(self.input_names)

    @property
    def output_keys(self) -> list[str]:
        return list(self.output_names)

    @property
    def cin_key(self) -> str | None:
        return self.input_names[0] if self.input_names else None

    @property
    def cout_key(self) -> str | None:
        return self.output_names[0] if self.output_names else None

    def is_output(self, key: str) -> bool:
        return key in self.output_names

    def connection(self, key: str) -> Connection:
        key = self.binding_key(key)
        return self.connections[key] if key in self.connections else self._new(key)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and (name in self.input_keys or name in self.output_keys):
            return self.connection(name)
        return super().__getattr__(name)

    def __ior__(self, other: Model | Wiring) -> Model:
        raise ConnectionError(
            f"{self!r} is an operator; models are added to a Model, or in an Operator's create_model."
        )

    __iadd__ = __ior__  # type: ignore[assignment]
