"""Explain: what each feature looks at, why one image was called what it was, and what would do."""

from penult import names_of

__getattr__ = names_of(__name__)
