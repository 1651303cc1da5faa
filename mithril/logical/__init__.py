"""Logical models: composition that records and never solves."""
