"""Features: penultimate vectors in memory or in shards, the pass that makes them, their sums."""

from penult import names_of

__getattr__ = names_of(__name__)
