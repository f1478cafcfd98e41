"""Answers: what the network and its sparse head call the evaluation samples, where they err."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.explain.given_classes import one_class
from penult.explain.survey import Called, ShownSample, numbered
from penult.explain.terms import Terms, terms_of
from penult.explain.toplists import TopLists
from penult.features.features import Features
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.network.link import decided

KINDS = ("both", "only-dense", "only-sparse")
MOST_MISTAKES = {"both": 100, "only-dense": 50, "only-sparse": 50}
REASONS_SHOWN = 5

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mistake:
    """A sample that a head gets wrong.

    Attributes:
        sample: itself.
        label, dense: right class and that of the network; see `Answers` for multi-label data.
        sparse: class that the sparse head gives; the network's where there is none.
        kind: who is wrong, one of `KINDS`.
        features: (n_features,) of the sample.
    """

    sample: ShownSample
    label: int
    dense: int
    sparse: int
    kind: str
    features: Tensor

    def reasons(self, dense: Head, sparse: SparseHead | None) -> list[dict[str, Any]]:
        """Why each head gives its class, and not the right one or the other head's."""
        found = []
        calls = {"dense": self.dense, "sparse": self.sparse}
        heads: dict[str, Head | SparseHead] = {"dense": dense}
        if sparse is not None:
            heads["sparse"] = sparse
        for name, head in heads.items():
            own = calls[name]
            other = calls["sparse" if name == "dense" else "dense"]
            against = self.label if own != self.label else other
            terms = self._terms(head, own, against, dense.multi_label)
            shown = terms.terms[:REASONS_SHOWN]
            found.append(
                {
                    "head": name,
                    "for": own,
                    "against": against,
                    "gap": terms.total,
                    "features": [[t.feature, t.value, t.contribution, None] for t in shown],
                    "rest": terms.rest(len(shown)),
                    "bias": terms.bias,
                }
            )
        return found

    def _terms(self, head: Head | SparseHead, own: int, against: int, multi_label: bool) -> Terms:
        if not multi_label:
            return terms_of(head, self.features, own, against)
        c = min(own, against)
        return terms_of(one_class(head, c), self.features, int(own == c), int(own != c))


