"""Refit: the best weights on fixed subspaces."""
