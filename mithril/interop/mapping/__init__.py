"""Aten operators, one file per family as in the operator table."""

from mithril.interop.mapping import arithmetic, indexing, nn, reduction, shape
from mithril.interop.mapping.registry import MAPPINGS, mapping

__all__ = ["MAPPINGS", "arithmetic", "indexing", "mapping", "nn", "reduction", "shape"]
