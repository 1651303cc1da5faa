"""The operator table: one file per family, one row per operator."""

from mithril.ops import activation, elementwise, indexing, linalg, meta, nn, random, reduction, shape

__all__ = ["activation", "elementwise", "indexing", "linalg", "meta", "nn", "random", "reduction", "shape"]
