"""The operator table: one file per family, one row per operator."""

from mithril.ops import activation, elementwise, indexing, linalg, nn, random, reduction, resampling, shape
