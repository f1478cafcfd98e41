"""Runs: the folder of one network and one data set, how it is made and how it is opened again."""

from penult import names_of

__getattr__ = names_of(__name__)
