"""Suspects: classes and features that look like shortcuts, worst first, without group labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.edit.balance import Direction
from penult.edit.gaps import all_gaps, one_gap, within_classes
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast, background
from penult.features.groups import FEWEST_RANKED, Groups
from penult.heads.comparison import PairedCounts
from penult.intervals import Z95, accuracy_interval, benjamini_hochberg, upper_tail
from penult.progress import Progress

MATTERS = 0.1  # of a class's most used feature: less used ones are not looked at
FEWEST = 20  # samples of a class whose features are looked at
SHOWN = 8  # samples named of each kind


@dataclass(frozen=True)
class Pair:
    """A class and a feature, or one of the class's directions.

    Attributes:
        of: the class.
        feature: its number; None for a direction.
        direction: number of the direction, or None.
        weight: what multiplies it in the class's logit.
        share: its weight times its spread, as a part of the largest of the class.
        score: by how many standard errors it is overused, see `Overuse`; over the background.
        p: of the score, one-sided.
    """

    of: int
    feature: int | None
    direction: int | None
    weight: float
    share: float
    score: float
    p: float


def find_suspects(
    contrast: Contrast,
    *,
    directions: Sequence[Direction] = (),
    rate: float = 0.05,
    by: str = "overuse",
    n_listed: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[tuple[Pair, float | None]]]:
    """Look at every pair of a class and a feature that matters to it.

    Args:
        contrast: the samples.
        directions: to be looked at as well.
        rate: false discovery rate over all pairs, below which one counts as a suspect.
        by: what lists the worst first: "overuse", or "gap" for the size of the accuracy gap.
        n_listed: how many pairs are listed.
        seed: of the control.
        progress: called with (samples done, samples in all).

    Returns:
        What was tested, and the listed pairs with their adjusted p values. These are None, and no
        pair counts as a suspect, without samples of the training to compare with: a head that was
        not trained to the end gives too much weight to features on its own samples, too.
    """
    table = contrast.new.table
    tested, spread = _tested(contrast, directions, progress)
    q = benjamini_hochberg(tested.p.numpy())
    features = tested.feature >= 0
    orders = (None, within_classes(table.labels, seed))
    pairs = (tested.of[features], tested.feature[features])
    gaps, by_chance = all_gaps(table, *pairs, orders, progress)
    size = tested.score.clone()
    if by == "gap":
        size = torch.zeros_like(size)
        size[features] = gaps.nearest_to_zero.abs()
    worst = size.argsort(descending=True, stable=True)[:n_listed].tolist()
    compared = contrast.trained
    found = {
        "n_pairs": len(tested.p),
        "rate": rate,
        "n_suspects": 0 if compared is None else int((q <= rate).sum()),
        "gaps": {"n_found": gaps.n_found(rate), "n_by_chance": by_chance.n_found(rate)},
        "n_compared": None if compared is None else compared.table.n_samples,
        "background": spread,
        "by": by,
    }
    return found, [(tested.pair(i), None if compared is None else float(q[i])) for i in worst]


@dataclass(frozen=True, eq=False)
class _Tested:
    """All pairs that were looked at, (n,) each; -1 for no feature, or no direction."""

    of: Tensor
    feature: Tensor
    direction: Tensor
    weight: Tensor
    share: Tensor
    score: Tensor
    p: Tensor

    def pair(self, i: int) -> Pair:
        """One of them."""
        j, direction = int(self.feature[i]), int(self.direction[i])
        return Pair(
            int(self.of[i]),
            None if j < 0 else j,
            None if direction < 0 else direction,
            *(float(x[i]) for x in (self.weight, self.share, self.score, self.p)),
        )


def _tested(
    contrast: Contrast, directions: Sequence[Direction], progress: Progress | None
) -> tuple[_Tested, float]:
    """The pairs that matter with their scores, and the background that is in these."""
    table, tested = contrast.new.table, contrast.weights(progress)
    weight = table.head.weight.double()
    spread = (weight - weight.mean(0)) * table.spread()
    share = spread.abs() / spread.abs().amax(1, keepdim=True).clamp_min(1e-300)
    enough = torch.bincount(table.labels, minlength=table.n_classes) >= FEWEST
    matters = (share >= MATTERS) & (weight != 0) & enough[:, None]
    of, feature = matters.nonzero().T
    ground = background(tested.by_class[matters], of)
    columns = [x[matters] for x in (weight, share, tested.score / ground)]
    kept = [one for one in directions if bool(enough[one.of])]
    if kept:
        none, ones = torch.full((len(kept),), -1), torch.ones(len(kept), dtype=torch.float64)
        score = contrast.directions(kept).score / ground
        columns = [torch.cat(x) for x in zip(columns, (ones, ones, score), strict=True)]
        of = torch.cat([of, torch.tensor([one.of for one in kept])])
        feature = torch.cat([feature, none])
    number = torch.full((len(of),), -1)
    if kept:
        number[-len(kept) :] = torch.tensor([one.number for one in kept])
    weights, shares, scores = columns
    p = upper_tail(scores)
    return _Tested(of, feature, number, weights, shares, scores, p), ground


def described_pair(
    table: LogitTable,
    pair: Pair,
    q: float | None,
    rate: float,
    directions: Sequence[Direction],
    class_names: Sequence[str],
    ids: Sequence[str],
    groups: Groups | None,
    mean: Tensor,
) -> dict[str, Any]:
    """Everything about one pair, as JSON holds it.

    `mean` (n_features,) is that of the analysed data, at which an edit switches a feature off.
    """
    x, sign = _values(table, pair, directions), _sign(table, pair)
    at, suspect = _value_at(mean, pair, directions), q is not None and q <= rate
    return {
        "class": class_names[pair.of],
        "feature": pair.feature,
        "direction": pair.direction,
        "weight": pair.weight,
        "share": pair.share,
        "overuse": {"score": pair.score, "p": pair.p, "q": q, "suspect": suspect},
        "gap": one_gap(table, x, pair.of),
        "pull": pull(table, x * sign, pair.of),
        "off": off(table, x, pair, at),
        "carries": [] if groups is None else carries(table, x, pair.of, groups),
        "sign": int(sign),
        "samples": _samples(table, x, sign, pair.of, ids),
    }


def pull(table: LogitTable, x: Tensor, c: int) -> dict[str, Any] | None:
    """What the feature does on other classes' samples where it is as high as in the class.

    How many of them are called this class, against how many others; and the AUC of the class's
    logit lead between the class's own samples and them: 1 where they are always told apart, 0.5
    where they are not. None where no other sample is that high.
    """
    own = table.labels == c
    high = ~own & (x >= x[own].median())
    rest = ~own & ~high
    n_high, n_rest = int(high.sum()), int(rest.sum())
    if not n_high:
        return None
    called = table.classes == c
    k_high, k_rest = int(called[high].sum()), int(called[rest].sum())
    lead = table.leads(c)
    value, interval = auc(lead[own], lead[high])
    return {
        "n_samples": n_high,
        "called": k_high / n_high,
        "interval": list(accuracy_interval(k_high, n_high)),
        "called_elsewhere": k_rest / n_rest if n_rest else None,
        "auc": value,
        "auc_interval": interval,
    }


def off(table: LogitTable, x: Tensor, pair: Pair, at: float) -> dict[str, Any]:
    """The exact change of accuracy when it stands still for the class, at one value.

    With the mean of the analysed data as this value it is what `penult edit --off` does.
    """
    taken = pair.weight * (x.double() - at)
    lead = table.leads(pair.of).double()
    now = torch.where(lead - taken > 0, pair.of, table.second(pair.of))
    # Whether the class is called now is decided by its own logit alone; others' order stays.
    counts = PairedCounts.of(table.labels, table.classes, now)
    own = table.labels == pair.of
    inside = PairedCounts.of(table.labels[own], table.classes[own], now[own])
    return {"overall": counts.document(), "class": inside.document()}


def carries(table: LogitTable, x: Tensor, c: int, groups: Groups) -> list[dict[str, Any]]:
    """How well it tells the groups apart within the class: for each attribute the best told value.

    The AUC is the chance that a sample with the value has more of it than one without.
    """
    own = table.labels == c
    found = []
    for name, attribute in groups.attributes.items():
        codes = attribute.codes[own]
        best: dict[str, Any] | None = None
        for code, value in enumerate(attribute.values):
            inside, outside = codes == code, (codes != code) & (codes >= 0)
            if min(int(inside.sum()), int(outside.sum())) < FEWEST_RANKED:
                continue
            area, interval = auc(x[own][inside], x[own][outside])
            if best is None or abs(area - 0.5) > abs(best["auc"] - 0.5):
                best = {"attribute": name, "value": value, "auc": area, "interval": interval}
                best["n_samples"] = int(inside.sum())
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda row: -abs(row["auc"] - 0.5))


def auc(first: Tensor, second: Tensor) -> tuple[float, list[float] | None]:
    """Chance that a value of the first is above one of the second, with its 95 % interval.

    The variance is that of DeLong, DeLong and Clarke-Pearson 1988, the interval on the logit scale.
    """
    from scipy.stats import rankdata  # slow to import

    m, n = len(first), len(second)
    both = rankdata(torch.cat([first, second]).double().numpy())
    own, other = rankdata(first.double().numpy()), rankdata(second.double().numpy())
    above = torch.from_numpy((both[:m] - own) / n)
    below = torch.from_numpy(1 - (both[m:] - other) / m)
    area = float(above.mean())
    if m < 2 or n < 2:
        return area, None
    variance = float(above.var()) / m + float(below.var()) / n
    kept = min(max(area, 0.5 / (m * n)), 1 - 0.5 / (m * n))
    half = Z95 * math.sqrt(variance) / (kept * (1 - kept))
    middle = math.log(kept / (1 - kept))
    ends = [1 / (1 + math.exp(-(middle + side * half))) for side in (-1, 1)]
    return area, ends


def _values(table: LogitTable, pair: Pair, directions: Sequence[Direction]) -> Tensor:
    if pair.feature is not None:
        return table.column(pair.feature)
    return table.along(_vector(pair, directions))


def _value_at(features: Tensor, pair: Pair, directions: Sequence[Direction]) -> float:
    """The feature's, or the direction's, value of one sample (n_features,)."""
    if pair.feature is not None:
        return float(features[pair.feature])
    vector = _vector(pair, directions)
    return float(features.to(vector) @ vector)


def _vector(pair: Pair, directions: Sequence[Direction]) -> Tensor:
    return next(d.vector for d in directions if (d.of, d.number) == (pair.of, pair.direction))


def _sign(table: LogitTable, pair: Pair) -> float:
    """Whether more of it speaks for the class (1) or against it (-1), next to the other classes."""
    if pair.feature is None:
        return 1.0
    column = table.head.weight[:, pair.feature]
    return -1.0 if float(column[pair.of]) < float(column.mean()) else 1.0


def _samples(
    table: LogitTable, x: Tensor, sign: float, c: int, ids: Sequence[str]
) -> Mapping[str, list[dict[str, Any]]]:
    """Samples to look at: high in the class, low in it, high elsewhere; with their values.

    Where less of the feature speaks for the class (a sign of -1), high and low change places.
    """
    own = (table.labels == c).nonzero()[:, 0]
    other = (table.labels != c).nonzero()[:, 0]
    order = own[(sign * x[own]).argsort(descending=True, stable=True)]
    elsewhere = other[(sign * x[other]).argsort(descending=True, stable=True)]
    chosen = {"high": order, "low": order.flip(0), "elsewhere": elsewhere}
    return {
        name: [
            {"row": row, "id": ids[row], "value": float(x[row])} for row in rows[:SHOWN].tolist()
        ]
        for name, rows in chosen.items()
    }
