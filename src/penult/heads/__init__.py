"""Heads: which features each class keeps, sparse heads made of them, and paths of such heads."""
