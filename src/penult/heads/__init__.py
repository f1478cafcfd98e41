"""Heads: which features each class keeps, sparse heads made of them, and paths of such heads."""

from penult import names_of

__getattr__ = names_of(__name__)
