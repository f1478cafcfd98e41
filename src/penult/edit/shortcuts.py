"""Shortcuts: the suspects of a run, as `penult shortcuts` finds and keeps them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from penult.edit.balance import Calibrated, Direction
from penult.edit.desk import logits_of
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast
from penult.edit.pooled import FEWEST_POOLED, pooled_suspects
from penult.edit.setting import EditSetting
from penult.edit.suspects import FEWEST, described_pair, find_suspects
from penult.edit.verdicts import latest, verdict_on
from penult.errors import InputError, NotWrittenError
from penult.features.draw import stratified
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.runs.run import Run
from penult.storage import read_json, write_json

FORMAT = "penult-shortcuts/3"
WHOLE = ("head", "part", "n_samples", "n_compared", "n_suspects", "pairs", "pooled")
# Numbers read to find principal directions; for more they are left out unless they are asked for.
AFFORDABLE = 4_000_000_000
DIRECTIONS = 3
# Weights times samples of the training that the evaluation samples are compared with.
COMPARED = 100_000_000_000


def find_shortcuts(
    run: Run,
    *,
    rate: float = 0.05,
    by: str = "overuse",
    n_listed: int = 200,
    n_directions: int | None = None,
    seed: int = 0,
    progress: Callable[[str], Progress] | None = None,
) -> dict[str, Any]:
    """Find suspects among the weights of a run's dense head, and keep them in the run.

    Args:
        run: best with evaluation samples of its own: on those that the head was fitted to, it
            makes hardly a mistake that could tell.
        rate: false discovery rate over all pairs.
        by: what lists the worst first: "overuse" or "gap".
        n_listed: how many pairs are listed.
        n_directions: principal directions looked at in each class; 3 where they cost little.
        seed: of the control.
        progress: called with "logits", "directions", "probabilities" or "weights"; gives the
            function that hears.

    Raises:
        InputError: a rate or a number that is none.
    """
    _check(rate, by, n_listed, n_directions)

    def heard(name: str) -> Progress | None:
        return progress(name) if progress else None

    setting = EditSetting.of(run)
    setting.features.require_one_label("a search for shortcuts")
    n_directions, notes = _affordable(run, setting, n_directions)
    directions = directions_of(setting, n_directions, heard("directions"))
    contrast = contrast_of(run, heard)
    found, listed = find_suspects(
        contrast,
        directions=directions,
        rate=rate,
        by=by,
        n_listed=n_listed,
        seed=seed,
        progress=heard("weights"),
    )
    pooled, said = _pooled(contrast, setting, rate)
    part, table, names = evaluated_part(run), contrast.new.table, tuple(setting.class_names)
    groups, ids = groups_of(run, part), run.evaluation().ids()
    document = {
        "format": FORMAT,
        "head": setting.dense.fingerprint(),
        "part": part,
        "n_samples": table.n_samples,
        **found,
        "notes": notes + said,
        "pairs": [
            described_pair(table, pair, q, rate, directions, names, ids, groups, setting.mean)
            for pair, q in listed
        ],
        "pooled": pooled,
    }
    try:
        with run.writing():
            write_json(run.folder / "shortcuts.json", document)
    except NotWrittenError as error:
        warnings.warn(f"what was found is not kept in the run: {error}", stacklevel=2)
    return with_verdicts(run, document)


def _check(rate: float, by: str, n_listed: int, n_directions: int | None) -> None:
    if not 0 < rate < 1:
        raise InputError(f"the false discovery rate must lie in (0, 1), found {rate}")
    if by not in ("overuse", "gap"):
        raise InputError(f"expected overuse or gap, found {by!r}")
    if n_directions is not None and n_directions < 0:
        raise InputError(f"the number of directions must be at least 0, found {n_directions}")
    if n_listed < 1:
        raise InputError(f"the number of listed pairs must be at least 1, found {n_listed}")


def contrast_of(run: Run, heard: Callable[[str], Progress | None] = lambda _: None) -> Contrast:
    """The evaluation samples of a run, and of those of the training as many as are affordable.

    Args:
        run: whose dense head is looked at.
        heard: gives the function that hears of "logits" and of "probabilities".
    """
    head, part = run.train().require_head(), evaluated_part(run)
    table = logits_of(run, head, heard("logits"))
    new = Calibrated.of(table, heard("probabilities"))
    return Contrast(new, None if part == "train" else trained_on(run, table.n_samples))


def trained_on(run: Run, fewest: int) -> Calibrated:
    """The samples that a run's network was trained on; of very many some, drawn from each class.

    Args:
        run: with the samples.
        fewest: that are taken, if there are so many.
    """
    features = run.train()
    head = features.require_head()
    n = max(fewest, COMPARED // head.weight.numel())
    if n < features.n_samples:
        features = features.subset(stratified(features.labels(), n / features.n_samples, 0))
    return Calibrated.of(LogitTable(features, head))


def _affordable(run: Run, setting: EditSetting, n_directions: int | None) -> tuple[int, list[str]]:
    """How many directions of each class are looked at, and what is to be said beforehand."""
    notes = []
    cost = setting.features.n_samples * setting.dense.weight.numel()
    if n_directions is None:
        n_directions = DIRECTIONS if cost <= AFFORDABLE else 0
        if not n_directions:
            notes.append("principal directions are left out: ask for them with --directions 3")
    if evaluated_part(run) == "train":
        notes.append(
            "the run has no evaluation samples to be compared with those of the training, on which "
            "a network makes hardly a mistake: no pair is called a suspect, and the order of the "
            "list says little; analyse with --eval DATA"
        )
    return n_directions, notes


def _pooled(
    contrast: Contrast, setting: EditSetting, rate: float
) -> tuple[dict[str, Any] | None, list[str]]:
    """What can be said of classes that have too few samples for their single pairs."""
    table = contrast.new.table
    counts = torch.bincount(table.labels, minlength=table.n_classes)
    few = (counts > 0) & (counts < FEWEST)
    if not bool(few.any()):
        return None, []
    n, n_samples = int(few.sum()), int(counts[few].sum())
    who = "1 class has" if n == 1 else f"{n:,} classes have"
    said = f"{who} fewer than {FEWEST} samples, too few to look at single features of a class"
    remedy = f"; for single pairs analyse with --eval and {FEWEST} images or more of a class"
    if n_samples < FEWEST_POOLED:
        return None, [f"{said}, and only {n_samples} together{remedy}"]
    pooled = pooled_suspects(contrast, few, setting, rate)
    return pooled, [f"{said}: features are tested for all of them together{remedy}"]


def shortcuts_document(run: Run) -> dict[str, Any] | None:
    """What `find_shortcuts` found, with the verdicts of today; None where it has not run.

    Raises:
        InputError: the file is of another version, or was cut off.
    """
    path = run.folder / "shortcuts.json"
    if not path.is_file():
        return None
    document = read_json(path, FORMAT)
    lacking = [key for key in WHOLE if key not in document]
    if lacking:
        raise InputError(
            f"{path} lacks {lacking[0]}: look for suspects anew with penult shortcuts {run.folder}"
        )
    return with_verdicts(run, document)


def with_verdicts(run: Run, document: dict[str, Any]) -> dict[str, Any]:
    """The document with the last verdict on each pair."""
    verdicts = latest(run)
    rows = []
    for row in document["pairs"]:
        said = verdict_on(verdicts, row["feature"], row["class"])
        rows.append({**row, "verdict": None if said is None else said.document()})
    return {**document, "pairs": rows}


def directions_of(
    setting: EditSetting, n_directions: int, progress: Progress | None = None
) -> list[Direction]:
    """The first principal directions of every class that has samples enough."""
    found: list[Direction] = []
    n_classes = len(setting.class_names)
    for c in range(n_classes if n_directions else 0):
        if int(setting.moments.counts[c]) > n_directions:
            components, _ = setting.components(c)
            for number, v in enumerate(components[:n_directions], 1):
                share = v.sum() * v * setting.dense.weight[c].double()
                found.append(Direction(c, number, share))
        if progress is not None:
            progress(c + 1, n_classes)
    return found
