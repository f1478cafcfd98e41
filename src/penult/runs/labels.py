"""Labels: whether they can be those of the network, judged by the classes that it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.features.draw import folds
from penult.intervals import accuracy_interval, paired_interval
from penult.text import counted, one_line, percent

FEWEST = 10  # samples, and samples of other classes, below which nothing is concluded
SURE = 3.0  # standard errors
GAIN = 0.05  # of accuracy, from which another order of the classes counts as far better
MOST_CLASSES = 3000  # beyond, the best order of all takes too long to find

Ints = NDArray[np.int64]


def label_warnings(labels: Tensor, predicted: Tensor, class_names: Sequence[str]) -> list[str]:
    """What is suspicious about the labels, or the network, with the likely cause; mostly nothing.

    At most one of: the network always gives one class; another order of the classes fits far
    better; the accuracy is that of guessing. Nothing is said where chance could have done it.

    Args:
        labels, predicted: (n_samples,) int64, given classes and those that the network gives.
        class_names: of all classes, in the order in which the labels count them.
    """
    calls = _Confusions(labels.numpy(), predicted.numpy(), len(class_names))
    if calls.n < FEWEST or len(calls.present) < 2:
        return []
    for look in (_constant, _ordered, _reordered, _guessing):
        found = look(calls, class_names)
        if found:
            return [found]
    return []


@dataclass(frozen=True, eq=False)
class _Confusions:
    """Labels with the network's classes."""

    labels: Ints
    predicted: Ints
    n_classes: int

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def present(self) -> Ints:
        return np.unique(self.labels)

    def counts(self) -> tuple[Ints, Ints]:
        """Samples of each class by label, and by the network."""
        return (
            np.bincount(self.labels, minlength=self.n_classes),
            np.bincount(self.predicted, minlength=self.n_classes),
        )

    def guessed(self, place: Ints | None = None) -> tuple[float, float]:
        """Mean and variance of the samples right if the network's classes were dealt at random.

        Args:
            place: (n_classes,), the output that a label is taken to mean; itself where None.
        """
        a, b = (counts.astype(float) for counts in self.counts())
        b, n = b if place is None else b[place], float(self.n)
        both = float(a @ b)
        variance = (both**2 + n * n * both - n * float((a * b) @ (a + b))) / (n * n * (n - 1))
        return both / n, max(0.0, variance)

    def favourites(self) -> dict[int, int]:
        """Of classes with at least three samples, the output that most of the class has."""
        found = {}
        for c in self.present.tolist():
            own = np.bincount(self.predicted[self.labels == c])
            top = int(own.argmax())
            if own.sum() >= 3 and 2 * own[top] > own.sum():
                found[c] = top
        return found

    def collide(self) -> bool:
        """Whether many classes are mostly given the output that another class is given too.

        Such a network does not tell its classes apart: no order of them is the right one.
        """
        outputs = list(self.favourites().values())
        n_colliding = sum(outputs.count(output) > 1 for output in outputs)
        return n_colliding > 0.2 * len(outputs)

    def much_better(self, right: NDArray[np.bool_], guessed: float) -> bool:
        """Whether samples are right so much more often than by the labels as they are."""
        as_given = self.labels == self.predicted
        lost, won = int((as_given & ~right).sum()), int((right & ~as_given).sum())
        if (won - lost) / self.n < GAIN or paired_interval(lost, won, self.n, SURE)[1] >= 0:
            return False
        share = guessed / self.n
        low, _ = accuracy_interval(int(right.sum()), self.n, SURE)
        return (low - share) / max(1e-9, 1 - share) >= 0.2 and not self.collide()


def _constant(calls: _Confusions, names: Sequence[str]) -> str | None:
    """One class is given to nearly all samples, those of other classes too."""
    by_label, by_network = calls.counts()
    c = int(by_network.argmax())
    others = calls.labels != c
    n, n_taken = int(others.sum()), int((calls.predicted[others] == c).sum())
    if n < FEWEST or n_taken < 0.95 * n or accuracy_interval(n_taken, n)[0] < 0.7:
        return None
    return (
        f"the network calls {percent(by_network[c] / calls.n)} % of the samples "
        f"{one_line(names[c], 60)!r}, which is the label of {percent(by_label[c] / calls.n)} %: "
        "probably its weights were not loaded, or its images are prepared in another way "
        "(--mean, --std, --size)"
    )


