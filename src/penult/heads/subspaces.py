"""From scores to subspaces: which features each class keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.errors import InputError


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Which features each class keeps, as CSR; classes may keep different numbers.

    Attributes:
        indptr: (n_classes + 1,) int64; class c keeps `indices[indptr[c]:indptr[c + 1]]`.
        indices: (nnz,) int64 in [0, n_features), the most influential first within a class.
        n_features: number of features of the dense head.
    """

    indptr: Tensor
    indices: Tensor
    n_features: int

    def __post_init__(self) -> None:
        sizes = self.indptr.diff()
        if int(self.indptr[0]) != 0 or bool((sizes < 0).any()):
            raise InputError("indptr must start at 0 and never decrease")
        if int(self.indptr[-1]) != len(self.indices):
            raise InputError(
                f"indptr ends at {int(self.indptr[-1])} and there are {len(self.indices)} indices"
            )
        if len(self.indices) and not (
            int(self.indices.min()) >= 0 and int(self.indices.max()) < self.n_features
        ):
            raise InputError(
                f"feature indices must lie in [0, {self.n_features}), found "
                f"{int(self.indices.min())} … {int(self.indices.max())}"
            )
        keys = self.classes() * self.n_features + self.indices
        if len(torch.unique(keys)) != len(keys):
            raise InputError("a class names the same feature twice")

    @classmethod
    def of(cls, features: Sequence[Sequence[int]], n_features: int) -> Subspaces:
        """Subspaces from one list of feature indices per class."""
        sizes = torch.tensor([0, *(len(kept) for kept in features)])
        flat = [feature for kept in features for feature in kept]
        return cls(sizes.cumsum(0), torch.tensor(flat, dtype=torch.int64), n_features)

    @classmethod
    def where(
        cls, kept: Tensor, features: Tensor | None = None, n_features: int | None = None
    ) -> Subspaces:
        """Subspaces from a mask.

        Args:
            kept: (n_classes, m) bool.
            features: (n_classes, m), the feature that each place stands for; its column where None.
            n_features: of the dense head; m where None.
        """
        kept = kept.cpu()
        sizes = kept.sum(1)
        indptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        names = kept.nonzero()[:, 1] if features is None else features.cpu()[kept]
        return cls(indptr, names.contiguous(), kept.shape[1] if n_features is None else n_features)

    def first(self, n: int) -> Subspaces:
        """The first n features of each class; all of a class that has fewer."""
        sizes = self.indptr.diff()
        kept = torch.arange(self.nnz) - self.indptr[:-1].repeat_interleave(sizes) < n
        indptr = torch.cat([sizes.new_zeros(1), sizes.clamp_max(n).cumsum(0)])
        return Subspaces(indptr, self.indices[kept], self.n_features)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of kept (class, feature) pairs."""
        return len(self.indices)

    def classes(self) -> Tensor:
        """Class of each kept pair, (nnz,) int64."""
        return torch.repeat_interleave(torch.arange(self.n_classes), self.indptr.diff())

    def __getitem__(self, class_index: int) -> Tensor:
        """Features that a class keeps, most influential first."""
        return self.indices[int(self.indptr[class_index]) : int(self.indptr[class_index + 1])]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[c] for c in range(self.n_classes))

    def __len__(self) -> int:
        return self.n_classes


def top_k(scores: Tensor, k: int | Sequence[int]) -> Subspaces:
    """Keep the `k` features with the largest score of each class; of equals, the first.

    Args:
        scores: (n_classes, n_features); larger speaks more for the class.
        k: features per class, or one number for each class; 1 ≤ k ≤ n_features.

    Raises:
        InputError: k out of range, scores that are NaN or no matrix.
    """
    scores = torch.as_tensor(scores)
    if scores.ndim != 2:
        raise InputError(
            f"expected scores of shape (n_classes, n_features), found {tuple(scores.shape)}"
        )
    n_classes, n_features = scores.shape
    sizes = list(k) if isinstance(k, Sequence) else [k] * n_classes
    if len(sizes) != n_classes:
        raise InputError(f"expected k for {n_classes} classes, found {k}")
    for size in sizes:
        if not hasattr(size, "__index__") or not 1 <= size <= n_features:
            raise InputError(f"k must lie in [1, {n_features}] (n_features), found {size}")
    if bool(scores.isnan().any()):
        raise InputError("scores are NaN")
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices.cpu()
    counts = torch.tensor([int(size) for size in sizes], dtype=torch.int64)
    taken = torch.arange(n_features) < counts[:, None]
    return Subspaces.where(taken, order)
