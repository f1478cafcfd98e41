"""Networks: loaded from a name or a file, their head found, watched and replaced."""

from penult import names_of

__getattr__ = names_of(__name__)
