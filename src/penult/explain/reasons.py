"""Sufficient reasons: the fewest features that, held at their values, guarantee the prediction.

Take a sample with features z that the head predicts as class y, and a box that says what values
each feature can take. A set S of features is a sufficient reason if the head still predicts y
whatever the features outside S do within the box. For a linear head this is exact arithmetic, not
sampling: with `D_c = W_y − W_c`, the lead over rival c is least where each free feature j sits at
the end of its range that D_cj likes least, so S suffices exactly if for every rival

    lead_c(z) − Σ_{j∉S} gain_cj > 0
    gain_cj = max(D_cj, 0) (z_j − low_j) + max(−D_cj, 0) (high_j − z_j)

The smallest S frees the most features: the packing problem of `penult.explain.packing`. (Known as
prime implicants or abductive explanations: Shih, Choi, Darwiche 2018; Marques-Silva et al. 2020.)
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.errors import InputError
from penult.explain.packing import Bools, Floats, Ints, normal, pack, prove
from penult.features.features import Features
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.network.linear_maps import wide

_CHUNK = 1 << 21  # values of gains that are held at once: 16 MiB, a few times over


@dataclass(frozen=True, eq=False)
class Box:
    """The range of values that each feature takes.

    Args:
        low: (n_features,) float64, the least value of each feature.
        high: (n_features,) the largest.

    Raises:
        InputError: other shapes, NaN or infinite ends, a low end above its high end.
    """

    low: Tensor = field(repr=False)
    high: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise InputError(
                "expected low and high of shape (n_features,), found "
                f"{tuple(self.low.shape)} and {tuple(self.high.shape)}"
            )
        for name in ("low", "high"):
            end = getattr(self, name).detach().to("cpu", torch.float64)
            if not bool(end.isfinite().all()):
                raise InputError(f"the box's {name} end is NaN or infinite for some feature")
            object.__setattr__(self, name, end)
        if bool((self.low > self.high).any()):
            j = int((self.low > self.high).nonzero()[0, 0])
            raise InputError(
                f"expected low ≤ high for every feature, found {self.low[j]:g} and "
                f"{self.high[j]:g} for feature {j}"
            )

    @classmethod
    def of(cls, features: Features) -> Box:
        """Least and largest value of each feature over all samples, in one pass."""
        low = torch.full((features.n_features,), torch.inf, dtype=torch.float64)
        high = -low
        for block in features.blocks():
            z = block.features.double()
            low, high = torch.minimum(low, z.amin(0)), torch.maximum(high, z.amax(0))
        return cls(low, high)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.low)

    def around(self, z: Tensor) -> Box:
        """The box, widened where z (n_features,) lies outside of it."""
        z = z.detach().to("cpu", torch.float64)
        return Box(torch.minimum(self.low, z), torch.maximum(self.high, z))


@dataclass(frozen=True, eq=False)
class Reason:
    """A sufficient reason of one prediction.

    Attributes:
        predicted: the class.
        features: those that guarantee it, first the one that counts most against the rival.
        n_features: how many features there are.
        valid: whether they guarantee it. False where not even all features do: the logits are tied
            to within the rounding of float32; `features` are then all.
        exact: whether it is proven that no smaller set guarantees it.
        bound: no set of fewer features guarantees it.
        rival: the class that comes nearest when the other features move; None with one class.
        margin: logit difference predicted − rival at its worst over the box; ∞ without a rival.
        worst: (n_features,) the features where the rival comes nearest, at least float32.
        class_names: names for people to read, or None.
    """

    predicted: int
    features: tuple[int, ...]
    n_features: int
    valid: bool
    exact: bool
    bound: int
    rival: int | None
    margin: float
    worst: Tensor = field(repr=False)
    class_names: tuple[str, ...] | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """All of it as JSON values; the margin is null where there is no rival."""
        return {
            "predicted": self.predicted,
            "features": list(self.features),
            "n_features": self.n_features,
            "valid": self.valid,
            "exact": self.exact,
            "bound": self.bound,
            "rival": self.rival,
            "margin": None if self.rival is None else self.margin,
            "worst": self.worst.tolist(),
        }

    def __str__(self) -> str:
        name = self._name(self.predicted)
        if not self.valid:
            return f"nothing guarantees {name}: its logit is tied with that of {self._nearest()}"
        verb = "guarantees" if len(self.features) == 1 else "guarantee"
        text = f"{len(self.features)} of {self.n_features} features {verb} {name}"
        if not self.exact:
            text += f" (at least {self.bound} are needed)"
        if self.rival is not None:
            text += f"; {self._nearest()} comes nearest, {self.margin:.3g} below"
        return text

    def _repr_html_(self) -> str:
        shown = ", ".join(map(str, self.features[:20])) + ("…" if len(self.features) > 20 else "")
        listed = f"<br><small>{shown}</small>" if self.valid and shown else ""
        return f"<p>{html.escape(str(self))}{listed}</p>"

    def _name(self, label: int) -> str:
        return f"class {label}" if self.class_names is None else self.class_names[label]

    def _nearest(self) -> str:
        return "none" if self.rival is None else self._name(self.rival)


@dataclass(frozen=True, eq=False)
class Sizes:
    """How many features guarantee each of many predictions.

    Attributes:
        sizes: (n_samples,) int64, of the smallest sufficient set found.
        bounds: (n_samples,) int64, no smaller set suffices; equal to `sizes` where proven.
        predicted: (n_samples,) int64 classes.
        valid: (n_samples,) bool, False where not even all features suffice: the size is then
            n_features.
        relevant: (n_samples,) int64, features that could matter: their move within the box costs
            the lead over a rival that can win.
    """

    sizes: Tensor
    bounds: Tensor
    predicted: Tensor
    valid: Tensor
    relevant: Tensor

    @property
    def exact(self) -> float:
        """Fraction of the samples whose size is proven to be the smallest."""
        return float((self.sizes == self.bounds).double().mean()) if len(self.sizes) else 1.0


def sufficient_reason(
    head: Head | SparseHead,
    z: Tensor,
    box: Box,
    *,
    exact: bool = True,
    seconds: float = 10.0,
    class_names: Sequence[str] | None = None,
) -> Reason:
    """The fewest features of a sample that guarantee the head's prediction.

    Sums are in float64 and the lead that must be kept is a little above zero, by what float32
    arithmetic can lose: the head itself gives the prediction at every point of the box.

    Args:
        head: dense or sparse.
        z: (n_features,), finite; where it lies outside of the box, the box is widened.
        box: the values that the other features can take.
        exact: prove the set smallest, or find a smaller one; else a set in which no feature is
            superfluous, in milliseconds.
        seconds: limit of that proof; when it is hit, the best set so far comes with its bound.
        class_names: for printing.

    Raises:
        InputError: shapes that do not fit together, NaN or infinite features.
    """
    linear = _Linear(head)
    _check(linear, z[None] if z.ndim == 1 else z, box, expected="(n_features,)", single=z.ndim == 1)
    if class_names is not None and len(class_names) != linear.n_classes:
        raise InputError(f"{len(class_names)} class names for {linear.n_classes} classes")
    part = _Leads(linear, wide(z.detach()).cpu()[None].double().numpy(), box)
    free, most = part.freed(exact, seconds)
    return _reason(part, free[0], int(most[0]), wide(z.detach()).cpu(), class_names)


def reason_sizes(
    head: Head | SparseHead,
    features: Tensor,
    box: Box,
    *,
    exact: bool = True,
    seconds_each: float = 1.0,
) -> Sizes:
    """How many features guarantee the prediction, for many samples.

    Args:
        head: dense or sparse.
        features: (n_samples, n_features), finite.
        box: the values that features can take; widened for a sample outside of it.
        exact: as in `sufficient_reason`, where set and bound do not meet at once.
        seconds_each: limit of each sample's proof.

    Raises:
        InputError: shapes that do not fit together, NaN or infinite features.
    """
    linear = _Linear(head)
    _check(linear, features, box, expected="(n_samples, n_features)", single=features.ndim == 2)
    found: list[tuple[NDArray[Any], ...]] = []
    for z in _chunks(linear, features):
        part = _Leads(linear, z, box)
        free, most = part.freed(exact, seconds_each)
        n_features = linear.n_features
        found.append(
            (n_features - free.sum(1), n_features - most, part.predicted, part.valid, part.relevant)
        )
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return Sizes(*(torch.from_numpy(column) for column in columns))


class _Linear:
    """A head in float64, with its weights feature by feature."""

    def __init__(self, head: Head | SparseHead) -> None:
        dense = head.dense_weight() if isinstance(head, SparseHead) else head.weight
        weight = dense.detach().cpu().double()
        self.columns: Floats = np.ascontiguousarray(weight.numpy().T)  # (n_features, n_classes)
        self.bias: Floats = head.bias.detach().cpu().double().numpy()
        self.n_features, self.n_classes = self.columns.shape


class _Leads:
    """Some samples in one head: leads, gains, and the features that can be left free.

    Class y counts as a rival of its own that never gains, so that rivals are classes.
    """

    def __init__(self, linear: _Linear, z: Floats, box: Box) -> None:
        self.linear, self.z = linear, z
        self.low = np.minimum(box.low.numpy(), z)
        self.high = np.maximum(box.high.numpy(), z)
        logits = z @ linear.columns + linear.bias
        self.predicted: Ints = logits.argmax(1)
        self.rows = np.arange(len(z))
        self.leads: Floats = logits[self.rows, self.predicted][:, None] - logits
        caps = self.leads - self._rounding()
        caps[self.rows, self.predicted] = np.inf
        self.valid: Bools = (caps > 0).all(1)
        gains = self.gains()
        self.relevant: Ints = self._relevant(gains, caps)
        self.loads = normal(gains, caps)

    def gains(self) -> Floats:
        """(n, n_features, n_classes) what the lead over a class loses if a feature moves freely."""
        columns = self.linear.columns
        differences: Floats = columns.T[self.predicted][:, :, None] - columns
        up, down = self.z - self.low, self.z - self.high
        differences *= np.where(differences > 0, up[:, :, None], down[:, :, None])
        return differences

    def _rounding(self) -> Floats:
        """(n, n_classes) what float32 can lose of each lead, anywhere in the box.

        Rounding errors of n terms add up to about √n units in the last place of their sum of
        magnitudes (Higham, Mary 2019), one such sum for the class and one for its rival.
        """
        reach = np.maximum(np.abs(self.low), np.abs(self.high))
        sums = reach @ np.abs(self.linear.columns) + np.abs(self.linear.bias)
        unit = np.finfo(np.float32).eps * np.sqrt(self.linear.n_features + 1)
        return np.asarray(unit * (sums + sums[self.rows, self.predicted][:, None]))

    def _relevant(self, gains: Floats, caps: Floats) -> Ints:
        threatens = gains.sum(1) > caps
        counts: Ints = ((gains > 0) & threatens[:, None]).any(2).sum(1)
        return counts

    def freed(self, exact: bool, seconds: float) -> tuple[Bools, Ints]:
        """(n, n_features) the features that may be free, and (n,) how many could be at most."""
        packed = pack(self.loads)
        free, most = packed.free, packed.most
        if exact:
            for i in np.flatnonzero(free.sum(1) < most):
                free[i], most[i] = prove(
                    self.loads[i], free[i], int(most[i]), packed.weights[i], seconds
                )
        return free, most


def _chunks(linear: _Linear, features: Tensor) -> Iterator[Floats]:
    n = max(1, _CHUNK // (linear.n_features * linear.n_classes))
    for start in range(0, max(len(features), 1), n):
        yield wide(features[start : start + n].detach()).cpu().double().numpy()


def _reason(
    part: _Leads, free: Bools, most: int, z: Tensor, class_names: Sequence[str] | None
) -> Reason:
    gains, predicted, n_features = part.gains()[0], int(part.predicted[0]), len(free)
    margins = part.leads[0] - free @ gains
    margins[predicted] = np.inf
    rival = int(margins.argmin()) if part.linear.n_classes > 1 else None
    against = np.zeros(n_features) if rival is None else gains[:, rival]
    held = np.flatnonzero(~free)
    held = held[np.argsort(-against[held], kind="stable")]
    worst = part.z[0].copy()
    if rival is not None:
        difference = part.linear.columns[:, predicted] - part.linear.columns[:, rival]
        worst = np.where(free & (difference > 0), part.low[0], worst)
        worst = np.where(free & (difference < 0), part.high[0], worst)
    return Reason(
        predicted=predicted,
        features=tuple(held.tolist()),
        n_features=n_features,
        valid=bool(part.valid[0]),
        exact=len(held) == n_features - most,
        bound=n_features - most,
        rival=rival,
        margin=float(margins.min()),
        worst=torch.from_numpy(worst).to(z.dtype),
        class_names=None if class_names is None else tuple(class_names),
    )


def _check(linear: _Linear, z: Tensor, box: Box, *, expected: str, single: bool) -> None:
    """One sample or many, as `expected`, that fit head and box."""
    if not single or z.shape[-1] != linear.n_features or not z.dtype.is_floating_point:
        raise InputError(
            f"expected floating-point features of shape {expected} with n_features = "
            f"{linear.n_features}, found {z.dtype} of shape {tuple(z.shape)}"
        )
    if box.n_features != linear.n_features:
        raise InputError(
            f"n_features is {linear.n_features} in the head and {box.n_features} in the box"
        )
    if not bool(z.isfinite().all()):
        raise InputError("the features hold NaN or infinite values")
