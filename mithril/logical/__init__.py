"""Composition: models as graphs of operators, recorded and not yet solved."""

from mithril.logical import primitive as primitive  # what expressions make their operators with
