"""The live report: a server on this machine whose page switches features and shows what follows."""

from penult import names_of

__getattr__ = names_of(__name__)
