"""StoredColumns: single features of all samples, and single samples, from features in files."""

from __future__ import annotations

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features

KEPT = 64  # features of all samples that are kept


class StoredColumns:
    """Features by column and by row; those in files are mapped, not read.

    Args:
        features: whose they are.

    Attributes:
        parts: the features as they are stored, part by part.
    """

    def __init__(self, features: Features) -> None:
        self.parts = features.mapped()
        self._n_features = features.n_features
        # A feature of all samples is spread over the whole file: those looked at last are kept.
        self._columns: dict[int, Tensor] = {}

    def column(self, j: int) -> Tensor:
        """One feature of all samples, (n_samples,) float32."""
        if j not in self._columns:
            while len(self._columns) >= KEPT:
                self._columns.pop(next(iter(self._columns)))
            self._columns[j] = torch.cat([part[:, j].float() for part in self.parts])
        return self._columns[j]

    def rows(self, rows: Tensor) -> Tensor:
        """All features of some samples, (n, n_features) float32; rows in rising order."""
        found, start = [], 0
        for part in self.parts:
            inside = rows[(rows >= start) & (rows < start + len(part))]
            if len(inside):
                found.append(part[inside - start].float())
            start += len(part)
        if not found:
            return torch.zeros(0, self._n_features, dtype=torch.float32)
        return torch.cat(found)

    def row(self, n: int) -> Tensor:
        """All features of one sample, (n_features,) float32.

        Raises:
            InputError: there is no such sample.
        """
        found = self.rows(torch.tensor([n]))
        if not len(found):
            raise InputError(f"there are {sum(map(len, self.parts)):,} samples, found number {n}")
        return found[0]
