"""Data: from what a user names to samples with labels, in batches that a network can read."""

from penult import names_of

__getattr__ = names_of(__name__)
