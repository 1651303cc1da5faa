"""Proofs that models of the zoo equal independent implementations; `nexus verify` and the tests run the same ones."""

from nexus.proofs.family import Family, Oracle
from nexus.proofs.parity import Differences, compare, randomize
from nexus.proofs.table import FAMILIES, family_of
from nexus.proofs.verify import Parity, Verdict, verify

__all__ = [
    "FAMILIES",
    "Differences",
    "Family",
    "Oracle",
    "Parity",
    "Verdict",
    "compare",
    "family_of",
    "randomize",
    "verify",
]
