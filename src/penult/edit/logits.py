"""LogitTable: the logits of a head on all samples, kept, so that an edit costs one small update."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.columns import StoredColumns
from penult.features.features import Features
from penult.heads.bounded_head import BoundedHead, bounded
from penult.network.head import Head
from penult.network.link import decided
from penult.progress import Progress
from penult.storage import write_atomically

ROWS = 2048
# Two logits that lie nearer than this part of the largest product are compared in float64.
GUARD = 1e-5
# Features that an edit may change before all logits are computed anew.
FEW = 64


class _Best(NamedTuple):
    values: Tensor
    indices: Tensor


class LogitTable:
    """Logits of a head on the samples of some features, and exact classes of heads near it.

    Classes are those of float64 arithmetic on the stored features, whatever their precision: of
    two heads the same samples are right, whether they are computed here or from the beginning.

    Args:
        features: of the samples; features in files are mapped, not read.
        head: whose logits are kept.
        file: where to keep them (a memory map); in memory where None or not writable.
        progress: called with (samples done, samples in all) while logits are computed.

    Attributes:
        labels: (n_samples,) int64; of multi-label data (n_samples, n_classes) bool.
        classes: by the head, likewise.
    """

    def __init__(
        self,
        features: Features,
        head: Head,
        file: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.head = bounded(head)
        self.n_samples, self.n_classes = features.n_samples, head.n_classes
        self.labels = features.labels()
        self._stored = StoredColumns(features)
        self._largest = max(1e-30, float(self.head.weight.double().norm(dim=1).max()))
        self.logits = self._logits(file, progress)
        self._norms = torch.cat([part.float().norm(dim=1) for part in self._stored.parts])
        self._guard = GUARD * (self._norms * self._largest + self.head.bias.abs().max() + 1e-12)
        self.classes, self._margin = self._decided()

    def column(self, j: int) -> Tensor:
        """One feature of all samples, (n_samples,) float32."""
        return self._stored.column(j)

    def columns(self, features: Tensor) -> Tensor:
        """Some features of all samples, (n_samples, n) float32."""
        return torch.stack([self.column(j) for j in features.tolist()], 1)

    def rows(self, rows: Tensor) -> Tensor:
        """All features of some samples, (n, n_features) float32; rows in rising order."""
        return self._stored.rows(rows)

    def along(self, direction: Tensor) -> Tensor:
        """What features come to along a direction (n_features,), (n_samples,) float32."""
        vector = direction.float()
        return torch.cat([z @ vector for _, z in self.blocks()])

    def spread(self) -> Tensor:
        """Standard deviation of each feature over the samples, (n_features,) float64."""
        n, sums = self.n_samples, [torch.zeros(self.head.n_features, dtype=torch.float64)] * 2
        for _, z in self.blocks():
            wide = z.double()
            sums = [sums[0] + wide.sum(0), sums[1] + wide.square().sum(0)]
        return (sums[1] / n - (sums[0] / n).square()).clamp_min(0).sqrt()

    def leads(self, c: int) -> Tensor:
        """A class's logit less the largest of the others, (n_samples,) float32.

        Of multi-label data the logit itself, as it competes with no other.
        """
        if self.head.multi_label:
            return self.logits[:, c]
        best = self._best_two()
        other = torch.where(best.indices[:, 0] == c, best.values[:, 1], best.values[:, 0])
        return self.logits[:, c] - other

    def second(self, c: int) -> Tensor:
        """Class of each sample if it were not a given one, (n_samples,) int64."""
        best = self._best_two()
        return torch.where(best.indices[:, 0] == c, best.indices[:, 1], best.indices[:, 0])

    def logits_by(self, head: BoundedHead) -> Tensor:
        """Logits (n_samples, n_classes) of a head of the same size: those kept, where it is it."""
        if head is self.head:
            return self.logits
        return torch.cat([head(z) for _, z in self.blocks()])

    def classify(self, head: Head) -> Tensor:
        """Class of each sample by another head of the same size, as `classes` holds them.

        Only samples whose class the change can reach are looked at.
        """
        after = bounded(head)
        self._require_size(after)
        moves = self._moves(after)
        if moves is None:
            return self._anew(after)
        drivers, effects, shift = moves
        if after.multi_label:
            reach = drivers.abs() @ effects.abs().amax(1) + shift.abs().max()
        else:
            shifted = shift.max() - shift.min()
            reach = drivers.abs() @ (effects.amax(1) - effects.amin(1)) + shifted
        classes = self.classes.clone()
        rows = (reach * (1 + 1e-5) + 2 * self._guard >= self._margin).nonzero()[:, 0]
        near = []
        for part in torch.split(rows, ROWS):
            logits = self.logits[part] + drivers[part] @ effects + shift
            classes[part], close = self._best(after, part, logits)
            near.append(part[close])
        return self._settled(after, classes, near)

    @cached_property
    def _two(self) -> tuple[Tensor, Tensor]:
        parts = [part.topk(2, dim=1) for part in torch.split(self.logits, ROWS)]
        return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])

    def _best_two(self) -> _Best:
        return _Best(*self._two)

    def _logits(self, file: Path | None, progress: Progress | None) -> Tensor:
        shape = (self.n_samples, self.n_classes)
        if file is not None and file.is_file():
            with suppress(OSError, ValueError):
                kept = np.load(file, mmap_mode="r")
                if kept.shape == shape and kept.dtype == np.float32:
                    return _mapped(kept)
        made = np.empty(shape, dtype=np.float32)
        for start, z in self.blocks():
            made[start : start + len(z)] = self.head(z).numpy()
            if progress is not None:
                progress(start + len(z), self.n_samples)
        if file is not None:
            with suppress(InputError):
                write_atomically(file, lambda temporary: _save(temporary, made))
                return _mapped(np.load(file, mmap_mode="r"))
        return torch.from_numpy(made)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Features (n, n_features) float32 of some samples at a time, with the first one's row."""
        start = 0
        for part in self._stored.parts:
            for block in torch.split(part, ROWS):
                yield start, block.float()
                start += len(block)

    def _decided(self) -> tuple[Tensor, Tensor]:
        """The class of each sample and by how much it leads, (n_samples,) each.

        Of multi-label data how far the logit that is nearest to 0 is from it.
        """
        classes = self._unknown(self.n_samples)
        margin = torch.full((self.n_samples,), float("inf"), dtype=torch.float32)
        near = []
        for rows in torch.split(torch.arange(self.n_samples), ROWS):
            logits = self.logits[rows[0] : rows[-1] + 1]
            classes[rows], close = self._best(self.head, rows, logits)
            near.append(rows[close])
            if self.head.multi_label:
                margin[rows] = logits.abs().amin(1)
            elif self.n_classes > 1:
                two = logits.topk(2, dim=1).values
                margin[rows] = two[:, 0] - two[:, 1]
        return self._settled(self.head, classes, near), margin

    def _best(self, head: BoundedHead, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Classes by logits (n, n_classes), and for which another one is too near to tell."""
        guard = self._guard[rows]
        if head is not self.head:
            size = self._norms[rows] * head.weight.norm(dim=1).max() + head.bias.abs().max()
            guard = guard + GUARD * size
        if head.multi_label:
            return logits > 0, logits.abs().amin(1) <= guard
        if self.n_classes == 1:
            return torch.zeros(len(rows), dtype=torch.int64), torch.zeros(len(rows)) > 0
        two = logits.topk(2, dim=1)
        return two.indices[:, 0], two.values[:, 0] - two.values[:, 1] <= 2 * guard

    def _settled(self, head: BoundedHead, classes: Tensor, near: list[Tensor]) -> Tensor:
        """Classes with those of some samples computed in float64."""
        rows = torch.cat([*near, torch.zeros(0, dtype=torch.int64)])
        for part in torch.split(rows, ROWS):
            classes[part] = decided(head(self.rows(part).double()), head.link)
        return classes

    def _unknown(self, n: int) -> Tensor:
        """Classes of n samples that are not known yet."""
        if self.head.multi_label:
            return torch.zeros(n, self.n_classes, dtype=torch.bool)
        return torch.zeros(n, dtype=torch.int64)

    def _moves(self, after: BoundedHead) -> tuple[Tensor, Tensor, Tensor] | None:
        """The change of the logits as `drivers @ effects + shift`; None where too much changes.

        Returns:
            (n_samples, q), (q, n_classes) and (n_classes,) float32.
        """
        touched = (after.weight != self.head.weight).any(0).nonzero()[:, 0]
        if len(touched) + after.n_bounds + self.head.n_bounds > FEW:
            return None
        columns = [head.weight[:, touched].double() for head in (after, self.head)]
        change = columns[0] - columns[1]
        shift = after.bias.double() - self.head.bias.double()
        drivers: list[Tensor] = []
        effects: list[Tensor] = []
        if len(touched):
            values = self.columns(touched)
            # Measured from their means, features move logits and the shift less: fewer rows matter.
            middle = values.double().mean(0)
            drivers.append((values.double() - middle).float())
            effects.append(change.T)
            shift = shift + change @ middle
        for head, sign in ((after, -1.0), (self.head, 1.0)):
            if head.n_bounds:
                drivers.append(self._excess(head))
                effects.append(sign * head.scales.T.double())
        if not drivers:
            return (
                torch.zeros(self.n_samples, 0, dtype=torch.float32),
                torch.zeros(0, self.n_classes, dtype=torch.float32),
                shift.float(),
            )
        return torch.cat(drivers, 1), torch.cat(effects).float(), shift.float()

    def _excess(self, head: BoundedHead) -> Tensor:
        """By how much each bound is exceeded, (n_samples, n_bounds) float32."""
        single = (head.directions != 0).sum(1) == 1
        if bool(single.all()):
            which = head.directions.abs().argmax(1)
            along = self.columns(which) * head.directions.gather(1, which[:, None])[:, 0]
        else:
            along = torch.cat([z @ head.directions.T for _, z in self.blocks()])
        return (along - head.bounds).clamp_min(0)

    def _anew(self, head: BoundedHead) -> Tensor:
        classes = self._unknown(self.n_samples)
        near = []
        for start, z in self.blocks():
            rows = torch.arange(start, start + len(z))
            classes[rows], close = self._best(head, rows, head(z))
            near.append(rows[close])
        return self._settled(head, classes, near)

    def _require_size(self, head: Head) -> None:
        if head.weight.shape != self.head.weight.shape:
            raise InputError(
                f"expected a head of (n_classes, n_features) = {tuple(self.head.weight.shape)}, "
                f"found {tuple(head.weight.shape)}"
            )


def table_file(folder: Path, features: Features, head: Head) -> Path:
    """Where the logits of a head on some samples are kept in a folder."""
    text = f"{head.fingerprint()} {features.fingerprint()}"
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return folder / f"logits-{name}.npy"


def _save(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _mapped(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that a map which only reads must not be written to; nothing here does.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
