"""A run's network or head as files that other programs run without penult."""

from penult import names_of

__getattr__ = names_of(__name__)
