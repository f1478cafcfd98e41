"""The report: one HTML page, complete in itself, on the features that decide each class."""

from penult import names_of

__getattr__ = names_of(__name__)
