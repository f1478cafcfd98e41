"""Parts: the sets of samples that a run is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penult.features.shard_folder import ShardsFrom
from penult.runs.run import Run
from penult.runs.views import ImageView, Views


@dataclass(frozen=True)
class Part:
    """One set of samples: what it is, how many, and where its features come from.

    Attributes:
        about: what `run.json` says of it.
        fingerprint: of the data.
        n_samples: how many.
        source: the features, shard by shard, by this process.
        view: how other processes make it of the analysed images, where it is a view of them.
    """

    about: Mapping[str, Any]
    fingerprint: str
    n_samples: int
    source: ShardsFrom
    view: ImageView | None = None


@dataclass(frozen=True)
class Parts:
    """All samples of a run.

    Attributes:
        train: what is analysed.
        evaluation: what accuracies are measured on, or None for the analysed samples.
        also: what heads are fitted to as well, or None.
        views: likewise, made of the analysed images, or None.
        still: compares a finished run of the same identity with them, and raises an error where
            it is no longer what they give.
        look: called before the pass; gives what a person should know of the network and the
            images, by subject, and warns of it.
    """

    train: Part
    evaluation: Part | None = None
    also: Part | None = None
    views: Views | None = None
    still: Callable[[Run], None] | None = None
    look: Callable[[], dict[str, str]] = dict

    def identity(self) -> dict[str, Any]:
        """What the contents of the run depend on."""
        found = {
            "data": self.train.fingerprint,
            "evaluation data": self.evaluation.fingerprint if self.evaluation else "none",
        }
        further = {
            "also": self.also and self.also.fingerprint,
            "views": self.views and self.views.n,
        }
        return {**found, **{name: value for name, value in further.items() if value}}

    def described(self) -> dict[str, Any]:
        """What `run.json` says of them."""
        found: dict[str, Any] = {"data": dict(self.train.about)}
        found["evaluation"] = dict(self.evaluation.about) if self.evaluation else None
        return found if self.also is None else {**found, "also": dict(self.also.about)}

    def n_samples(self) -> int:
        """How many there are, each view of a sample counted."""
        there = [part for part in (self.train, self.evaluation, self.also) if part is not None]
        n_views = self.views.n if self.views else 0
        return sum(part.n_samples for part in there) + n_views * self.train.n_samples