@dataclass(eq=False)
class Answers:
    """Counts over the evaluation samples, and the mistakes that are shown.

    Of multi-label data each sample is judged once for each class c: what is right, and what it is
    called, is then c, or n_classes + c for not being c.

    Attributes:
        n_codes: n_classes, or twice as many.
        labels, dense, sparse: (n_samples,) classes; (n_samples · n_classes,) of multi-label data.
        mistakes: of each kind those with the largest gap between the wrong class and the right.
        n_of_kind: how many there are of each kind.
        taken: (class, other class) → mean features (n_features,) of the samples of the class that
            the network takes for the other.
    """

    n_classes: int
    n_codes: int
    labels: Ints
    dense: Ints
    sparse: Ints
    mistakes: list[Mistake]
    n_of_kind: dict[str, int]
    taken: dict[tuple[int, int], Tensor]

    @classmethod
    def of(cls, features: Features, dense: Head, sparse: SparseHead | None) -> Answers:
        """Two passes over the evaluation features; without a sparse head it agrees everywhere."""
        n_classes = dense.n_classes
        n_codes = 2 * n_classes if features.multi_label else n_classes
        tops = TopLists(len(KINDS), max(MOST_MISTAKES.values()))
        labels, by_dense, by_sparse = [], [], []
        sums: dict[int, Tensor] = {}
        n_taken: Counter[int] = Counter()
        for start, block in numbered(features):
            with torch.no_grad():
                logits = dense(block.features)
                sparse_logits = logits if sparse is None else sparse(block.features)
            d, y = block.dense_classes(dense), block.labels
            s = d if sparse is None else decided(sparse_logits, features.link)
            z_of = torch.arange(len(y))
            if features.multi_label:
                start, z_of = start * n_classes, z_of.repeat_interleave(n_classes)
                gaps = torch.where(d == y, sparse_logits, logits.to(sparse_logits)).abs().flatten()
                y, d, s = (_codes(x) for x in (y, d, s))
            else:
                gaps = torch.where(
                    d == y, _gap(sparse_logits, s, y), _gap(logits.to(sparse_logits), d, y)
                )
            kinds = _kinds(y, d, s)
            rows = (kinds >= 0).nonzero()[:, 0]
            groups = kinds[rows].numpy()
            values = gaps[rows].float().numpy()
            tops.add(groups, values, rows.numpy() + start, np.zeros_like(groups))
            wrong = d != y
            keys = (y * n_codes + d)[wrong].tolist()
            for key, z in zip(keys, block.features[z_of[wrong]].double(), strict=True):
                sums[key] = sums[key] + z if key in sums else z
                n_taken[key] += 1
            labels.append(y.numpy())
            by_dense.append(d.numpy())
            by_sparse.append(s.numpy())
        calls = [np.concatenate(parts) for parts in (labels, by_dense, by_sparse)]
        kinds = _kinds(*map(torch.from_numpy, calls))
        n_of_kind = {name: int((kinds == i).sum()) for i, name in enumerate(KINDS)}
        chosen = [
            (entry.sample, name)
            for i, name in enumerate(KINDS)
            for entry in tops.entries(i, MOST_MISTAKES[name])
        ]
        taken = {divmod(key, n_codes): sums[key] / n for key, n in n_taken.items()}
        made = cls(n_classes, n_codes, calls[0], calls[1], calls[2], [], n_of_kind, taken)
        made.mistakes = made._looked_up(features, chosen)
        return made

    def _looked_up(self, features: Features, chosen: list[tuple[int, str]]) -> list[Mistake]:
        kinds = dict(chosen)
        each = self.n_each
        found = {}
        for start, block in numbered(features):
            for n in kinds:
                i = n // each - start
                if not 0 <= i < len(block.labels):
                    continue
                name = block.ids[i] if block.ids else ""
                sample = ShownSample(start + i, name, *self.calls(start + i))
                label, dense, sparse = (int(x[n]) for x in (self.labels, self.dense, self.sparse))
                z = block.features[i].clone()
                found[n] = Mistake(sample, label, dense, sparse, kinds[n], z)
        return [found[n] for n, _ in chosen]

    @property
    def n_each(self) -> int:
        """How often each sample is judged."""
        return 1 if self.n_codes == self.n_classes else self.n_classes

    @property
    def n_samples(self) -> int:
        """Number of evaluation samples."""
        return len(self.labels) // self.n_each

    def calls(self, n: int) -> tuple[Called, Called]:
        """What a sample is, and what the network calls it, as `ShownSample` holds both."""
        if self.n_each == 1:
            return int(self.labels[n]), int(self.dense[n])
        own = slice(n * self.n_each, (n + 1) * self.n_each)
        label, said = (
            tuple(np.flatnonzero(x[own] < self.n_classes).tolist())
            for x in (self.labels, self.dense)
        )
        return label, said

    def given(self) -> Tensor:
        """What the network calls the samples: (n_samples,), or (n_samples, n_classes) bool."""
        found = torch.from_numpy(self.dense)
        if self.n_each == 1:
            return found
        return found.view(-1, self.n_each) < self.n_classes

    @property
    def agreement(self) -> float:
        """Fraction of the samples to which both heads give the same class."""
        return float((self.dense == self.sparse).mean())

    @property
    def commonest(self) -> tuple[int, float]:
        """The class with the most evaluation samples, and its fraction of them all."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return int(counts.argmax()), float(counts.max() / max(len(self.labels), 1))

    def accuracies(self) -> tuple[list[float | None], list[float | None], Ints]:
        """Of each class: dense and sparse accuracy, None without samples, and how many samples.

        Of multi-label data the accuracy of the decisions on the class, on all samples.
        """
        if self.n_each > 1:
            labels, *both = (
                x.reshape(-1, self.n_each) for x in (self.labels, self.dense, self.sparse)
            )
            one, other = ([float(r) for r in (calls == labels).mean(0)] for calls in both)
            return [*one], [*other], (labels < self.n_classes).sum(0)
        counts = np.bincount(self.labels, minlength=self.n_classes)
        found = []
        for calls in (self.dense, self.sparse):
            right = np.bincount(self.labels[calls == self.labels], minlength=self.n_classes)
            found.append([float(r / n) if n else None for r, n in zip(right, counts, strict=True)])
        return found[0], found[1], counts

    def changed(self) -> list[list[int]]:
        """Of each class the samples that only the network has right, only the sparse head, and all.

        Of multi-label data the decisions on the class, on all samples.
        """
        dense, sparse = self.dense == self.labels, self.sparse == self.labels
        of = self.labels if self.n_each == 1 else np.arange(len(self.labels)) % self.n_each
        counts = [
            np.bincount(of[these], minlength=self.n_classes)
            for these in (dense & ~sparse, sparse & ~dense, dense | ~dense)
        ]
        found: list[list[int]] = np.stack(counts, 1).tolist()
        return found

    def confusions(self) -> dict[int, dict[int, tuple[list[int], list[int]]]]:
        """For each class c and other class d: [dense, sparse] counts of c taken for d, d for c."""
        found: dict[int, dict[int, tuple[list[int], list[int]]]] = {}
        for i, calls in enumerate((self.dense, self.sparse)):
            wrong = calls != self.labels
            keys = self.labels[wrong] * self.n_codes + calls[wrong]
            pairs, counts = np.unique(keys, return_counts=True)
            for key, n in zip(pairs.tolist(), counts.tolist(), strict=True):
                c, d = divmod(key, self.n_codes)
                found.setdefault(c, {}).setdefault(d, ([0, 0], [0, 0]))[0][i] = n
                found.setdefault(d, {}).setdefault(c, ([0, 0], [0, 0]))[1][i] = n
        return found


def _codes(given: Tensor) -> Tensor:
    """Decisions (n_samples, n_classes) bool as the numbers of `Answers`, one after the other."""
    n_classes = given.shape[1]
    c = torch.arange(n_classes)
    return torch.where(given, c, c + n_classes).flatten()


def _kinds(labels: Tensor, dense: Tensor, sparse: Tensor) -> Tensor:
    """Index in `KINDS` of each sample, -1 where both heads are right."""
    d, s = dense != labels, sparse != labels
    kinds = torch.full_like(labels, -1)
    for i, found in enumerate((d & s, d & ~s, s & ~d)):
        kinds[found] = i
    return kinds


def _gap(logits: Tensor, for_: Tensor, against: Tensor) -> Tensor:
    return (logits.gather(1, for_[:, None]) - logits.gather(1, against[:, None]))[:, 0]
