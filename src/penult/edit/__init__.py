"""Edits of a head, their exact effects, shortcuts and verdicts."""

from penult import names_of

__getattr__ = names_of(__name__)
