"""Layers and models. Every operator of the table is a class of its own name: `Relu`, `Add`, `Concat`, `Buffer`."""

from mithril import ops  # noqa: F401  (fills the operator table)
from mithril.logical.connection import Connection, IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.logical.primitive import primitive_class
from mithril.ops.table import OPS

for _row in list(OPS.values()):
    _class = primitive_class(_row)
    globals()[_class.__name__] = _class

__all__ = [*(primitive_class(row).__name__ for row in OPS.values()), "Connection", "IOKey", "Model", "Operator"]
