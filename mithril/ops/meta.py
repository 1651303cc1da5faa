"""Operators on shapes. They are evaluated while shapes are inferred and never reach a backend."""

from mithril.ops.table import Op, define

define(Op(name="shape", inputs=("input",)))
