"""Filling: the shards of all parts of a run are written, and their samples added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from penult.features.features import Features
from penult.features.influence import Evidence
from penult.features.shard_folder import Faults, ShardFolder
from penult.network.head import Head
from penult.runs.calls import Calls
from penult.runs.decisions import Decisions
from penult.runs.parts import Part, Parts
from penult.runs.run import Run
from penult.runs.sums import Summing, Sums, Total
from penult.runs.views import Views
from penult.storage import sweep


class Fill(Protocol):
    """What writes the shards of one part that are not there yet, and adds up all of them."""

    def __call__(self, name: str, part: Part, shards: ShardFolder, summing: Summing) -> Sums:
        """Fill a folder.

        Args:
            name: "train", "eval", "also", or what a view is called.
            part: where the features come from.
            shards: where they go.
            summing: how they are added up.
        """


def fill_here(name: str, part: Part, shards: ShardFolder, summing: Summing) -> Sums:
    """One shard after the other, by this process."""
    total = Total(summing)
    shards.fill(part.source, total.add)
    return total.sums


@dataclass(frozen=True, eq=False)
class Filled:
    """What the pass over the data found.

    Attributes:
        evidence: sums over the analysed data.
        calls: the network's classes, of "train" and "eval".
        faults: what was left out of each part.
        views: how many there are, the changes, and the network's accuracy under each, of some
            images; None without views.
        n_also: further samples that heads are fitted to.
    """

    evidence: Evidence
    calls: dict[str, Calls | Decisions]
    faults: dict[str, Faults]
    views: dict[str, Any] | None
    n_also: int = 0

    def n_further(self) -> int:
        """Samples that heads are fitted to besides the analysed ones, and never judged on."""
        n_views = 0 if self.views is None else int(self.views["n"])
        return self.n_also + n_views * self.evidence.moments.n_samples


def fill_parts(
    run: Run,
    head: Head,
    class_names: Sequence[str],
    parts: Parts,
    identity: Mapping[str, Any],
    store: torch.dtype,
    summing: Summing,
    fill: Fill,
) -> Filled:
    """Write the shards; gives the sums over the analysed data, and the network's classes."""
    faults: dict[str, Faults] = {}

    def filled_into(folder: Path, name: str, part: Part, summing: Summing) -> tuple[Sums, Faults]:
        sweep(folder)  # what killed writers have left, since this process holds the run
        shards = ShardFolder(folder, head, class_names, store, identity)
        return fill(name, part, shards, summing), shards.faults

    def filled(name: str, part: Part, summing: Summing) -> Sums:
        sums, faults[name] = filled_into(run.folder / "features" / name, name, part, summing)
        return sums

    def filled_views(views: Views) -> dict[str, Any]:
        images, kinds, accuracy = views.begin(run)
        for number in range(1, views.n + 1 if kinds else 1):
            name, view = f"view {number} of {views.n}", views.view(images, kinds, number)
            source = views.shards(view, name)
            part = Part({}, parts.train.fingerprint, len(images), source, view)
            filled_into(run.view_folder(number), name, part, summing.calls_alone())
        return {"n": views.n if kinds else 0, "kinds": list(kinds), "accuracy": accuracy}

    train = filled("train", parts.train, summing)
    assert train.evidence is not None
    calls = {"train": train.calls}
    if parts.evaluation is not None:
        calls["eval"] = filled("eval", parts.evaluation, summing.calls_alone()).calls
    n_also = 0
    if parts.also is not None:
        filled("also", parts.also, summing.calls_alone())
        n_also = Features.open(run.also_folder).n_samples
    views = None if parts.views is None else filled_views(parts.views)
    return Filled(train.evidence.to("cpu"), calls, faults, views, n_also)
