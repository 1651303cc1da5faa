"""Aten operators, one file per family as in the operator table.

An operator that is missing here is mapped by a function that records operators of the table:

    @maps("hypot")
    def hypot(node, left, right):
        return (left * left + right * right) ** 0.5
"""

from mithril.interop.mapping import arithmetic, choosing, indexing, nn, recurrent, reduction, resampling, shape
from mithril.interop.mapping.registry import MAPPINGS, mapping, maps

__all__ = ["MAPPINGS", "arithmetic", "choosing", "indexing", "mapping", "maps", "nn", "recurrent", "reduction", "shape"]
