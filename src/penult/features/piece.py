"""Piece: consecutive samples of some features, which any process can read by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from penult.features.shards import BLOCK_ROWS, Block, read_shard, require_finite

# Rows of a large file that are one piece: whole blocks of them, so that blocks are what they were.
PIECE_ROWS = 4 * BLOCK_ROWS


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a features file, or of a block in memory.

    Attributes:
        part: a file, by a path from the root, or the block.
        first, stop: the rows.
        keep: (stop − first,) bool, those of them that count; all where None.
    """

    part: Path | Block
    first: int
    stop: int
    keep: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Rows that are read."""
        return self.stop - self.first

    @property
    def n_samples(self) -> int:
        """Rows that count."""
        return self.n_rows if self.keep is None else int(self.keep.sum())

    def where(self, keep: Tensor | None) -> Piece:
        """Some of the samples: `keep` is (n_samples,) bool."""
        if keep is None:
            return self
        if self.keep is None:
            return replace(self, keep=keep)
        both = torch.zeros_like(self.keep)
        both[self.keep.nonzero()[:, 0][keep]] = True
        return replace(self, keep=both)

    def blocks(self) -> Iterator[Block]:
        """The samples in blocks of a bounded number of rows, each checked to be finite.

        Raises:
            InputError: a file that cannot be read; a NaN or infinite feature.
        """
        part = self.part
        whole = isinstance(part, Block) and (self.first, self.stop) == (0, len(part.labels))
        if isinstance(part, Block):
            inside = torch.zeros(len(part.labels), dtype=torch.bool)
            inside[self.first : self.stop] = True
            found = iter([part if whole else part.where(inside)])
        else:
            found = read_shard(part, first=self.first, stop=self.stop)
        start = 0
        for block in found:
            stop = start + len(block.labels)
            require_finite(block)
            seen = block if self.keep is None else block.where(self.keep[start:stop])
            start = stop
            if len(seen.labels):
                yield seen