def _ordered(calls: _Confusions, names: Sequence[str]) -> str | None:
    """A known mistake puts the labels in another order: the likeliest of several."""
    best = None
    for cause, place in _orders(names):
        right = place[calls.labels] == calls.predicted
        n_right = int(right.sum())
        if (best is None or n_right > best[0]) and calls.much_better(
            right, calls.guessed(place)[0]
        ):
            best = n_right, cause
    return None if best is None else _said(calls, best[0] / calls.n, best[1])


def _said(calls: _Confusions, accuracy: float, cause: str) -> str:
    as_given = float((calls.labels == calls.predicted).mean())
    return (
        f"accuracy is {percent(as_given)} % with the labels as they are, but "
        f"{percent(accuracy)} % {cause}"
    )


def _orders(names: Sequence[str]) -> list[tuple[str, Ints]]:
    """Ways in which labels come in another order: what is to be done, and each label's output."""
    n = len(names)
    numbers = np.arange(n)
    found = [
        ("if every label were one higher: labels seem to be off by one", (numbers + 1) % n),
        ("if every label were one lower: labels seem to be off by one", (numbers - 1) % n),
        ("if the classes were in the reverse order", numbers[::-1].copy()),
    ]
    advice = "give the network's order by --class-names FILE"
    keys: dict[str, Callable[[str], object]] = {
        "if numbers in the classes' names counted as numbers (1, 2, 10, not 1, 10, 2)": counted,
        "if the classes' names were sorted without regard to capitals": str.casefold,
        "if the classes' names were sorted as numbers are, without regard to capitals": (
            lambda name: counted(name.casefold())
        ),
        "if the classes' names were sorted as text": lambda name: name,
    }
    for cause, key in keys.items():
        order = sorted(range(n), key=lambda c: key(names[c]))  # type: ignore[arg-type, return-value]
        place = np.empty(n, dtype=np.int64)
        place[order] = numbers
        if not np.array_equal(place, numbers):
            found.append((f"{cause}: {advice}", place))
    return found


def _reordered(calls: _Confusions, names: Sequence[str]) -> str | None:
    """Some order of the classes, learnt on half of the samples, fits the other half far better."""
    outputs = np.union1d(calls.present, calls.predicted)
    if len(outputs) > MOST_CLASSES:
        return None
    rows = np.searchsorted(calls.present, calls.labels)
    columns = np.searchsorted(outputs, calls.predicted)
    own = np.searchsorted(outputs, calls.present)
    fold = folds(torch.from_numpy(calls.labels), 2, 0).numpy()
    right = np.zeros(calls.n, dtype=bool)
    guessed = 0.0
    for part in (0, 1):
        seen, judged = fold != part, fold == part
        place = _matched(rows[seen], columns[seen], own, len(outputs))
        right[judged] = place[rows[judged]] == columns[judged]
        by_label = np.bincount(rows[judged], minlength=len(own))
        by_network = np.bincount(columns[judged], minlength=len(outputs))
        guessed += float(by_label @ by_network[place]) / max(1, int(judged.sum()))
    if not calls.much_better(right, guessed):
        return None
    place = _matched(rows, columns, own, len(outputs))
    moved = [
        f"{one_line(names[calls.present[i]], 40)} → {one_line(names[outputs[place[i]]], 40)}"
        for i in np.flatnonzero(place != own)[:3]
    ]
    cause = (
        f"with the classes in another order ({', '.join(moved)} …): the labels are probably not "
        "in the order of the network's outputs; give that order by --class-names FILE"
    )
    return _said(calls, float(right.mean()), cause)


def _matched(rows: Ints, columns: Ints, own: Ints, n_columns: int) -> Ints:
    """The output that each class is matched with, so that most samples are right."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

    table = np.zeros((len(own), n_columns))
    np.add.at(table, (rows, columns), 1)
    table[np.arange(len(own)), own] += 0.5  # of equal matches the one as it is
    found: Ints = linear_sum_assignment(table, maximize=True)[1]
    return found


def _guessing(calls: _Confusions, names: Sequence[str]) -> str | None:
    """The accuracy is that of classes dealt at random, and not much more can be hidden there."""
    n_right = int((calls.labels == calls.predicted).sum())
    mean, variance = calls.guessed()
    if n_right >= mean + 2 * math.sqrt(variance):
        return None
    if accuracy_interval(n_right, calls.n, 2.58)[1] > mean / calls.n + 0.15:
        return None
    return (
        f"accuracy is {percent(n_right / calls.n)} % on {calls.n:,} samples, no better than "
        f"guessing ({percent(mean / calls.n)} %): probably the network's weights were not loaded, "
        "its images are prepared in another way (--mean, --std, --size), or the labels are those "
        "of other data or classes"
    )
