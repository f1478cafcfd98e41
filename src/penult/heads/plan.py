"""Plan: which sparse heads are fitted, and how."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from penult.errors import InputError
from penult.heads.refit.registry import REFITS
from penult.heads.select.budget import Budget, check_pool, check_sizes
from penult.heads.select.registry import SELECTIONS

SIZES = (1, 2, 3, 5, 8, 10, 15, 20)
BUDGETS = ("each", "mean")


def usual_sizes(n_features: int) -> tuple[int, ...]:
    """The sizes of a path where nobody asks for others, as far as there are features."""
    return tuple(k for k in SIZES if k <= n_features)


@dataclass(frozen=True)
class Plan:
    """Which heads are fitted, and how.

    Attributes:
        ks: features per class.
        select: one of `SELECTIONS`: how the features are chosen.
        refit: one of `REFITS`: how their weights are.
        labels: refit to the labels rather than to the dense head's probabilities.
        seed: of the random control, and of the parts judged in turn without evaluation data.
        budget: one of `BUDGETS`: "each" gives every class k features; "mean" gives k on average,
            more to the classes that need more; with "curvature" and "moments".
        max_features: how many different features all classes may use together; with "curvature"
            and "moments".
        pool: exactly how many different features all classes share; likewise.
        prior: how strongly the softmax refit is drawn towards the dense head's logits, 0 or more;
            None for a strength that follows from the parameters per sample, see `refit.loss`.
    """

    ks: tuple[int, ...] = SIZES
    select: str = "curvature"
    refit: str = "softmax"
    labels: bool = False
    seed: int = 0
    budget: str = "each"
    max_features: int | None = None
    pool: int | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        found: object = self.ks
        whole = isinstance(found, Iterable) and not isinstance(found, str)
        if not whole or not all(hasattr(k, "__index__") for k in self.ks):
            raise InputError(
                f"ks must be whole numbers, features per class, such as (1, 5, 10): found {found!r}"
            )
        object.__setattr__(self, "ks", tuple(operator.index(k) for k in self.ks))
        if self.select not in SELECTIONS:
            raise InputError(
                f"no selection is called {self.select!r}; there are {', '.join(SELECTIONS)}"
            )
        if self.refit not in REFITS:
            raise InputError(f"no refit is called {self.refit!r}; there are {', '.join(REFITS)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed must be 0 or more, and below 2**63, found {self.seed}")
        if self.budget not in BUDGETS:
            raise InputError(f"the budget must be one of {', '.join(BUDGETS)}, found {self.budget}")
        if self.refit != "softmax":
            if self.labels:
                raise InputError("labels are fitted by the softmax refit only")
            if self.prior is not None:
                raise InputError(
                    "a prior draws the softmax refit towards the dense head: the refit "
                    f"{self.refit} has none; leave the prior out or choose softmax"
                )
        if self.prior is not None and not 0 <= self.prior < float("inf"):
            raise InputError(f"the prior must be a number, 0 or more, found {self.prior}")
        if self.max_features is not None and self.pool is not None:
            raise InputError("a pool is an exact number of features: give no bound on them too")
        if self.shared is not None and self.budget == "mean":
            raise InputError("a mean k and a bound on all features do not go together: drop one")
        special = self.budget == "mean" or self.shared is not None
        if special and not SELECTIONS[self.select].takes_budgets:
            able = " or ".join(name for name, way in SELECTIONS.items() if way.takes_budgets)
            raise InputError(
                f"a mean k and a bound on all features need the selection {able}, "
                f"found {self.select}"
            )

    @classmethod
    def usual(cls, n_features: int) -> Plan:
        """The usual plan, of the sizes that features of this number allow."""
        return cls(usual_sizes(n_features))

    @property
    def shared(self) -> int | None:
        """How many different features all classes read together, at most or exactly."""
        return self.max_features if self.pool is None else self.pool

    def limits(self) -> Budget:
        """The budget that selections keep to."""
        return Budget(self.budget == "mean", self.shared, self.pool is not None)

    def sizes(self, n_classes: int, n_features: int) -> list[int]:
        """The sizes in order, each once.

        Raises:
            InputError: a size, or a bound on all features, that a head of these sizes cannot have.
        """
        ks = check_sizes(self.ks, n_features)
        if self.shared is not None:
            check_pool(self.shared, ks, n_features)
        if self.pool is not None and ks[0] * n_classes < self.pool:
            raise InputError(
                f"a pool of exactly {self.pool} features needs that many to be read: "
                f"{n_classes} classes with k = {ks[0]} read {ks[0] * n_classes} at most; "
                "raise k or lower the pool"
            )
        return ks
