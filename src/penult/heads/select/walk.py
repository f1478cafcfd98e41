"""Walk: one path over k on a quadratic; classes add, remove and swap features in turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.heads.select.quadratic import FoundSize, Quadratic
from penult.heads.select.tableau import Tableau

# A swap must explain this part more, or rounding would go on swapping for ever.
LEAST_GAIN = 1e-8
# Features that could come in are looked at so many at a time, as long as one of them helps.
FIRST_LOOKED_AT = 32
MOST_ROUNDS = 500
# Classes are taken in so many turns; those of one turn do not see each other's change.
TURNS = 10
# Sweeps of swaps end when fewer classes than this part change, and after so many.
FEW_CHANGES, MOST_SWEEPS = 0.05, 4
# Numbers of one array of a group of classes: it stays in the cache.
GROUP = 2**18

Tick = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Features of each class in the order in which forward steps take them, and what they explain.

    Attributes:
        places: (n_classes, k) in the candidates.
        explained: (n_classes, k), what a class explains by itself with 1, 2, … of them.
    """

    places: Tensor
    explained: Tensor


def forward(model: Quadratic, k: int, tick: Tick) -> Ranking:
    """Add the feature that explains most, class by class, up to k."""
    device = model.candidates.device
    places, explained = [], []
    m = model.candidates.shape[1]
    for rows in torch.split(torch.arange(model.n_classes, device=device), max(1, GROUP // m)):
        products = model.products(rows)[0]
        tableau = model.regressions(rows, products)
        values = []
        for _ in range(k):
            tableau.add(tableau.gains().argmax(1))
            values.append(tableau.explained)
        places.append(tableau.support)
        explained.append(torch.stack(values, 1))
        tick()
    return Ranking(torch.cat(places), torch.cat(explained))


def improve(tableau: Tableau) -> None:
    """Swap one kept feature for another per target, the best swap first, until none helps.

    Of the features that could come in, those that promise most are looked at first, and the others
    once none of these helps any more.
    """
    for most in (FIRST_LOOKED_AT, tableau.products.shape[1]):
        _swap(tableau, most)
    tableau.refresh()


def _swap(tableau: Tableau, most: int) -> None:
    """Swap as `improve` does, for one of the `most` features per target that promise most."""
    active = torch.arange(len(tableau.support), device=tableau.support.device)
    part = tableau.only(active)
    for _ in range(MOST_ROUNDS):
        bounds, floor = part.swap_bounds(), LEAST_GAIN * part.explained.clamp(min=1e-300)
        m = min(most, int((bounds > floor[:, None]).sum(1).max()))
        if m == 0:
            return
        columns = bounds.topk(m, dim=1).indices
        gains, places = part.swap_gains(columns).flatten(1).max(1)
        better = (gains > floor).nonzero()[:, 0]
        if not len(better):
            return
        places, columns, active = places[better], columns[better], active[better]
        part = part.only(better)
        part.swap(places // m, columns.gather(1, places[:, None] % m)[:, 0])
        tableau.put(active, part)


class Walk:
    """Supports of all classes on a quadratic, changed in turns.

    Attributes:
        places: (n_classes, k) in the candidates; after a turn those whose loss would cost most come
            first. A class reads the first `sizes`.
        sizes: (n_classes,) int64.
        costs: (n_classes, k), what the second-order loss of each kept feature would be.
        weight: (n_classes, n_features + 1).
    """

    def __init__(self, model: Quadratic, places: Tensor, sizes: Tensor, tick: Tick) -> None:
        self.model, self._tick = model, tick
        self.places, self.sizes = places, sizes
        self.costs = torch.zeros(places.shape, dtype=torch.float64, device=places.device)
        width = model.units.mean.shape[0] + 1
        self.weight = self.costs.new_zeros(len(places), width)
        self._turns = _turns(model)

    def sweep(self, sizes: Tensor | None = None, *, swap: bool = True) -> int:
        """Let each class reach its new size and swap until none helps; how many classes changed."""
        sizes = self.sizes if sizes is None else sizes
        wide = int(sizes.max()) - self.places.shape[1]
        if wide > 0:
            self.places = torch.nn.functional.pad(self.places, (0, wide))
            self.costs = torch.nn.functional.pad(self.costs, (0, wide))
        n_changed = 0
        for rows in self._turns:
            products, level = self.model.products(rows)
            weight = self.weight[rows]
            steps = torch.stack([self.sizes[rows], sizes[rows]])
            for old, new in torch.unique(steps, dim=1).T.tolist():
                of = ((steps[0] == old) & (steps[1] == new)).nonzero()[:, 0]
                n_changed += self._turn(rows[of], products[of], old, new, swap)
                kept = self.places[rows[of], :new], self._values
                weight[of] = self.model.weight(rows[of], *kept, level[of])
            self.weight[rows] = weight
            if self.model.coupling is not None:
                self.model.coupling.put(rows, weight)
            self._tick()
        self.sizes = sizes.clone()
        return n_changed

    def settle(self) -> None:
        """Sweep until few classes change."""
        for _ in range(MOST_SWEEPS):
            if self.sweep() <= FEW_CHANGES * len(self.places) or self.model.coupling is None:
                return

    def _turn(self, rows: Tensor, products: Tensor, old: int, new: int, swap: bool) -> int:
        """The turn of classes that go from `old` features to `new`; how many of them changed."""
        before = self.places[rows, :old]
        tableau = self.model.regressions(rows, products, before.clone())
        for _ in range(old - new):
            tableau.remove(tableau.losses().argmin(1))
        for _ in range(new - old):
            tableau.add(tableau.gains().argmax(1))
        if swap:
            improve(tableau)
        losses, order = tableau.losses().sort(dim=1, descending=True, stable=True)
        self.places[rows, :new] = tableau.support.gather(1, order)
        self.costs[rows, :new] = losses
        self._values = tableau.weights.gather(1, order)
        if old != new:
            return len(rows)
        return int((tableau.support.sort(1).values != before.sort(1).values).any(1).sum())

    def found(self) -> FoundSize:
        """Where the walk stands."""
        support = self.model.candidates.gather(1, self.places)
        return FoundSize(support, self.sizes.clone(), self.weight.clone(), self.costs.clone())


def walk_down(
    model: Quadratic,
    start: Ranking,
    sizes: Mapping[int, Tensor],
    wanted: Collection[int],
    tick: Tick,
) -> Iterator[tuple[int, FoundSize]]:
    """Heads of each size, the largest first: remove what costs least and swap, down to the least.

    Args:
        model: the quadratic.
        start: features of each class, at least as many as it keeps.
        sizes: for every k that is passed, in falling order, how many features each class keeps.
        wanted: those of them whose heads are.
        tick: called after each turn.
    """
    largest, *others = sizes
    first = sizes[largest]
    walk = Walk(model, start.places[:, : int(first.max())].clone(), first.clone(), tick)
    walk.sweep(swap=False)
    walk.settle()
    yield largest, walk.found()
    for k in others:
        walk.sweep(sizes[k])
        if k in wanted:
            if model.coupling is not None:
                walk.sweep()
            yield k, walk.found()


def _turns(model: Quadratic) -> list[Tensor]:
    """Classes that take their turn together."""
    n, device = model.n_classes, model.candidates.device
    if model.coupling is None:
        m = model.candidates.shape[1]
        return list(torch.split(torch.arange(n, device=device), max(1, GROUP // m)))
    return [torch.arange(turn, n, TURNS, device=device) for turn in range(min(TURNS, n))]
