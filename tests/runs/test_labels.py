"""Labels in another order are noticed at any size, and nothing is said where nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from penult.runs.labels import label_warnings


def names_of(n: int) -> list[str]:
    return [f"n{c:05d}" for c in range(n)]


def calls(
    n_classes: int, per_class: Sequence[int] | int, accuracy: float, seed: int
) -> tuple[Tensor, Tensor]:
    """True classes, and those by a network of some accuracy whose mistakes have favourites."""
    generator = np.random.default_rng(seed)
    sizes = [per_class] * n_classes if isinstance(per_class, int) else per_class
    labels = np.repeat(np.arange(n_classes), sizes)
    popular = generator.dirichlet(np.ones(n_classes))
    wrong = generator.choice(n_classes, len(labels), p=popular)
    right = generator.random(len(labels)) < accuracy
    return torch.from_numpy(labels), torch.from_numpy(np.where(right, labels, wrong))


@pytest.mark.parametrize(
    ("n_classes", "per_class", "accuracy"),
    [
        *((2, 10, 0.9), (2, 500, 0.6), (3, 4, 0.8), (10, 6, 0.95), (10, 1, 0.9), (10, 100, 0.3)),
        *((100, 5, 0.7), (1000, 1, 0.5), (1000, 4, 0.3), (1000, 1, 0.05)),
    ],
)
def test_a_network_that_is_right_is_left_alone(
    n_classes: int, per_class: int, accuracy: float
) -> None:
    for seed in range(20 if n_classes < 1000 else 4):
        found = calls(n_classes, per_class, accuracy, seed)
        assert label_warnings(*found, names_of(n_classes)) == [], seed


def test_unequal_classes_are_left_alone() -> None:
    for seed in range(20):
        sizes = [950, 30, 20] if seed % 2 else [2000, 1, 0, 40, 7]
        found = calls(len(sizes), sizes, 0.6, seed)
        assert label_warnings(*found, names_of(len(sizes))) == []


@pytest.mark.parametrize(
    ("n_classes", "per_class"), [(2, 300), (10, 30), (10, 500), (100, 4), (1000, 1), (1000, 5)]
)
@pytest.mark.parametrize("kind", ["noise", "separable"])
def test_a_random_network_is_not_taken_for_labels_in_another_order(
    n_classes: int, per_class: int, kind: str
) -> None:
    """Noise knows nothing; a separable one gives each class one output, drawn at random."""
    wrong = guessing = 0
    seeds = 20 if n_classes < 1000 else 3
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        labels = np.repeat(np.arange(n_classes), per_class)
        given = generator.integers(n_classes, size=n_classes)[labels]
        if kind == "noise":
            given = generator.integers(n_classes, size=len(labels))
        said = label_warnings(
            torch.from_numpy(labels), torch.from_numpy(given), names_of(n_classes)
        )
        wrong += any("if " in text or "another order" in text for text in said)
        guessing += any("no better than guessing" in text for text in said)
    if kind == "noise":
        assert wrong == 0
        assert guessing >= 0.7 * seeds
    # A random network that happens to give each class an output of its own is just that.
    assert wrong <= (0.2 if n_classes > 2 else 0.6) * seeds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("n_classes", "per_class", "accuracy"),
    [(3, 10, 0.9), (10, 6, 0.9), (10, 40, 0.6), (100, 10, 0.6)],
)
def test_a_permutation_of_the_classes_is_noticed(
    n_classes: int, per_class: int, accuracy: float, seed: int
) -> None:
    labels, predicted = calls(n_classes, per_class, accuracy, seed)
    order = np.roll(np.random.default_rng(seed).permutation(n_classes), 1)
    if (order == np.arange(n_classes)).mean() > 0.5:
        order = np.roll(order, 1)
    (said,) = label_warnings(torch.from_numpy(order)[labels], predicted, names_of(n_classes))
    assert "%" in said
    assert "--class-names" in said or "off by one" in said or "reverse order" in said


def test_two_of_ten_swapped_classes_are_named() -> None:
    labels, predicted = calls(10, 30, 0.95, 0)
    order = torch.arange(10)
    order[[3, 5]] = torch.tensor([5, 3])
    (said,) = label_warnings(order[labels], predicted, names_of(10))
    assert "n00003 → n00005" in said


@pytest.mark.parametrize(("n_classes", "per_class"), [(20, 1), (10, 20), (1000, 1), (1000, 4)])
@pytest.mark.parametrize("by", [1, -1])
def test_labels_off_by_one_are_noticed(n_classes: int, per_class: int, by: int) -> None:
    for seed in range(3):
        labels, predicted = calls(n_classes, per_class, 0.9 if per_class == 1 else 0.6, seed)
        (said,) = label_warnings((labels + by) % n_classes, predicted, names_of(n_classes))
        assert "off by one" in said
        assert f"one {'lower' if by == 1 else 'higher'}" in said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([str(i + 1) for i in range(10)], "(1, 2, 10, not 1, 10, 2)"),
        ([f"class{i}" for i in range(25)], "(1, 2, 10, not 1, 10, 2)"),
        ([c.upper() if i % 2 else c for i, c in enumerate("abcdefghij")], "regard to capitals"),
    ],
)
def test_folders_in_the_order_of_text_are_noticed(names: list[str], said: str) -> None:
    """The network counts as `names` do; folders come sorted as text."""
    for seed in range(5):
        truth, predicted = calls(len(names), 6, 0.9, seed)
        folders = sorted(names)
        labels = torch.tensor([folders.index(names[c]) for c in truth.tolist()])
        (found,) = label_warnings(labels, predicted, folders)
        assert said in found
        assert "--class-names" in found


def test_one_class_for_all() -> None:
    labels = torch.arange(10).repeat_interleave(4)
    (said,) = label_warnings(labels, torch.full((40,), 3), names_of(10))
    assert "calls 100.00 % of the samples 'n00003', which is the label of 10.00 %" in said
    assert label_warnings(torch.full((40,), 3), torch.full((40,), 3), names_of(10)) == []
    few = torch.tensor([0] * 100 + [1] * 5)
    assert label_warnings(few, torch.zeros(105).long(), names_of(2)) == []


def test_a_few_samples_say_nothing() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        labels = torch.arange(9)
        given = torch.from_numpy(generator.integers(1000, size=9))
        assert label_warnings(labels, given, names_of(1000)) == []


def test_classes_that_the_data_lacks() -> None:
    """Ten of a thousand classes: right where they are right, noticed where they are moved."""
    labels, predicted = calls(10, 20, 0.9, 1)
    kept = torch.arange(10) * 97
    assert label_warnings(kept[labels], kept[predicted], names_of(1000)) == []
    (said,) = label_warnings(kept[labels.roll(20)], kept[predicted], names_of(1000))
    assert "in another order" in said
